"""CNI network configuration lists: read strictly from a folder, or the built-in network."""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cuboid.lib.errors import CuboidError, InvalidError
from cuboid.net.cni import strict
from cuboid.net.cni.result import VERSIONS
from cuboid.net.settings import NetSettings

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_TYPE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")


@dataclass(frozen=True)
class NetworkList:
    """A chain of plugins under one name."""

    name: str
    version: str
    plugins: tuple[dict[str, Any], ...]
    disable_check: bool = False
    disable_gc: bool = False
    builtin: bool = False
    raw: dict[str, Any] = field(default_factory=dict, repr=False)

    def types(self) -> list[str]:
        return [str(plugin["type"]) for plugin in self.plugins]

    def at_least(self, version: str) -> bool:
        return VERSIONS.index(self.version) >= VERSIONS.index(version)


def parse_list(data: bytes, source: str) -> NetworkList:
    """A network configuration list, or one plugin's configuration. InvalidError names the source and the fault."""
    try:
        raw = strict.decode(data, source)
        if "plugins" not in raw:
            raw = {"cniVersion": raw.get("cniVersion"), "name": raw.get("name"), "plugins": [raw]}
        return _checked(raw, source)
    except CuboidError as error:
        raise InvalidError(error.message, hint="see the CNI specification, section 1") from error


def _checked(raw: dict[str, Any], source: str) -> NetworkList:
    name = strict.text(raw, "name", source)
    if not _NAME.fullmatch(name):
        raise InvalidError(f"{source} has no valid network name")
    plugins = strict.objects(raw, "plugins", source, 32)
    for plugin in plugins:
        if not _TYPE.fullmatch(strict.text(plugin, "type", source)):  # it becomes a file name
            raise InvalidError(f"{source} has a plugin without a valid type")
    if not plugins:
        raise InvalidError(f"{source} has no plugins")
    return NetworkList(
        name=name,
        version=_version(raw, source),
        plugins=tuple(plugins),
        disable_check=raw.get("disableCheck") in (True, "true"),
        disable_gc=raw.get("disableGC") in (True, "true"),
        raw=raw,
    )


def _version(raw: dict[str, Any], source: str) -> str:
    """The newest of `cniVersions` (1.1.0) that is known here, else `cniVersion`."""
    offered = [v for v in strict.texts(raw, "cniVersions", source, 16) if v in VERSIONS]
    version = max(offered, key=VERSIONS.index, default=strict.text(raw, "cniVersion", source))
    if version not in VERSIONS:
        raise InvalidError(f"{source} has cniVersion {version!r}, not one of {', '.join(VERSIONS)}")
    return version


def load_list(settings: NetSettings, ipam_folder: Path) -> NetworkList:
    """The first configuration in the folder by name, as all runtimes do it; the built-in network if there is none."""
    if path := configured(settings):
        return parse_list(path.read_bytes(), str(path))
    return default_list(settings, ipam_folder)


def configured(settings: NetSettings) -> Path | None:
    """The configuration that replaces the built-in network."""
    folder = Path(settings.config_folder)
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return next((path for path in paths if path.suffix in (".conflist", ".conf", ".json")), None)


def default_list(settings: NetSettings, ipam_folder: Path) -> NetworkList:
    """One bridge on the host and host-local addresses.

    What the plugins firewall, portmap and tuning, and the bridge's `ipMasq`, would do by pod, `net.guard` does for all
    pods at once, `net.redirect` and `net.wire` without a process.
    """
    bridge: dict[str, Any] = {
        "type": "bridge",
        "bridge": settings.bridge,
        "isGateway": True,
        "hairpinMode": True,  # a pod reaches its own published port
        "ipam": _ipam(settings, ipam_folder),
    }
    if settings.mtu:
        bridge["mtu"] = settings.mtu
    raw = {"cniVersion": "1.0.0", "name": "cuboid", "plugins": [bridge]}
    return replace(parse_list(json.dumps(raw).encode(), "the built-in network (settings [net])"), builtin=True)


def _ipam(settings: NetSettings, folder: Path) -> dict[str, Any]:
    subnets = [settings.subnet, *([settings.subnet_v6] if settings.subnet_v6 else [])]
    try:
        networks = [ipaddress.ip_network(subnet) for subnet in subnets]
    except ValueError as error:
        raise InvalidError(f"[net] subnet: {error}", hint="write it as 10.77.0.0/16") from error
    routes = [{"dst": "0.0.0.0/0" if network.version == 4 else "::/0"} for network in networks]
    ranges = [[{"subnet": str(network)}] for network in networks]
    return {"type": "host-local", "dataDir": str(folder), "ranges": ranges, "routes": routes}
