"""Execution of CNI plugins: one by one with a deadline and a clean environment, and as a chain."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuboid.lib import proc
from cuboid.lib.aio import uninterrupted
from cuboid.lib.errors import CuboidError, InvalidError, NotFoundError, ProcessError, UnsupportedError
from cuboid.net.cni import strict
from cuboid.net.cni.config import NetworkList
from cuboid.net.cni.result import CniResult, parse_error, parse_result

# bridge 1.1.1, last step of DEL, after an ADD that was killed before it had made the pod's masquerading chain.
_NOTHING_TO_DELETE = re.compile(r"Chain 'CNI-[0-9a-f]+' does not exist")


@dataclass(frozen=True)
class Container:
    """For whom plugins run. `lock` is a descriptor that plugins inherit: it tells that one still runs."""

    id: str
    netns: Path | None
    interface: str = "eth0"
    args: tuple[tuple[str, str], ...] = ()
    capabilities: tuple[tuple[str, Any], ...] = ()  # capability name -> its value in `runtimeConfig`
    lock: int | None = None


class CniRuntime:
    """Runs plugins found in `folders`, inside the network namespace `host_netns` (None: the host's own)."""

    def __init__(self, folders: Sequence[str], *, deadline: float, host_netns: Path | None = None) -> None:
        self._folders = folders
        self._deadline = deadline
        self._turns = {plugin: asyncio.Lock() for plugin in ("firewall", "portmap")}
        self._prefix: tuple[str, ...] = ("nsenter", f"--net={host_netns}", "--") if host_netns else ()

    async def add(
        self, network: NetworkList, container: Container, *, after_each: Callable[[CniResult], None] | None = None
    ) -> CniResult:
        """The chain in order, each plugin with its predecessor's result, which `after_each` is told first.

        On failure the caller runs `delete`, as the specification demands, with the last result that it was told.
        """
        result: CniResult | None = None
        for plugin in network.plugins:
            output = await self._invoke("ADD", network, plugin, container, result.raw if result else None)
            result = parse_result(output)
            if after_each:
                after_each(result)
        if result is None:
            raise InvalidError(f"the network {network.name} has no plugins")
        return result

    async def delete(self, network: NetworkList, container: Container, result: dict[str, Any] | None) -> None:
        """The chain in reverse. All plugins get their turn, then the first failure is raised."""
        failures: list[CuboidError] = []
        for plugin in reversed(network.plugins):
            try:
                await self._invoke("DEL", network, plugin, container, result)
            except NotFoundError:
                continue
            except CuboidError as error:
                if not _NOTHING_TO_DELETE.search(error.message):
                    failures.append(error)
        if failures:
            raise failures[0]

    async def check(self, network: NetworkList, container: Container, result: dict[str, Any]) -> None:
        """Raises the first plugin's complaint. Does nothing where the configuration has no CHECK."""
        if network.disable_check or not network.at_least("0.4.0"):
            return
        for plugin in network.plugins:
            try:
                await self._invoke("CHECK", network, plugin, container, result)
            except CuboidError as error:
                if not _portmap_wants_ipv6(error, result):
                    raise

    async def gc(self, network: NetworkList, valid: Sequence[tuple[str, str]]) -> None:
        """Tell the plugins which (container, interface) are valid. From 1.1.0 on; before, DEL is all there is."""
        if network.disable_gc or not network.at_least("1.1.0"):
            return
        attachments = [{"containerID": container, "ifname": interface} for container, interface in valid]
        for plugin in network.plugins:
            extended = {**plugin, "cni.dev/valid-attachments": attachments}
            await self._invoke("GC", network, extended, None, None)

    async def status(self, network: NetworkList) -> None:
        """Raises if the network cannot take an ADD now: a plugin is missing, too old, or says so by STATUS (1.1.0)."""
        for plugin in network.plugins:
            known = await self.versions(str(plugin["type"]))
            if network.version not in known:
                raise UnsupportedError(
                    f"the CNI plugin {plugin['type']} knows no version {network.version}, which {network.name} has",
                    hint=f"it knows {', '.join(known)}",
                )
            if network.at_least("1.1.0"):
                await self._invoke("STATUS", network, plugin, None, None)

    async def versions(self, plugin: str) -> tuple[str, ...]:
        """The specification's versions that a plugin knows."""
        config = {"cniVersion": "1.0.0"}
        output = await self._run("VERSION", plugin, config, {"CNI_COMMAND": "VERSION"}, None)
        return strict.texts(strict.decode(output, f"the answer of {plugin}"), "supportedVersions", plugin, 64)

    def find(self, plugin: str) -> str:
        """Path of a plugin; UnsupportedError if it is in no folder."""
        for folder in self._folders:
            path = Path(folder, plugin)
            if path.is_file() and os.access(path, os.X_OK):
                return str(path)
        raise UnsupportedError(
            f"the CNI plugin {plugin} is in none of {', '.join(self._folders)}",
            hint="apt-get install containernetworking-plugins, or set [net] plugin_folders",
        )

    async def _invoke(
        self, command: str, network: NetworkList, plugin: dict[str, Any], container: Container | None,
        previous: dict[str, Any] | None,
    ) -> bytes:  # fmt: skip
        config = plugin_config(network, plugin, container.capabilities if container else (), previous)
        environment = {"CNI_COMMAND": command, "CNI_PATH": ":".join(self._folders)}
        if container is not None:
            environment |= _environment(container)
        lock = container.lock if container else None
        kind = str(plugin["type"])
        async with self._turn(command, kind):
            # Killed half-way, plugins leave states that their own DEL does not undo; their deadline bounds the wait.
            return await uninterrupted(self._run(command, kind, config, environment, lock))

    def _turn(self, command: str, plugin: str) -> AbstractAsyncContextManager[Any]:
        """Debian 12's firewall and portmap fail when two of them create a chain that all pods share."""
        return self._turns[plugin] if command == "ADD" and plugin in self._turns else nullcontext()

    async def _run(
        self, command: str, plugin: str, config: dict[str, Any], environment: dict[str, str], lock: int | None
    ) -> bytes:
        result = await proc.run(
            [*self._prefix, self.find(plugin)],
            timeout=self._deadline,
            stdin=json.dumps(config).encode(),
            check=False,
            env=environment,
            pass_fds=() if lock is None else (lock,),
            output_limit=strict.MAX_BYTES,
        )
        if result.returncode < 0:
            raise ProcessError(
                f"the CNI plugin {plugin} was killed by {signal.Signals(-result.returncode).name} in {command}",
                command=plugin,
                returncode=result.returncode,
            )
        if result.returncode != 0:
            raise parse_error(plugin, command, result.stdout, result.stderr)
        return result.stdout


def plugin_config(
    network: NetworkList,
    plugin: dict[str, Any],
    capabilities: Sequence[tuple[str, Any]],
    previous: dict[str, Any] | None,
) -> dict[str, Any]:
    """What a plugin reads on stdin (specification, section 4): only the capabilities it declared reach it."""
    config = {key: value for key, value in plugin.items() if key != "capabilities"}
    config |= {"cniVersion": network.version, "name": network.name}
    declared = plugin.get("capabilities")
    if isinstance(declared, dict):
        config["runtimeConfig"] = {k: v for k, v in capabilities if declared.get(k) is True}
    if previous is not None:
        config["prevResult"] = {**previous, "cniVersion": network.version}
    return config


def _portmap_wants_ipv6(error: CuboidError, result: dict[str, Any]) -> bool:
    """portmap 1.1.1 looks, once it found the IPv4 rules, for IPv6 rules that it never made for this pod."""
    has_ipv6 = any(":" in str(ip.get("address")) for ip in result.get("ips") or [])
    return "could not check ipv6 dnat" in error.message and not has_ipv6


def _environment(container: Container) -> dict[str, str]:
    return {
        "CNI_CONTAINERID": container.id,
        "CNI_NETNS": str(container.netns or ""),
        "CNI_IFNAME": container.interface,
        "CNI_ARGS": ";".join(f"{key}={value}" for key, value in container.args),
    }
