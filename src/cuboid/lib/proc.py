"""The one door through which Cuboid starts processes.

They are started by `subprocess`, which does not copy this process' page tables (vfork): a loop's own way stops a large
daemon for 7 ms each time, this one for 0.5 ms. Their ends are told by a pidfd.

Clean environment, stdin closed unless given, own process group, a deadline, SIGTERM then SIGKILL then reaped, and an
error that holds a command to paste and the end of stderr. Names are looked up in a fixed PATH, never in the caller's.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cuboid.lib.errors import DeadlineError, ProcessError, UnsupportedError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}
STDERR_KEPT = 4096  # bytes of stderr in an error
OUTPUT_LIMIT = 64 << 20  # bytes of stdout that `run` takes before it gives the process up
PIPE = subprocess.PIPE
TERM_GRACE = 2.0  # seconds between SIGTERM and SIGKILL


@dataclass(frozen=True)
class Result:
    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        return self.stdout.decode(errors="replace")


def find(program: str, *, package: str = "") -> str:
    """Absolute path of `program`; UnsupportedError naming the Debian package that brings it."""
    path = program if program.startswith("/") and os.access(program, os.X_OK) else shutil.which(program, path=PATH)
    if path is None:
        raise UnsupportedError(f"{program} is not installed", hint=f"apt-get install {package or program}")
    return path


def describe(command: Sequence[str | Path]) -> str:
    return shlex.join(str(part) for part in command)


async def run(
    command: Sequence[str | Path],
    *,
    timeout: float,
    stdin: bytes | None = None,
    check: bool = True,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    output_limit: int = OUTPUT_LIMIT,
) -> Result:
    """Run to the end within `timeout` s. ProcessError on a non-zero exit (with `check`), DeadlineError if slow."""
    async with spawn(
        command, stdin=None if stdin is None else PIPE, stdout=PIPE, stderr=PIPE, cwd=cwd, env=env, pass_fds=pass_fds
    ) as process:  # fmt: skip
        try:
            async with asyncio.timeout(timeout):
                stdout, stderr = await _communicate(process, stdin, output_limit, command)
        except TimeoutError as error:
            raise DeadlineError(
                f"{Path(str(command[0])).name} took longer than {timeout:g} s: {describe(command)}"
            ) from error
    returncode = process.returncode if process.returncode is not None else -1
    if check and returncode != 0:
        raise failure(command, returncode, stderr)
    return Result(returncode, stdout, stderr)


def failure(command: Sequence[str | Path], returncode: int, stderr: bytes) -> ProcessError:
    end = stderr[-STDERR_KEPT:].decode(errors="replace").strip()
    name = Path(str(command[0])).name
    how = f"was killed by {signal.Signals(-returncode).name}" if returncode < 0 else f"ended with code {returncode}"
    last = end.splitlines()[-1] if end else "it printed nothing"
    return ProcessError(f"{name} {how}: {last}", command=describe(command), returncode=returncode, stderr=end)


async def _communicate(
    process: Process, stdin: bytes | None, limit: int, command: Sequence[str | Path]
) -> tuple[bytes, bytes]:
    async def feed() -> None:
        if process.stdin is not None and stdin is not None:
            with suppress(BrokenPipeError, ConnectionResetError):
                process.stdin.write(stdin)
                await process.stdin.drain()
            process.stdin.close()

    async def take(stream: asyncio.StreamReader | None, keep_end: int = 0) -> bytes:
        data = bytearray()
        too_much = False
        while stream is not None and (piece := await stream.read(65536)):
            data += piece
            if keep_end:
                del data[:-keep_end]
            elif len(data) > limit:
                too_much = True
                data.clear()
                _signal_group(process.pid, signal.SIGKILL)  # then read to its end, so that the pipe gets closed
        if too_much:
            raise ProcessError(
                f"{command[0]} printed more than {limit} bytes", command=describe(command), returncode=None
            )
        return bytes(data)

    _, stdout, stderr, _ = await asyncio.gather(
        feed(), take(process.stdout), take(process.stderr, STDERR_KEPT * 4), process.wait()
    )
    return stdout, stderr


class Process:
    """A process that was started here. Streams are there where a PIPE was asked for."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        self._over = asyncio.Event()
        self._pidfd = os.pidfd_open(popen.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)
        self._transports: list[asyncio.BaseTransport] = []
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None

    async def connect(self) -> None:
        """Take over the pipes: each is a transport's then."""
        popen = self._popen
        if popen.stdin is not None:
            self.stdin, popen.stdin = await self._writer(popen.stdin), None
        if popen.stdout is not None:
            self.stdout, popen.stdout = await self._reader(popen.stdout), None
        if popen.stderr is not None:
            self.stderr, popen.stderr = await self._reader(popen.stderr), None

    async def _writer(self, pipe: IO[bytes]) -> asyncio.StreamWriter:
        loop = asyncio.get_running_loop()
        protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader(), loop=loop)
        transport, _ = await loop.connect_write_pipe(lambda: protocol, pipe)
        self._transports.append(transport)
        return asyncio.StreamWriter(transport, protocol, None, loop)

    async def _reader(self, pipe: IO[bytes]) -> asyncio.StreamReader:
        loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader, loop=loop), pipe)
        self._transports.append(transport)
        return reader

    def _ended(self) -> None:
        if self._popen.poll() is not None:
            self._let_go()

    def _let_go(self) -> None:
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        self._over.set()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """-N for one that signal N has ended; None while it runs."""
        return self._popen.returncode

    async def wait(self) -> int:
        await self._over.wait()
        return int(self._popen.returncode)

    def close(self) -> None:
        """Let go of its pipes."""
        for transport in self._transports:
            transport.close()
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if pipe is not None:
                pipe.close()


@asynccontextmanager
async def spawn(
    command: Sequence[str | Path],
    *,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> AsyncIterator[Process]:
    """A process that does not outlive the block: its group gets SIGTERM, after TERM_GRACE SIGKILL, and it is reaped."""
    process = _start(command, stdin, stdout, stderr, cwd, env, pass_fds)
    try:
        await process.connect()
        yield process
    finally:
        await asyncio.shield(end(process))


def start_detached(
    command: Sequence[str | Path],
    *,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
) -> int:
    """The pid of a process in a session of its own that is to outlive us. The caller records it, with its start time.

    Not one of asyncio's: those are killed when the loop that has started them is gone (seen with Python 3.13).
    """
    program = find(str(command[0]))
    try:
        process = subprocess.Popen(
            [program, *(str(part) for part in command[1:])],
            stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env={**ENVIRONMENT, **(env or {})},
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise ProcessError(
            f"cannot start {program}: {error.strerror}", command=describe(command), returncode=None
        ) from error
    process.returncode = 0  # disowned: nobody here waits for it
    return process.pid


def _start(
    command: Sequence[str | Path], stdin: int | None, stdout: int | None, stderr: int | None,
    cwd: Path | None, env: Mapping[str, str] | None, pass_fds: Sequence[int],
) -> Process:  # fmt: skip
    program = find(str(command[0]))
    ends = [subprocess.DEVNULL if given is None else given for given in (stdin, stdout, stderr)]
    try:
        popen = subprocess.Popen(
            [program, *(str(part) for part in command[1:])], stdin=ends[0], stdout=ends[1], stderr=ends[2], bufsize=0,
            cwd=cwd, env={**ENVIRONMENT, **(env or {})}, start_new_session=True, pass_fds=pass_fds,
        )  # fmt: skip
    except OSError as error:
        raise ProcessError(
            f"cannot start {program}: {error.strerror}", command=describe(command), returncode=None
        ) from error
    return Process(popen)


async def end(process: Process, grace: float = TERM_GRACE) -> None:
    """End the process and its group, and reap it. Safe to call for one that has ended."""
    if process.returncode is None:
        _signal_group(process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(grace):
                await process.wait()
        except TimeoutError:
            pass
    _signal_group(process.pid, signal.SIGKILL) if process.returncode is None else None
    await process.wait()
    process.close()


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def start_time(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot (field 22 of /proc/PID/stat), None if it is gone or a zombie.

    A pid together with its start time names a process for good: pids are used again.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def alive(pid: int, started: int) -> bool:
    """Whether the process that had this pid and start time still runs."""
    return start_time(pid) == started
