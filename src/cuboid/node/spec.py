"""What a pod's machine is told at its start: devices, names, network, volumes. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cuboid.guest import agent_pb2 as pb
from cuboid.images.base import Image
from cuboid.kube import names, quantity
from cuboid.kube.types import Pod, Volume, named_volume, nfs_volume
from cuboid.lib.errors import InvalidError, UnsupportedError
from cuboid.net.base import Attachment, PortMapping
from cuboid.node.warm.shape import read_only_serial, writable_serial
from cuboid.storage import nfs
from cuboid.vmm.base import Disk

WRITABLE = writable_serial(0)
CLUSTER_DOMAIN = "cluster.local"
MAX_NAMESERVERS, MAX_SEARCH = 3, 32  # resolv.conf(5), Kubernetes' limits
POWERFUL = {"ALL", "NET_ADMIN", "SYS_ADMIN", "SYS_MODULE"}
HOSTNAME_LIMIT = 63
DEFAULT_VOLUME_BYTES = 1 << 30
KERNEL_ARGS_LIMIT = 512  # characters; Linux takes 2048 in all
KERNEL_ARG = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.,:;/@%+=~\[\]*|-]*", re.ASCII)
KERNEL_ARGS_OF_OURS = {"init", "rdinit", "initrd", "noinitrd", "root", "console", "panic"}
"""With another value the agent would not run, or nobody would learn why the machine ended."""


@dataclass(frozen=True)
class Devices:
    """Serials by which the guest finds its block devices: of images by their id, of named volumes by volume name."""

    images: Mapping[str, str]
    volumes: Mapping[str, str]

    @property
    def spare(self) -> str:
        """Of the slot behind the images, which is empty until an ephemeral container's image is put in."""
        return read_only_serial(len(self.images))


@dataclass(frozen=True)
class NamedVolumeUse:
    volume: str  # in the pod
    name: str  # of the block device
    size_bytes: int


def devices(pod: Pod, images: Mapping[str, Image]) -> Devices:
    """`images` by container. The order is that of the pod, so it is the same after a restart."""
    ids = dict.fromkeys(image.id for image in images.values())
    named = [volume.name for volume in pod.spec.volumes if named_volume(volume)]
    return Devices(
        {image_id: read_only_serial(number) for number, image_id in enumerate(ids)},
        {name: writable_serial(number + 1) for number, name in enumerate(named)},
    )


def disks(found: Devices, images: Mapping[str, Image], writable: Path, volumes: Mapping[str, Path]) -> tuple[Disk, ...]:
    by_id = {image.id: image.device for image in images.values()}
    return (
        *(Disk(serial, by_id[image_id], read_only=True) for image_id, serial in found.images.items()),
        Disk(WRITABLE, writable, read_only=False),
        *(Disk(serial, volumes[name], read_only=False) for name, serial in found.volumes.items()),
    )


def named_volumes(pod: Pod) -> list[NamedVolumeUse]:
    """InvalidError for a size that is none."""
    uses = []
    for volume in pod.spec.volumes:
        if volume.csi is not None and (name := named_volume(volume)):
            text = volume.csi.volume_attributes.get("size", "")
            size = quantity.to_int(text) if text else DEFAULT_VOLUME_BYTES
            uses.append(NamedVolumeUse(volume.name, name, size))
    return uses


def port_mappings(pod: Pod) -> tuple[PortMapping, ...]:
    """The published ports of all containers."""
    ports = [p for c in [*pod.spec.init_containers, *pod.spec.containers] for p in c.ports if p.host_port]
    return tuple(PortMapping(p.host_port, p.container_port, p.protocol.lower(), p.host_ip) for p in ports)


def needs_all_modules(pod: Pod) -> bool:
    """Whether the guest may need kernel modules beyond those for disks, network and FUSE: NFS, netfilter, bridges."""
    if any(nfs_volume(volume) for volume in pod.spec.volumes):
        return True
    contexts = [c.security_context for c in [*pod.spec.init_containers, *pod.spec.containers] if c.security_context]
    added = {name.upper().removeprefix("CAP_") for c in contexts if c.capabilities for name in c.capabilities.add}
    sysctls = pod.spec.security_context.sysctls if pod.spec.security_context else []
    return (
        any(context.privileged for context in contexts)
        or bool(added & POWERFUL)
        or any(sysctl.name.startswith(("net.bridge.", "net.netfilter.")) for sysctl in sysctls)
    )


def kernel_choice(pod: Pod) -> str:
    """`general` if the pod wants Debian's kernel, "" for the platform's own. InvalidError for any other."""
    wanted = pod.metadata.annotations.get(names.KERNEL, "")
    if wanted not in ("", names.KERNEL_GENERAL):
        raise InvalidError(
            f"the annotation {names.KERNEL} is {wanted[:40]!r}, and there is no such kernel",
            hint=f"write {names.KERNEL_GENERAL}, or leave it out",
        )
    return wanted


def kernel_args(pod: Pod) -> str:
    """What the pod adds to its kernel's command line. InvalidError for what would take its agent or console away."""
    text = pod.metadata.annotations.get(names.KERNEL_ARGS, "")
    if len(text) > KERNEL_ARGS_LIMIT:
        raise InvalidError(f"the annotation {names.KERNEL_ARGS} is longer than {KERNEL_ARGS_LIMIT} characters")
    words = text.split()
    for word in words:
        if not KERNEL_ARG.fullmatch(word):
            raise InvalidError(
                f"the annotation {names.KERNEL_ARGS} holds {word[:40]!r}, which is no argument of a kernel",
                hint="arguments with spaces between them, without quotes",
            )
        name = word.partition("=")[0].replace("-", "_")
        if name in KERNEL_ARGS_OF_OURS or name.startswith("cuboid."):
            raise InvalidError(
                f"the annotation {names.KERNEL_ARGS} holds {word[:40]!r}, which the platform sets itself",
                hint="leave it out",
            )
    return " ".join(words)


def hostname(pod: Pod) -> str:
    return (pod.spec.hostname or pod.metadata.name)[:HOSTNAME_LIMIT].rstrip("-.")


def domain(pod: Pod) -> str:
    sub = pod.spec.subdomain
    return f"{sub}.{pod.metadata.namespace}.svc.{CLUSTER_DOMAIN}" if sub else ""


def setup(
    pod: Pod, attachment: Attachment, found: Devices, files: Mapping[str, Sequence[pb.File]],
    *, now: float, entropy: bytes, mounts: Mapping[str, pb.NfsVolume], restored: bool = False,
    machine_id: str = "", boot_id: str = "", dns: ClusterDns | None = None,
) -> pb.Setup:  # fmt: skip
    """`files` of configMap-like volumes and `mounts` of NFS ones, both by volume name."""
    fqdn = f"{hostname(pod)}.{domain(pod)}" if domain(pod) else ""
    security = pod.spec.security_context
    return pb.Setup(
        hostname=fqdn if fqdn and pod.spec.set_hostname_as_fqdn else hostname(pod),
        domainname=domain(pod),
        hosts=_hosts(pod, attachment.ip, fqdn),
        resolver=resolver(pod, attachment, dns),
        interfaces=[interface(attachment, restored=restored)],
        sysctls={s.name: s.value for s in (security.sysctls if security else [])},
        images=[pb.Device(name=image_id, serial=serial) for image_id, serial in found.images.items()],
        writable=pb.Device(name=WRITABLE, serial=WRITABLE),
        volumes=[_volume(pod, volume, found, files, mounts) for volume in pod.spec.volumes],
        now_unix_ns=int(now * 1e9), entropy=entropy,
        share_process_namespace=pod.spec.share_process_namespace,
        pod_ip=attachment.ip, machine_id=machine_id, boot_id=boot_id,
    )  # fmt: skip


def _hosts(pod: Pod, ip: str, fqdn: str) -> list[pb.Host]:
    own = [pb.Host(ip=ip, names=[*([fqdn] if fqdn else []), hostname(pod)])] if ip else []
    return [*own, *(pb.Host(ip=alias.ip, names=alias.hostnames) for alias in pod.spec.host_aliases)]


def interface(attachment: Attachment, *, restored: bool = False) -> pb.Interface:
    """A restored machine's device still has its template's address: it is found by its name in the kernel."""
    return pb.Interface(
        mac=attachment.mac, name="eth0", device="eth0" if restored else "", mtu=attachment.mtu,
        addresses=attachment.addresses,
        routes=[pb.IpRoute(destination=route.destination, gateway=route.gateway) for route in attachment.routes],
    )  # fmt: skip


@dataclass(frozen=True)
class ClusterDns:
    """The resolver that knows services, and the domain that their names are in."""

    server: str
    domain: str


NDOTS = "ndots:5"  # names of services have up to four dots, as in Kubernetes


def resolver(pod: Pod, attachment: Attachment, dns: ClusterDns | None = None) -> pb.Resolver:
    """By the pod's dnsPolicy: `dns` (ClusterFirst), what the network and the host have (Default), or nothing (None);
    and the pod's dnsConfig in addition."""
    own = pod.spec.dns_config
    servers: list[str] = []
    search: list[str] = []
    given: tuple[str, ...] = ()
    if pod.spec.dns_policy != "None":
        servers, search, given = list(attachment.nameservers), list(attachment.search), attachment.options
    if dns is not None and pod.spec.dns_policy not in ("None", "Default"):
        servers = [dns.server]
        search = [f"{pod.metadata.namespace}.svc.{dns.domain}", f"svc.{dns.domain}", dns.domain, *search]
        given = (*given, NDOTS)
    servers += own.nameservers if own else ()
    search += own.searches if own else ()
    options = {o.partition(":")[0]: o for o in given}
    for option in own.options if own else []:
        options[option.name] = f"{option.name}:{option.value}" if option.value is not None else option.name
    return pb.Resolver(
        nameservers=list(dict.fromkeys(servers))[:MAX_NAMESERVERS],
        search=list(dict.fromkeys(search))[:MAX_SEARCH],
        options=[option for name, option in options.items() if name],
    )


def _volume(
    pod: Pod, volume: Volume, found: Devices, files: Mapping[str, Sequence[pb.File]], mounts: Mapping[str, pb.NfsVolume]
) -> pb.Volume:
    result = pb.Volume(name=volume.name)
    security = pod.spec.security_context
    if security and security.fs_group is not None:
        result.fs_group = security.fs_group
    if volume.empty_dir is not None:
        limit = quantity.to_int(volume.empty_dir.size_limit) if volume.empty_dir.size_limit else 0
        if volume.empty_dir.medium.startswith("Memory"):
            result.memory.CopyFrom(pb.MemoryVolume(size_bytes=limit))
        else:
            result.disk.CopyFrom(pb.DiskVolume(size_bytes=limit))
    elif volume.name in found.volumes and volume.csi is not None:
        result.block.CopyFrom(
            pb.BlockVolume(serial=found.volumes[volume.name], fs_type="ext4", read_only=volume.csi.read_only)
        )
    elif volume.name in files:
        result.files.CopyFrom(pb.FilesVolume(memory=_is_secret(volume), files=files[volume.name]))
    elif volume.name in mounts:
        result.nfs.CopyFrom(mounts[volume.name])
    else:
        raise _unsupported(volume)
    return result


def _is_secret(volume: Volume) -> bool:
    projected = volume.projected.sources if volume.projected else []
    return volume.secret is not None or any(part.secret or part.service_account_token for part in projected)


def _unsupported(volume: Volume) -> UnsupportedError | InvalidError:
    if volume.persistent_volume_claim is not None:
        return UnsupportedError(
            f"volume {volume.name!r} is a persistentVolumeClaim, which this node cannot serve",
            hint="use a named volume (csi driver volume.cuboid.dev) or nfs", reason="UnsupportedVolume",
        )  # fmt: skip
    if volume.csi is not None:
        return UnsupportedError(
            f"volume {volume.name!r}: there is no CSI driver {volume.csi.driver!r} here", reason="UnsupportedVolume"
        )
    return UnsupportedError(f"volume {volume.name!r} is of a kind that is not supported", reason="UnsupportedVolume")


def check_volumes(pod: Pod) -> None:
    """UnsupportedError or InvalidError for a volume that this node can never serve; before anything is made."""
    for volume in pod.spec.volumes:
        known = (volume.empty_dir, volume.config_map, volume.secret, volume.projected, volume.downward_api)
        if (given := nfs_volume(volume)) is not None:
            nfs.parse_source(*given)
        elif all(source is None for source in known) and not named_volume(volume):
            raise _unsupported(volume)
