"""Settings of the node agent (`[node]`, CUBOID_NODE_*)."""

from __future__ import annotations

import os
from dataclasses import dataclass

from cuboid.lib.settings import setting
from cuboid.node.sandbox.state import Rules


@dataclass(frozen=True)
class NodeSettings:
    name: str = setting("", why="name of the Node object; empty: the host's name")
    address: str = setting("127.0.0.1", why="address that the Node object tells, of the agent's HTTPS API")
    port: int = setting(10250, why="port of the agent's HTTPS API, the kubelet's own; 0 picks a free one")
    driver: str = setting(
        "auto", why="auto takes the first VMM that boots a kernel here; firecracker, qemu or fake (benches) force one"
    )
    guest: str = setting("", why="guest kernel: minimal or general; empty: minimal if it has been built")
    kernel: str = setting("", why="a guest kernel of your own, with `initramfs`; empty: `guest` says which")
    initramfs: str = setting("", why="guest agent and modules for it")
    cmdline: str = setting("", why="added to the guest kernel's command line")

    boots: int = setting(
        0, why="VMs that may boot at once; 0: one more than the host has CPUs, and four times that with KVM"
    )
    templates: int = setting(8, why="templates kept, about 30 MiB of disk each; 0: every machine boots")
    warm_min: int = setting(2, why="machines that always wait for pods of the most ordinary size")
    warm_max: int = setting(32, why="machines that wait at most, of all sizes together; 0: none is made ahead")
    warm_percent: int = setting(10, unit="%", why="share of the host's free memory that waiting machines may take")
    boot_seconds: float = setting(60.0, unit="s", why="deadline from the start of a VM to its agent's first answer")
    network_seconds: float = setting(60.0, unit="s", why="deadline for attaching a pod to its network")
    disk_seconds: float = setting(60.0, unit="s", why="deadline for making a pod's disks")
    pull_seconds: float = setting(3600.0, unit="s", why="deadline for fetching and converting an image")
    call_seconds: float = setting(30.0, unit="s", why="deadline for one call to a guest")
    lost_seconds: float = setting(30.0, unit="s", why="a guest that cannot be spoken with for this long is ended")
    drain_seconds: float = setting(
        10.0, unit="s", why="how long the end of a VM waits for its logs to be on the host's disk"
    )

    guest_overhead_mib: int = setting(
        0, unit="MiB", why="guest kernel and agent, in addition to the containers' memory; 0: what the kernel needs"
    )
    container_mib: int = setting(128, unit="MiB", why="memory of a container that names no limit")
    container_min_mib: int = setting(4, unit="MiB", why="a container with less memory cannot start any program")
    disk_mib: int = setting(
        10_240, unit="MiB", why="writable disk of a pod without an ephemeral-storage limit (sparse)"
    )
    max_pods: int = setting(110, why="pods on this node, Kubernetes' own default")
    reserved_mib: int = setting(512, unit="MiB", why="memory of the host that pods cannot have")

    services: bool = setting(
        True, why="lead addresses of services to their pods; false where the cluster's own proxy does"
    )
    cluster_dns: str = setting(
        "auto", why="resolver of pods; auto: the tenth of [net] service_subnet; empty: the network's, else the host's"
    )
    cluster_domain: str = setting("cluster.local", why="last part of the names of services")
    dns_port: int = setting(
        10_053, why="where the embedded API server's resolver listens on loopback, [server] dns_port; 0: there is none"
    )

    heartbeat_seconds: float = setting(
        2.0, unit="s", why="how often the node's Lease is renewed: three may fail before it is taken for lost"
    )
    lease_seconds: int = setting(
        8, unit="s", why="after which a node without renewals counts as lost; its pods are elsewhere in 15"
    )
    log_mib: int = setting(10, unit="MiB", why="size at which a container's log file is rotated")
    log_files: int = setting(5, why="log files kept per container, the current one included")

    backoff: float = setting(10.0, unit="s", why="wait before a container's second restart; doubles with each")
    backoff_max: float = setting(300.0, unit="s", why="longest such wait")
    backoff_reset: float = setting(600.0, unit="s", why="a container that ran this long starts afresh")
    pull_backoff: float = setting(10.0, unit="s", why="wait after a failed image pull; doubles with each")
    retry: float = setting(5.0, unit="s", why="how often what waits for something missing is tried again")

    @property
    def rules(self) -> Rules:
        return Rules(
            backoff=self.backoff, backoff_max=self.backoff_max, backoff_reset=self.backoff_reset,
            pull_backoff=self.pull_backoff, retry=self.retry,
        )  # fmt: skip

    def boot_slots(self, accel: str) -> int:
        """VMs that may boot at once. Under emulation a boot keeps a CPU busy; many at once miss their deadlines."""
        cpus = os.cpu_count() or 1
        return self.boots or (cpus + 1) * (4 if accel == "kvm" else 1)
