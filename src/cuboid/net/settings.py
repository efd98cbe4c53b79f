"""Settings of a host's pod network: table `[net]` of the settings file."""

from __future__ import annotations

from dataclasses import dataclass

from cuboid.kube.names import SERVICE_SUBNET
from cuboid.lib.settings import setting


@dataclass(frozen=True)
class NetSettings:
    """Read with `cuboid.lib.settings.load(NetSettings, "net")`."""

    config_folder: str = setting(
        "/etc/cuboid/cni.d",
        why="the first .conflist in it replaces the built-in network; /etc/cni/net.d belongs to other runtimes",
    )
    plugin_folders: tuple[str, ...] = setting(
        ("/usr/lib/cni", "/opt/cni/bin"), why="where Debian and everybody else install CNI plugins"
    )
    bridge: str = setting("cuboid0", why="the built-in network's bridge on the host")
    subnet: str = setting(
        "10.77.0.0/16", why="the built-in network's addresses; not 10.88 (podman), 10.85 (CRI-O) or 172.17 (Docker)"
    )
    subnet_v6: str = setting(
        "", why="a prefix such as fd77::/64 makes the built-in network dual-stack; empty: IPv4 only"
    )
    mtu: int = setting(0, unit="bytes", why="of the pods' interfaces; 0 takes the CNI plugin's choice, normally 1500")
    plugin_deadline: float = setting(10.0, unit="s", why="one CNI plugin call; a hung plugin must not hold up a start")
    parallel: int = setting(4, why="attachments at once: more only queue for the kernel's network lock")
    nameservers: tuple[str, ...] = setting((), why="for the pods; empty takes the host's, without loopback resolvers")
    host_ports: tuple[str, ...] = setting(
        (),
        why='ports of the host itself that pods may reach, "tcp/6443"; by default none (published ports always work)',
    )
    blocked: tuple[str, ...] = setting(
        ("169.254.0.0/16",),
        why="networks closed to pods: a cloud's metadata service hands out the machine's credentials",
    )
    service_subnet: str = setting(
        SERVICE_SUBNET, why="addresses of services, the same as [server] service_subnet; must not overlap the pods'"
    )
