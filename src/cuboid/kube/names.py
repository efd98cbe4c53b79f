"""Names that Cuboid adds to the Kubernetes API: annotations, reasons, names of objects."""

from __future__ import annotations

import ipaddress

RECEIPT = "cuboid.dev/receipt"
"""JSON timeline of the pod's last start, written by the node agent (see `cuboid.node.receipt`)."""

STATE = "cuboid.dev/state"
"""`stopped` while the pod keeps its disk and address but does not run: set by `cuboid stop`, gone by `cuboid start`.
`paused` while its machine stands still with all its memory: set by `cuboid pause`, gone by `cuboid resume`."""

STATE_STOPPED = "stopped"
STATE_PAUSED = "paused"

PAUSED = "cuboid.dev/Paused"
"""Condition of a pod: True while its machine stands still."""

RESTARTED_AT = "cuboid.dev/restartedAt"
"""Any new value restarts the containers once."""

INIT_TIMEOUT = "cuboid.dev/init-timeout"
"""Seconds from binding within which every container has to have started, else the pod fails with `InitTimeout`."""

STOP_SECONDS = "cuboid.dev/stop-seconds"
"""Seconds between SIGTERM and SIGKILL for the next stop or restart, in place of the pod's own grace period."""

DISK_IOPS = "cuboid.dev/disk-iops"
DISK_BANDWIDTH = "cuboid.dev/disk-bandwidth"
"""Limits of each writable disk of the pod, its named volumes included: operations and bytes per second (a quantity)."""

KERNEL = "cuboid.dev/kernel"
"""`general` boots Debian's general-purpose kernel instead of the platform's own."""

KERNEL_GENERAL = "general"

KERNEL_ARGS = "cuboid.dev/kernel-args"
"""Added to the kernel's command line."""

USER = "cuboid.dev/user"
"""`NAME[:GROUP]` for containers whose securityContext gives no runAsUser: looked up in the container's own files."""

TTY_SIZE = "cuboid.dev/tty-size"
"""`ROWSxCOLS`, the first size of a container's terminal."""

ATTACH = "cuboid.dev/attach"
"""`true` when whoever made the pod attaches as soon as its containers have started: their first output waits for it."""

ACCEL = "cuboid.dev/accel"
ACCEL_REASON = "cuboid.dev/accel-reason"
"""On a Node: what runs its VMs (`kvm`, `tcg`), and one sentence why."""

ADMITTED_AT = "cuboid.dev/admittedAt"
BOUND_AT = "cuboid.dev/boundAt"
"""On a Pod: when the embedded API server took it and when its scheduler chose the node, RFC 3339 with microseconds.
They are the first phases of the receipt; without them (another API server, another scheduler) it begins at the node."""

LEASE_NAMESPACE = "kube-node-lease"

SERVICE_SUBNET = "10.96.0.0/16"
"""Default range of the addresses of services."""


def api_service_ip(subnet: str) -> str:
    """Where pods find the API: the first address of the range."""
    return _address(subnet, 1)


def dns_service_ip(subnet: str) -> str:
    """Where pods find their resolver: the tenth."""
    return _address(subnet, 10)


def _address(subnet: str, number: int) -> str:
    network = ipaddress.IPv4Network(subnet)
    return str(network.network_address + min(number, network.num_addresses - 1))


API_SERVICE = ("default", "kubernetes")
DNS_SERVICE = ("kube-system", "kube-dns")
"""Namespaces and names of the services that have these addresses."""

TENANT = "cuboid.dev/tenant"
"""Label of a namespace: whose it is."""
