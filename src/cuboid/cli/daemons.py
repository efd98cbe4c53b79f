"""The platform's two processes on this machine: started, found again, stopped. By systemd where it runs, else directly.

Started directly, each is a session of its own with its log in `<state>/logs`; `<run>/<name>.pid` holds pid and start
time, so that a pid that was used again is never mistaken for it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cuboid.lib import proc
from cuboid.lib.errors import CuboidError, DeadlineError
from cuboid.lib.paths import Paths, write_atomic

UNITS = Path(__file__).parent / "units"
UNIT_FOLDER = Path("/etc/systemd/system")
STOP_TIMEOUT = 20.0  # seconds between SIGTERM and SIGKILL
KEPT_ENVIRONMENT = ("CUBOID_", "HOME", "SSL_CERT_FILE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")


@dataclass(frozen=True)
class Daemon:
    """`name` is that of its unit, pid file and log; `module` is run with `python -m`."""

    name: str
    module: str
    arguments: tuple[str, ...] = ()

    def command(self) -> list[str]:
        return [sys.executable, "-m", self.module, *self.arguments]


def systemd_runs() -> bool:
    return Path("/run/systemd/system").is_dir()


def pid_file(paths: Paths, daemon: Daemon) -> Path:
    return paths.run / f"{daemon.name}.pid"


def log_file(paths: Paths, daemon: Daemon) -> Path:
    return paths.state / "logs" / f"{daemon.name}.log"


def running_pid(paths: Paths, daemon: Daemon) -> int | None:
    """Pid of the daemon if it runs."""
    try:
        row = json.loads(pid_file(paths, daemon).read_text())
        pid, started = int(row["pid"]), int(row["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return pid if proc.alive(pid, started) else None


def environment() -> dict[str, str]:
    """What a daemon inherits of the caller's environment."""
    return {key: value for key, value in os.environ.items() if key.startswith(KEPT_ENVIRONMENT)}


async def start(paths: Paths, daemon: Daemon) -> int:
    """Start it unless it runs; its pid."""
    if pid := running_pid(paths, daemon):
        return pid
    log = log_file(paths, daemon)
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        pid = proc.start_detached(daemon.command(), stdout=descriptor, stderr=descriptor, env=environment())
    finally:
        os.close(descriptor)
    started = proc.start_time(pid)
    write_atomic(pid_file(paths, daemon), json.dumps({"pid": pid, "started": started}).encode(), durable=False)
    return pid


def stop(paths: Paths, daemon: Daemon, timeout: float = STOP_TIMEOUT) -> bool:
    """SIGTERM, after `timeout` SIGKILL; True if it ran."""
    pid = running_pid(paths, daemon)
    if pid is None:
        pid_file(paths, daemon).unlink(missing_ok=True)
        return False
    for number, seconds in ((signal.SIGTERM, timeout), (signal.SIGKILL, 5.0)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            break
        if _gone(paths, daemon, seconds):
            pid_file(paths, daemon).unlink(missing_ok=True)
            return True
    if running_pid(paths, daemon):
        raise DeadlineError(f"{daemon.name} (pid {pid}) does not end", hint=f"see {log_file(paths, daemon)}")
    return True


def _gone(paths: Paths, daemon: Daemon, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while running_pid(paths, daemon):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def last_words(paths: Paths, daemon: Daemon, lines: int = 8) -> str:
    """The end of the daemon's log, for the sentence that says why it is not there."""
    try:
        return "\n".join(log_file(paths, daemon).read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def check_alive(paths: Paths, daemon: Daemon) -> None:
    if not systemd_runs() and running_pid(paths, daemon) is None:
        raise CuboidError(
            f"{daemon.name} ended while starting:\n{last_words(paths, daemon)}", hint=f"see {log_file(paths, daemon)}"
        )


async def systemd_start(paths: Paths, daemons: Sequence[Daemon], server: str) -> None:
    """Install and start the units."""
    names = [f"{daemon.name}.service" for daemon in daemons]
    values = {"PYTHON": sys.executable, "STATE": str(paths.state), "RUN": str(paths.run), "SERVER": server}
    for name in names:
        text = (UNITS / name).read_text()
        for key, value in values.items():
            text = text.replace(f"@{key}@", value)
        write_atomic(UNIT_FOLDER / name, text.encode(), mode=0o644)
    await proc.run(["systemctl", "daemon-reload"], timeout=30)
    await proc.run(["systemctl", "enable", "--now", *names], timeout=90)


async def systemd_stop(daemons: Sequence[Daemon]) -> None:
    names = [f"{daemon.name}.service" for daemon in daemons if (UNIT_FOLDER / f"{daemon.name}.service").exists()]
    if names:
        await proc.run(["systemctl", "disable", "--now", *names], timeout=90)
