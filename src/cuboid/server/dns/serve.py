"""The resolver's sockets: UDP and TCP on loopback, where the node leads what pods send to the resolver's address.

What one asker, one tenant and all together may have open is bounded; more is dropped, and askers try again.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from cuboid.kube.registry import Registry
from cuboid.lib.aio import TaskSet
from cuboid.lib.errors import UnavailableError
from cuboid.lib.log import get_log
from cuboid.server.dns.directory import CacheDirectory
from cuboid.server.dns.resolver import Resolver

log = get_log(__name__)

OPEN, OPEN_TENANT, OPEN_EACH = 1024, 256, 64
"""Questions under way, of all askers, of the pods of one tenant and of one asker. A question for a name outside waits
for seconds where nobody answers it: sixteen pods that ask such would leave no name to anybody else."""
TCP_SECONDS = 10.0
"""Life of a connection without a question."""
RESOLV_CONF = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))
"""systemd-resolved's upstreams first: its own address is one of loopback, which is as good for us, but a hop more."""
Peer = tuple[str, int]


def upstreams(files: tuple[Path, ...] = RESOLV_CONF) -> list[str]:
    """The host's resolvers (resolv.conf(5)), at most three."""
    for file in files:
        try:
            lines = file.read_text(errors="replace").splitlines()
        except OSError:
            continue
        found = [words[1] for line in lines if (words := line.split())[:1] == ["nameserver"] and len(words) > 1]
        if usable := [address for address in found if _is_address(address)]:
            return usable[:3]
    return []


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


class Limits:
    """`tenant_of` an address, "" for nobody's."""

    def __init__(self, tenant_of: Callable[[str], str]) -> None:
        self._tenant_of = tenant_of
        self._each: Counter[str] = Counter()  # by address, and by `tenant/NAME`
        self._all = 0

    def take(self, asker: str) -> tuple[str, ...] | None:
        """What `give` gets back; None when there is no room."""
        tenant = self._tenant_of(asker)
        places = (asker, f"tenant/{tenant}") if tenant else (asker,)
        if self._all >= OPEN or any(
            self._each[place] >= most for place, most in zip(places, (OPEN_EACH, OPEN_TENANT), strict=False)
        ):
            return None
        self._all += 1
        self._each.update(places)
        return places

    def give(self, places: tuple[str, ...]) -> None:
        self._all -= 1
        for place in places:
            self._each[place] -= 1
            if not self._each[place]:
                del self._each[place]


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, handle: Callable[[bytes, Peer, asyncio.DatagramTransport], None]) -> None:
        self._handle = handle
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # no subclass of it where asyncio's own loop runs

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self._transport is not None:
            self._handle(data, addr, self._transport)


class DnsServer:
    def __init__(self, resolver: Resolver, tasks: TaskSet, limits: Limits) -> None:
        self._resolver = resolver
        self._tasks = tasks
        self._limits = limits

    def datagram(self, data: bytes, peer: Peer, transport: asyncio.DatagramTransport) -> None:
        places = self._limits.take(peer[0])
        if places is None:
            return

        async def run() -> None:
            try:
                if answer := await self._resolver.answer(data, peer[0], tcp=False):
                    transport.sendto(answer, peer)
            finally:
                self._limits.give(places)

        self._tasks.start(run(), name="dns")

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asker = writer.get_extra_info("peername")[0]
        places = self._limits.take(asker)
        if places is None:
            writer.close()
            return
        try:
            async with asyncio.timeout(TCP_SECONDS) as life:
                while True:
                    size = int.from_bytes(await reader.readexactly(2), "big")
                    answer = await self._resolver.answer(await reader.readexactly(size), asker, tcp=True)
                    if answer is None:
                        return
                    writer.write(len(answer).to_bytes(2, "big") + answer)
                    await writer.drain()
                    life.reschedule(asyncio.get_running_loop().time() + TCP_SECONDS)
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            return
        finally:
            self._limits.give(places)
            writer.close()


@asynccontextmanager
async def serving_names(
    registry: Registry, host: str, port: int, domain: str, ask: list[str] | None = None, ask_port: int = 53
) -> AsyncIterator[int]:
    """Serve on this port (0 takes a free one) while the context is open; gives the port. UnavailableError if taken.

    `ask` are the resolvers for all other names, by default the host's.
    """
    directory = CacheDirectory(registry)
    resolver = Resolver(directory, domain, upstreams() if ask is None else ask, ask_port)
    async with TaskSet("dns") as tasks:
        tasks.start(directory.run(), name="directory")
        made = DnsServer(resolver, tasks, Limits(directory.tenant))
        try:
            tcp = await asyncio.start_server(made.connection, host, port)
            chosen = tcp.sockets[0].getsockname()[1]
            udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: _Datagrams(made.datagram), local_addr=(host, chosen)
            )
        except OSError as error:
            raise UnavailableError(
                f"the resolver can not listen on {host} port {port}: {error.strerror or error}",
                hint="set [server] dns_port and [node] dns_port to a free one",
            ) from error
        try:
            yield chosen
        finally:
            udp.close()
            tcp.close()
