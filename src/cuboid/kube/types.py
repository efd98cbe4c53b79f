"""The parts of the Kubernetes API that Cuboid reads, as structs: `types.pod(raw)` from a decoded JSON object.

For reading. What is written stays plain JSON (`dict`), so that no field which Cuboid does not know is lost. Unknown
fields are ignored; times are RFC 3339 strings; quantities are strings (see `cuboid.kube.quantity`).
Source: the OpenAPI description of Kubernetes 1.37.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import field

from cuboid.lib.errors import InvalidError

IntOrString = int | str
S = TypeVar("S", bound="Object")


class Base(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """All of ours: camelCase on the wire, defaults left out."""


class OwnerReference(Base):
    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False
    block_owner_deletion: bool = False


class ObjectMeta(Base):
    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: list[str] = []
    owner_references: list[OwnerReference] = []


class Object(Base):
    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = field(default_factory=ObjectMeta)


# --- environment -----------------------------------------------------------------------------------------------------


class KeySelector(Base):
    """`configMapKeyRef` and `secretKeyRef`."""

    name: str = ""
    key: str = ""
    optional: bool = False


class ObjectFieldSelector(Base):
    field_path: str
    api_version: str = "v1"


class ResourceFieldSelector(Base):
    resource: str
    container_name: str = ""
    divisor: str = ""


class EnvVarSource(Base):
    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None
    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None


class EnvVar(Base):
    name: str
    value: str = ""
    value_from: EnvVarSource | None = None


class LocalObjectReference(Base):
    name: str = ""
    optional: bool = False


class EnvFromSource(Base):
    prefix: str = ""
    config_map_ref: LocalObjectReference | None = None
    secret_ref: LocalObjectReference | None = None


# --- probes and hooks ------------------------------------------------------------------------------------------------


class ExecAction(Base):
    command: list[str] = []


class HTTPHeader(Base):
    name: str
    value: str = ""


class HTTPGetAction(Base):
    port: IntOrString
    path: str = "/"
    host: str = ""
    scheme: str = "HTTP"
    http_headers: list[HTTPHeader] = []


class TCPSocketAction(Base):
    port: IntOrString
    host: str = ""


class GRPCAction(Base):
    port: int
    service: str = ""


class SleepAction(Base):
    seconds: int = 0


class LifecycleHandler(Base):
    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(Base):
    post_start: LifecycleHandler | None = None
    pre_stop: LifecycleHandler | None = None
    stop_signal: str = ""


class Probe(Base):
    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    grpc: GRPCAction | None = None
    initial_delay_seconds: int = 0
    timeout_seconds: int = 1
    period_seconds: int = 10
    success_threshold: int = 1
    failure_threshold: int = 3
    termination_grace_period_seconds: int | None = None


# --- containers ------------------------------------------------------------------------------------------------------


class ContainerPort(Base):
    container_port: int
    name: str = ""
    host_port: int = 0
    protocol: str = "TCP"
    host_ip: str = field(default="", name="hostIP")


class ResourceRequirements(Base):
    limits: dict[str, str] = {}
    requests: dict[str, str] = {}


class Capabilities(Base):
    add: list[str] = []
    drop: list[str] = []


class SeccompProfile(Base):
    type: str = ""
    localhost_profile: str = ""


class SecurityContext(Base):
    capabilities: Capabilities | None = None
    privileged: bool = False
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    read_only_root_filesystem: bool = False
    allow_privilege_escalation: bool | None = None
    proc_mount: str = ""
    seccomp_profile: SeccompProfile | None = None


class VolumeMount(Base):
    name: str
    mount_path: str
    sub_path: str = ""
    sub_path_expr: str = ""
    read_only: bool = False
    mount_propagation: str = ""


class VolumeDevice(Base):
    name: str
    device_path: str


class ContainerResizePolicy(Base):
    resource_name: str
    restart_policy: str = "NotRequired"


class Container(Base):
    name: str
    image: str = ""
    command: list[str] = []
    args: list[str] = []
    working_dir: str = ""
    ports: list[ContainerPort] = []
    env: list[EnvVar] = []
    env_from: list[EnvFromSource] = []
    resources: ResourceRequirements = field(default_factory=ResourceRequirements)
    resize_policy: list[ContainerResizePolicy] = []
    volume_mounts: list[VolumeMount] = []
    volume_devices: list[VolumeDevice] = []
    startup_probe: Probe | None = None
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    image_pull_policy: str = ""
    restart_policy: str = ""  # of an init container: "Always" makes it a sidecar
    security_context: SecurityContext | None = None
    termination_message_path: str = "/dev/termination-log"
    termination_message_policy: str = "File"
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    target_container_name: str = ""  # of an ephemeral container: whose processes it sees


# --- volumes ---------------------------------------------------------------------------------------------------------


class KeyToPath(Base):
    key: str
    path: str
    mode: int | None = None


class ConfigMapVolumeSource(Base):
    name: str = ""
    items: list[KeyToPath] = []
    default_mode: int | None = None
    optional: bool = False


class SecretVolumeSource(Base):
    secret_name: str = ""
    items: list[KeyToPath] = []
    default_mode: int | None = None
    optional: bool = False


class DownwardAPIVolumeFile(Base):
    path: str
    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    mode: int | None = None


class DownwardAPIVolumeSource(Base):
    items: list[DownwardAPIVolumeFile] = []
    default_mode: int | None = None


class ObjectProjection(Base):
    """A configMap or secret inside a projected volume."""

    name: str = ""
    items: list[KeyToPath] = []
    optional: bool = False


class DownwardAPIProjection(Base):
    items: list[DownwardAPIVolumeFile] = []


class ServiceAccountTokenProjection(Base):
    path: str
    audience: str = ""
    expiration_seconds: int = 3600


class VolumeProjection(Base):
    config_map: ObjectProjection | None = None
    secret: ObjectProjection | None = None
    downward_api: DownwardAPIProjection | None = field(default=None, name="downwardAPI")
    service_account_token: ServiceAccountTokenProjection | None = None


class ProjectedVolumeSource(Base):
    sources: list[VolumeProjection] = []
    default_mode: int | None = None


class EmptyDirVolumeSource(Base):
    medium: str = ""
    size_limit: str = ""


class NFSVolumeSource(Base):
    server: str
    path: str
    read_only: bool = False


class CSIVolumeSource(Base):
    driver: str
    read_only: bool = False
    fs_type: str = ""
    volume_attributes: dict[str, str] = {}


class HostPathVolumeSource(Base):
    path: str
    type: str = ""


class PersistentVolumeClaimVolumeSource(Base):
    claim_name: str
    read_only: bool = False


class Volume(Base):
    name: str
    empty_dir: EmptyDirVolumeSource | None = None
    config_map: ConfigMapVolumeSource | None = None
    secret: SecretVolumeSource | None = None
    projected: ProjectedVolumeSource | None = None
    downward_api: DownwardAPIVolumeSource | None = field(default=None, name="downwardAPI")
    nfs: NFSVolumeSource | None = None
    csi: CSIVolumeSource | None = None
    host_path: HostPathVolumeSource | None = None
    persistent_volume_claim: PersistentVolumeClaimVolumeSource | None = None


NAMED_VOLUME_DRIVER = "volume.cuboid.dev"
"""CSI driver name of a named volume: `volumeAttributes: {name: NAME}`."""

VOLUME_DATA = "volume.cuboid.dev/data"
"""Finalizer of a PersistentVolume whose data is on a node: that node's agent removes the data, then this."""


def named_volume(volume: Volume) -> str:
    """The name of the block device of its own behind this volume, "" if it is another kind of volume."""
    if volume.csi is None or volume.csi.driver != NAMED_VOLUME_DRIVER:
        return ""
    return volume.csi.volume_attributes.get("name", "")


NFS_DRIVER = "nfs.csi.k8s.io"
"""Name of Kubernetes' CSI driver for NFS. Its volumes in a pod are taken as `nfs` ones that have mount options."""


def nfs_volume(volume: Volume) -> tuple[dict[str, Any], tuple[str, ...]] | None:
    """Source (server, path, readOnly) and mount options of an NFS volume, as given; None for another kind."""
    if volume.nfs is not None:
        source = {"server": volume.nfs.server, "path": volume.nfs.path, "readOnly": volume.nfs.read_only}
        return source, ()
    if volume.csi is None or volume.csi.driver != NFS_DRIVER:
        return None
    given = volume.csi.volume_attributes
    source = {"server": given.get("server", ""), "path": given.get("share", ""), "readOnly": volume.csi.read_only}
    return source, tuple(given.get("mountOptions", "").split(","))


# --- pod -------------------------------------------------------------------------------------------------------------


class Sysctl(Base):
    name: str
    value: str


class PodSecurityContext(Base):
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    supplemental_groups: list[int] = []
    supplemental_groups_policy: str = ""
    fs_group: int | None = None
    fs_group_change_policy: str = ""
    sysctls: list[Sysctl] = []
    seccomp_profile: SeccompProfile | None = None


class HostAlias(Base):
    ip: str
    hostnames: list[str] = []


class PodDNSConfigOption(Base):
    name: str = ""
    value: str | None = None


class PodDNSConfig(Base):
    nameservers: list[str] = []
    searches: list[str] = []
    options: list[PodDNSConfigOption] = []


class PodReadinessGate(Base):
    condition_type: str


class Toleration(Base):
    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None


class PodSpec(Base):
    containers: list[Container] = []
    init_containers: list[Container] = []
    ephemeral_containers: list[Container] = []
    volumes: list[Volume] = []
    restart_policy: str = "Always"
    termination_grace_period_seconds: int | None = None
    active_deadline_seconds: int | None = None
    dns_policy: str = "ClusterFirst"
    dns_config: PodDNSConfig | None = None
    host_aliases: list[HostAlias] = []
    hostname: str = ""
    subdomain: str = ""
    set_hostname_as_fqdn: bool = field(default=False, name="setHostnameAsFQDN")
    node_name: str = ""
    node_selector: dict[str, str] = {}
    tolerations: list[Toleration] = []
    host_network: bool = False
    host_pid: bool = field(default=False, name="hostPID")
    host_ipc: bool = field(default=False, name="hostIPC")
    share_process_namespace: bool = False
    security_context: PodSecurityContext | None = None
    image_pull_secrets: list[LocalObjectReference] = []
    service_account_name: str = ""
    automount_service_account_token: bool | None = None
    priority: int | None = None
    priority_class_name: str = ""
    runtime_class_name: str = ""
    overhead: dict[str, str] = {}
    readiness_gates: list[PodReadinessGate] = []
    enable_service_links: bool | None = None
    resources: ResourceRequirements | None = None


class Condition(Base):
    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None
    last_probe_time: str | None = None
    last_heartbeat_time: str | None = None
    observed_generation: int = 0


class ContainerStateWaiting(Base):
    reason: str = ""
    message: str = ""


class ContainerStateRunning(Base):
    started_at: str | None = None


class ContainerStateTerminated(Base):
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    started_at: str | None = None
    finished_at: str | None = None
    container_id: str = field(default="", name="containerID")


class ContainerState(Base):
    waiting: ContainerStateWaiting | None = None
    running: ContainerStateRunning | None = None
    terminated: ContainerStateTerminated | None = None


class ContainerStatus(Base):
    name: str
    image: str = ""
    image_id: str = field(default="", name="imageID")
    container_id: str = field(default="", name="containerID")
    state: ContainerState = field(default_factory=ContainerState)
    last_state: ContainerState = field(default_factory=ContainerState)
    ready: bool = False
    started: bool | None = None
    restart_count: int = 0


class PodIP(Base):
    ip: str


class PodStatus(Base):
    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: list[Condition] = []
    host_ip: str = field(default="", name="hostIP")
    host_ips: list[PodIP] = field(default_factory=list, name="hostIPs")
    pod_ip: str = field(default="", name="podIP")
    pod_ips: list[PodIP] = field(default_factory=list, name="podIPs")
    start_time: str | None = None
    nominated_node_name: str = ""
    qos_class: str = ""
    observed_generation: int = 0
    init_container_statuses: list[ContainerStatus] = []
    container_statuses: list[ContainerStatus] = []
    ephemeral_container_statuses: list[ContainerStatus] = []


class Pod(Object):
    spec: PodSpec = field(default_factory=PodSpec)
    status: PodStatus = field(default_factory=PodStatus)


# --- node, configuration, events -------------------------------------------------------------------------------------


class NodeAddress(Base):
    type: str  # InternalIP, Hostname, …
    address: str


class DaemonEndpoint(Base):
    port: int = field(default=0, name="Port")


class NodeDaemonEndpoints(Base):
    kubelet_endpoint: DaemonEndpoint = field(default_factory=DaemonEndpoint)


class Taint(Base):
    key: str
    effect: str
    value: str = ""
    time_added: str | None = None


class NodeSpec(Base):
    unschedulable: bool = False
    taints: list[Taint] = []
    provider_id: str = field(default="", name="providerID")
    pod_cidr: str = field(default="", name="podCIDR")


class NodeStatus(Base):
    capacity: dict[str, str] = {}
    allocatable: dict[str, str] = {}
    conditions: list[Condition] = []
    addresses: list[NodeAddress] = []
    daemon_endpoints: NodeDaemonEndpoints = field(default_factory=NodeDaemonEndpoints)
    node_info: dict[str, Any] = {}


class Node(Object):
    spec: NodeSpec = field(default_factory=NodeSpec)
    status: NodeStatus = field(default_factory=NodeStatus)


class Secret(Object):
    """`data` holds base64 text."""

    data: dict[str, str] = {}
    type: str = ""
    immutable: bool = False


class ConfigMap(Object):
    """`binary_data` holds base64 text."""

    data: dict[str, str] = {}
    binary_data: dict[str, str] = {}
    immutable: bool = False


def pod(raw: dict[str, Any]) -> Pod:
    """InvalidError says where the object is not a pod."""
    return _convert(raw, Pod)


def node(raw: dict[str, Any]) -> Node:
    return _convert(raw, Node)


def secret(raw: dict[str, Any]) -> Secret:
    return _convert(raw, Secret)


def config_map(raw: dict[str, Any]) -> ConfigMap:
    return _convert(raw, ConfigMap)


def _convert(raw: dict[str, Any], kind: type[S]) -> S:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise InvalidError(f"not a valid {kind.__name__}: {error}") from error
