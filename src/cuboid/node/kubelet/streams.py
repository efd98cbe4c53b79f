"""`/exec`, `/attach` and `/portForward`: a WebSocket of the API server's, joined to a call in the guest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.responses import JSONResponse
from starlette.websockets import WebSocket

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.base import Guest, Stream
from cuboid.guest.errors import CommandError, GuestNotFoundError
from cuboid.kube import status
from cuboid.kube.streaming import command, portforward
from cuboid.kube.streaming.command import STDERR, Channels, Result, first_size, serve_command
from cuboid.kube.streaming.portforward import serve_ports
from cuboid.kube.streaming.socket import DisconnectedError, ServerSocket, Socket, choose, while_connected
from cuboid.lib.aio import deadline, within
from cuboid.lib.errors import ConflictError, CuboidError
from cuboid.node.access import PodView
from cuboid.node.kubelet.edge import GUEST_SECONDS, Edge, flag

STARTING_PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # seconds that a command may take to have its terminal
BEGIN_SECONDS = 1800.0  # that an attachment waits for its container's start: an image may have to be fetched first
MAX_ARGS = 4096
MAX_ARG_BYTES = 1 << 20  # of all arguments together
MAX_PATH = 4096
MAX_USER = 128

Serve = Callable[[WebSocket, Edge], Awaitable[None]]


def refusing(serve: Serve) -> Serve:
    """An error before the WebSocket is accepted is answered as HTTP, with a Status."""

    async def wrapped(socket: WebSocket, edge: Edge) -> None:
        try:
            await serve(socket, edge)
        except CuboidError as error:
            code, body = status.to_status(error)
            await socket.send_denial_response(JSONResponse(body, code))
        except DisconnectedError:
            return

    return wrapped


@refusing
async def execute(socket: WebSocket, edge: Edge) -> None:
    view, container = _running_container(socket, edge)
    channels, protocol = _channels(socket), _protocol(socket, command.PROTOCOLS)
    args = socket.query_params.getlist("command")
    if not args or len(args) > MAX_ARGS or sum(map(len, args)) > MAX_ARG_BYTES:
        raise status.bad_request("you must specify at least 1 command for the container, and not too many")
    call = pb.Exec(container=container, args=args, tty=channels.tty, stdin=channels.stdin, **_extras(socket))
    guest = view.guest()
    if channels.tty:
        await _on_terminal(socket, protocol, channels, guest, call)
        return
    async with await within(GUEST_SECONDS, guest.exec(call), "starting a command in the guest") as stream:
        await socket.accept(subprotocol=protocol)
        await serve_command(ServerSocket(socket), protocol, channels, GuestCommand(guest, stream, args))


def _extras(socket: WebSocket) -> dict[str, Any]:
    """What Kubernetes' exec has no words for: `env` (repeated), `workingDir`, `user` (looked up in the container)."""
    query = socket.query_params
    env, cwd, user = query.getlist("env"), query.get("workingDir", ""), query.get("user", "")
    if len(env) > MAX_ARGS or sum(map(len, env)) > MAX_ARG_BYTES or len(cwd) > MAX_PATH or len(user) > MAX_USER:
        raise status.bad_request("env, workingDir or user of a command is too long")
    if any("=" not in row or row.startswith("=") for row in env):
        raise status.bad_request("env must be of the form KEY=VALUE")
    return {"env": env, "cwd": cwd, **({"user": pb.User(name=user)} if user else {})}


async def _on_terminal(socket: WebSocket, protocol: str, channels: Channels, guest: Guest, call: pb.Exec) -> None:
    """The client's first message is the size that the terminal is to have from the start."""
    await socket.accept(subprotocol=protocol)
    client: Socket = ServerSocket(socket)
    try:
        client, (call.rows, call.cols) = await first_size(client, protocol)
        async with await within(GUEST_SECONDS, guest.exec(call), "starting a command in the guest") as stream:
            await serve_command(client, protocol, channels, GuestCommand(guest, stream, list(call.args)))
    except DisconnectedError:
        return
    except CuboidError as error:
        await client.close(1011, str(error))


@refusing
async def attach(socket: WebSocket, edge: Edge) -> None:
    history = flag(socket, "history")
    if flag(socket, "wait"):
        await while_connected(socket, _until_begun(socket, edge))
    view, container = _known_container(socket, edge) if history else _running_container(socket, edge)
    channels, protocol = _channels(socket), _protocol(socket, command.PROTOCOLS)
    if channels.tty and not view.tty(container):
        raise status.bad_request(f"Unable to use a TTY - container {container} did not allocate one")
    call = pb.Attach(
        container=container, stdin=channels.stdin, stdout=channels.stdout, stderr=channels.stderr, history=history
    )
    guest = view.guest()
    async with await within(GUEST_SECONDS, guest.attach(call), "attaching to the container") as stream:
        await socket.accept(subprotocol=protocol)
        joined = GuestCommand(guest, stream, [], container=container)
        await serve_command(ServerSocket(socket), protocol, channels, joined)


async def _until_begun(socket: WebSocket, edge: Edge) -> None:
    """A pod that is not here yet, or whose container has not run yet, is waited for. DeadlineError."""
    place = (socket.path_params["namespace"], socket.path_params["pod"])
    async with deadline(BEGIN_SECONDS, "the start of the container"):
        while (view := edge.access.find(*place)) is None or not view.begun(edge.container(socket, view)):
            await edge.access.news(*place)


@refusing
async def port_forward(socket: WebSocket, edge: Edge) -> None:
    view = edge.pod(socket)
    guest = view.guest()
    protocol = _protocol(socket, portforward.PROTOCOLS)
    ports = _ports(socket)
    await socket.accept(subprotocol=protocol)
    await serve_ports(ServerSocket(socket), protocol, ports, lambda port: _dialled(guest, port), view.pod.metadata.name)


def _ports(socket: WebSocket) -> list[int]:
    given = [*socket.query_params.getlist("port"), *socket.query_params.getlist("ports")]
    try:
        return [portforward.parse_port(text) for item in given for text in item.split(",")]
    except ValueError as error:
        raise status.bad_request(str(error)) from error


def _known_container(socket: WebSocket, edge: Edge) -> tuple[PodView, str]:
    view = edge.pod(socket)
    return view, edge.container(socket, view)


def _running_container(socket: WebSocket, edge: Edge) -> tuple[PodView, str]:
    view, container = _known_container(socket, edge)
    if not view.running(container):
        raise ConflictError(f"container {container} in pod {view.pod.metadata.name} is not running")
    return view, container


def _channels(socket: WebSocket) -> Channels:
    """Kubelets call the streams input, output and error, API servers stdin, stdout and stderr: either is right."""
    tty = flag(socket, "tty")
    channels = Channels(
        stdin=flag(socket, "stdin", "input"),
        stdout=flag(socket, "stdout", "output"),
        stderr=flag(socket, "stderr", "error") and not tty,
        tty=tty,
    )
    if not (channels.stdin or channels.stdout or channels.stderr):
        raise status.bad_request("you must specify at least 1 of stdin, stdout, stderr")
    return channels


def _protocol(socket: WebSocket, known: tuple[str, ...]) -> str:
    chosen = choose(socket.scope.get("subprotocols", []), known)
    if chosen is None:
        raise status.bad_request(f"none of the offered sub-protocols is known, use one of {', '.join(known)}")
    return chosen


class GuestCommand:
    """A `Command` that runs in a guest: an exec, or with `container` what is attached to."""

    def __init__(self, guest: Guest, stream: Stream, args: list[str], *, container: str = "") -> None:
        self._guest = guest
        self._stream = stream
        self._args = args
        self._container = container
        self._failure: CuboidError | None = None
        self._refusal: CommandError | None = None
        self._over = False

    async def stdin(self, data: bytes) -> None:
        try:
            await self._stream.send(data)
        except (CuboidError, ConnectionError) as error:
            raise BrokenPipeError(str(error)) from error

    async def stdin_end(self) -> None:
        try:
            await self._stream.send_end()
        except (CuboidError, ConnectionError) as error:
            raise BrokenPipeError(str(error)) from error

    async def resize(self, rows: int, cols: int) -> None:
        """A size that comes before the command has its terminal is told again until it has."""
        for pause in (*STARTING_PAUSES, 0.0):
            try:
                await within(GUEST_SECONDS, self._resized(rows, cols), "resizing a terminal")
                return
            except GuestNotFoundError:
                if self._over:
                    return
            except (CuboidError, ConnectionError):  # it has just ended; its result is on the way
                return
            await asyncio.sleep(pause)

    async def _resized(self, rows: int, cols: int) -> None:
        if self._container:
            await self._guest.resize(container=self._container, rows=rows, cols=cols)
        else:
            await self._guest.resize(stream=self._stream.id, rows=rows, cols=cols)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        try:
            async for channel, data in self._stream.received():
                yield channel, data
            await self._finish()
        except CuboidError as error:
            self._failure = error
        self._over = True
        if self._refusal:
            yield STDERR, f"{self._refusal_text()}\r\n".encode()

    async def _finish(self) -> None:
        try:
            self._exit = (await self._stream.reply()).exit
        except CommandError as error:
            self._refusal = error

    def _refusal_text(self) -> str:
        """In the words that users of container runtimes know; the guest's own where it knows more."""
        assert self._refusal is not None
        name = self._args[0] if self._args else ""
        missing = self._refusal.exit_code == 127 and "/" not in name
        return f'exec: "{name}": {"executable file not found in $PATH" if missing else self._refusal.message}'

    async def result(self) -> Result:
        if self._refusal:
            return Result(self._refusal.exit_code)
        if self._failure:
            return Result(message=str(self._failure))
        return Result(self._exit.code & 0xFF)


@asynccontextmanager
async def _dialled(guest: Guest, port: int) -> AsyncIterator[GuestTunnel]:
    call = guest.port_forward(port)
    async with await within(GUEST_SECONDS, call, f"connecting to port {port} in the pod") as stream:
        yield GuestTunnel(stream)


class GuestTunnel:
    """A `Tunnel` to a port in a guest."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def send(self, data: bytes) -> None:
        await self._stream.send(data)

    async def send_end(self) -> None:
        await self._stream.send_end()

    async def received(self) -> AsyncIterator[bytes]:
        async for _, data in self._stream.received():
            yield data
        await self._stream.reply()  # raises if the guest could not connect
