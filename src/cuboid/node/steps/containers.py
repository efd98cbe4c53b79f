"""Containers in the pod's VM: started, signalled; hooks."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.base import Guest
from cuboid.guest.errors import (
    CommandError,
    GuestConflictError,
    GuestInvalidError,
    GuestLostError,
    GuestNotFoundError,
)
from cuboid.kube.types import HTTPGetAction, LifecycleHandler
from cuboid.lib.aio import deadline, within
from cuboid.lib.errors import CuboidError, DeadlineError, InvalidError
from cuboid.lib.log import get_log
from cuboid.node import spec_container
from cuboid.node.env import CreateContainerConfigError, resolve_env
from cuboid.node.sandbox import events as ev
from cuboid.node.sandbox import instructions as do
from cuboid.node.sandbox.plan import Role
from cuboid.node.steps import ephemeral
from cuboid.node.steps.guest_events import seconds
from cuboid.node.steps.host import text
from cuboid.node.steps.work import PodWork

log = get_log(__name__)
T = TypeVar("T")
CANNOT_START = 128  # exit code of what failed before its program ran
RETRY_SECONDS = 0.2
HTTP_HEAD_LIMIT = 64 << 10


async def start_container(work: PodWork, order: do.StartContainer) -> ev.Event:
    """Idempotent: the guest starts one (name, attempt) once. A lost channel is waited for."""
    try:
        with work.timeline.phase("container"):
            call = await _describe(work, order)
            started = await patiently(work, lambda guest: _start(work, guest, call))
    except (CreateContainerConfigError, GuestInvalidError, GuestNotFoundError) as error:
        # What the guest finds wrong (a user that the image lacks, root where it must not be) is the pod's to mend.
        return _failed(work, order, CreateContainerConfigError.reason, error)
    except CommandError as error:
        return _failed(work, order, "ContainerCannotRun", error, error.exit_code)
    except InvalidError as error:
        return _failed(work, order, getattr(error, "reason", "CreateContainerError"), error, CANNOT_START)
    except GuestLostError as error:
        return _unreachable(work, error)
    except (CuboidError, OSError) as error:
        return _failed(work, order, "StartError", error, CANNOT_START)
    if not order.attempt:
        work.timeline.inside("container", started.phases_ns)
    work.start_pump(order.name)
    return ev.Started(
        at=work.now, name=order.name, attempt=order.attempt,
        started_at=seconds(started.started_unix_ns, work.now) or work.now,
    )  # fmt: skip


def _failed(work: PodWork, order: do.StartContainer, reason: str, error: BaseException, code: int = 0) -> ev.Event:
    return ev.StartFailed(
        at=work.now, name=order.name, attempt=order.attempt, reason=reason, message=text(error), code=code
    )


def _unreachable(work: PodWork, error: BaseException) -> ev.VmEnded:
    """The VM lives but its agent does not answer: as good as dead."""
    attempt = work.state().machine.attempt
    return ev.VmEnded(at=work.now, attempt=attempt, cause="GuestUnreachable", detail=text(error))


async def _describe(work: PodWork, order: do.StartContainer) -> pb.StartContainer:
    container = work.container(order.name)
    image = (await work.require_images())[order.name]
    services = work.tools.service_env(work.pod)
    env = await resolve_env(work.pod, container, image.config.env, work.tools.objects, work.facts, services)
    call = spec_container.start_container(
        work.pod, container, image, env, attempt=order.attempt, keep_root=order.keep_root
    )
    if work.state().container(order.name).role is Role.DEBUG:
        await ephemeral.prepare(work, container, image, call)
    return call


async def _start(work: PodWork, guest: Guest, call: pb.StartContainer) -> pb.Started:
    offset = 0
    if call.attempt:
        known = await guest.list()
        if any(c.name == call.name and c.attempt == call.attempt for c in known.containers):
            return await guest.start_container(call, timeout=work.tools.settings.call_seconds)
        offset = next((c.log_end_offset for c in known.containers if c.name == call.name), 0)
    await work.pump(call.name).attempt_started(call.attempt, offset)
    return await guest.start_container(call, timeout=work.tools.settings.call_seconds)


async def patiently(work: PodWork, call: Callable[[Guest], Awaitable[T]]) -> T:
    """Make an idempotent call, again and again while the channel breaks, for `lost_seconds` at most."""
    until = work.tools.clock.monotonic() + work.tools.settings.lost_seconds
    while True:
        try:
            if work.guest is None:
                raise GuestLostError("the pod's machine is not up")
            return await within(work.tools.settings.call_seconds, call(work.guest), "a call to the guest")
        except (GuestLostError, DeadlineError) as error:
            if work.tools.clock.monotonic() >= until:
                raise GuestLostError(f"the guest's agent does not answer: {text(error)}") from error
            await asyncio.sleep(RETRY_SECONDS)


async def stop_signal(work: PodWork, order: do.StopSignal) -> None:
    """The container's own stop signal to its first process, or SIGKILL to all of them. One that has ended is left."""
    number = signal.SIGKILL if order.kill else stop_signal_number(work, order.name)
    try:
        await patiently(work, lambda guest: guest.signal(order.name, number, everyone=order.kill))
    except (GuestNotFoundError, GuestConflictError):
        return
    except (CuboidError, OSError) as error:
        log.warning("signal not delivered", pod=work.pod.metadata.name, container=order.name, error=text(error))


def stop_signal_number(work: PodWork, name: str) -> int:
    """The pod's stopSignal, the image's, or SIGTERM."""
    lifecycle = work.container(name).lifecycle
    image = work.images.get(name)
    given = (lifecycle.stop_signal if lifecycle else "") or (image.config.stop_signal if image else "")
    return signal_number(given)


def signal_number(given: str) -> int:
    """`SIGQUIT`, `QUIT`, `3`, `SIGRTMIN+3`; SIGTERM for what is no signal."""
    word = given.strip().upper().removeprefix("SIG")
    base, plus, offset = word.partition("+")
    if word.isdecimal():
        return int(word) if 0 < int(word) < 65 else signal.SIGTERM
    found = getattr(signal, f"SIG{base}", signal.SIGTERM) if base.isalnum() else signal.SIGTERM
    return int(found) + (int(offset) if plus and offset.isdecimal() and int(offset) < 31 else 0)


# --- hooks -----------------------------------------------------------------------------------------------------------


async def run_hook(work: PodWork, order: do.RunHook) -> ev.Event:
    lifecycle = work.container(order.name).lifecycle
    handler = None
    if lifecycle is not None:
        handler = lifecycle.post_start if order.point is ev.HookPoint.POST_START else lifecycle.pre_stop
    problem = ""
    if handler is not None:
        try:
            async with deadline(max(order.seconds, 0.1), f"the {order.point} hook"):
                problem = await _hook(work, order, handler)
        except (CuboidError, OSError) as error:
            problem = text(error)
    return ev.HookDone(
        at=work.now, name=order.name, attempt=order.attempt, point=order.point, ok=not problem, message=problem
    )


async def _hook(work: PodWork, order: do.RunHook, handler: LifecycleHandler) -> str:
    """Empty when all went well."""
    if handler.sleep is not None:
        await asyncio.sleep(handler.sleep.seconds)
    elif handler.exec is not None:
        return await _exec_hook(work, order, handler.exec.command)
    elif handler.http_get is not None:
        return await _http_hook(work, order.name, handler.http_get)
    elif handler.tcp_socket is not None:
        port = spec_container.port(handler.tcp_socket.port, work.container(order.name))
        _, writer = await asyncio.open_connection(handler.tcp_socket.host or _pod_ip(work), port)
        writer.close()
    return ""


async def _exec_hook(work: PodWork, order: do.RunHook, command: list[str]) -> str:
    call = pb.Exec(container=order.name, args=command, timeout_ms=int(min(order.seconds, 86_400.0) * 1000))
    output = bytearray()
    async with await work.require_guest().exec(call) as stream:
        async for _, data in stream.received():
            output += data[: 1024 - len(output)]
        reply = await stream.reply()
    if reply.exit.code == 0 and not reply.exit.timed_out:
        return ""
    said = output.decode(errors="replace").strip()
    return f"command {command[0] if command else ''!r} ended with code {reply.exit.code}: {said}"


def _pod_ip(work: PodWork) -> str:
    ips = work.state().ips
    return ips[0] if ips else ""


async def _http_hook(work: PodWork, name: str, action: HTTPGetAction) -> str:
    """A GET to the pod, as a kubelet does it: no certificate is checked, any status below 400 is success."""
    http = spec_container.http_action(action, work.container(name))
    context = None
    if http.tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host = http.host or _pod_ip(work)
    reader, writer = await asyncio.open_connection(host, http.port, ssl=context, limit=HTTP_HEAD_LIMIT)
    try:
        headers = {"Host": f"{host}:{http.port}", "User-Agent": "cuboid-hook", "Accept": "*/*", "Connection": "close"}
        headers |= {header.name: header.value for header in http.headers}
        lines = [f"GET {http.path} HTTP/1.1", *(f"{key}: {value}" for key, value in headers.items())]
        if any("\r" in line or "\n" in line for line in lines):
            return "the hook's path or headers hold a line break"
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        await writer.drain()
        status = (await reader.readline()).split(b" ", 2)
        good = len(status) > 1 and status[0].startswith(b"HTTP/1.") and status[1].isdigit() and int(status[1]) < 400
        return "" if good else f"HTTP answer {b' '.join(status)[:100].decode(errors='replace').strip()!r}"
    except ValueError:
        return "the HTTP answer begins with no status line"
    finally:
        writer.close()
