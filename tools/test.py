"""`make test`: all tests in groups, then one closing line. A group has a deadline; what fails runs once more alone.

A failure that does not come again is printed as `FLAKY` with its name and counted: it is to be mended, but says more of
a busy machine than of the change. With arguments, they go to pytest as they are (`tools/test.py tests/unit -k store`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTEST = [str(ROOT / ".venv/bin/python"), "-m", "pytest"]
REPORTS = ROOT / "build/reports"


@dataclass(frozen=True)
class Group:
    name: str
    arguments: tuple[str, ...]
    minutes: int


@dataclass
class Counts:
    passed: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)
    flaky: list[str] = field(default_factory=list)
    skips: dict[str, int] = field(default_factory=dict)


GROUPS = (
    Group("unit", ("tests/unit", "-n", "2", "--dist", "worksteal"), 10),
    Group("contract", ("tests/contract", "-n", "2", "--dist", "loadgroup"), 20),
    Group("vm", ("tests/vm", "-n", "2", "--dist", "loadfile"), 20),
    Group("e2e", ("tests/e2e", "-n", "2", "--dist", "loadfile"), 30),
)


def pytest(arguments: list[str], report: Path, minutes: float) -> int:
    """pytest's exit code; 124 when it took too long."""
    report.unlink(missing_ok=True)
    command = [*PYTEST, "-q", "--durations=10", f"--junit-xml={report}", "-o", "junit_family=xunit1", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        return process.wait(timeout=minutes * 60)
    except subprocess.TimeoutExpired:
        print(f"FAIL the group took longer than {minutes:g} minutes", flush=True)
        return 124
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def read(report: Path, counts: Counts) -> list[str]:
    """Add a report's passed and skipped tests to the counts; the node ids of what failed."""
    failed = []
    for case in ET.parse(report).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(node_id(case))
        elif (skip := case.find("skipped")) is not None:
            counts.skipped += 1
            reason = skip.get("message", "no reason")
            counts.skips[reason] = counts.skips.get(reason, 0) + 1
        else:
            counts.passed += 1
    return failed


def node_id(case: ET.Element) -> str:
    in_class = case.get("classname", "").rpartition(".")[2]
    parts = [case.get("file", ""), *([in_class] if in_class.startswith("Test") else []), case.get("name", "")]
    return "::".join(parts)


def run_group(group: Group, counts: Counts) -> None:
    report = REPORTS / f"{group.name}.xml"
    started = time.monotonic()
    print(f"\n=== {group.name}", flush=True)
    code = pytest(list(group.arguments), report, group.minutes)
    if not report.exists():
        counts.failed.append(f"{group.name}: pytest ended with {code} and no report")
        return
    for name in read(report, counts):
        again = REPORTS / "again.xml"
        print(f"\n=== once more, alone: {name}", flush=True)
        if pytest([name, "-p", "no:randomly"], again, 5) == 0:
            counts.flaky.append(name)
            counts.passed += 1
        else:
            counts.failed.append(name)
    print(f"=== {group.name}: {time.monotonic() - started:.0f} s", flush=True)


def run_cargo(counts: Counts) -> None:
    print("\n=== guest agent (cargo test)", flush=True)
    environment = {**os.environ, "PATH": f"{Path.home()}/.cargo/bin:{os.environ['PATH']}"}
    command = ["cargo", "test", "--quiet", "--locked"]
    done = subprocess.run(
        command, cwd=ROOT / "guest/agent", env=environment, check=False, capture_output=True, text=True, timeout=1200
    )
    for line in done.stdout.splitlines():
        if line.startswith("test result:"):
            counts.passed += int(line.split(" passed")[0].split()[-1])
    if done.returncode:
        print(done.stdout + done.stderr, flush=True)
        counts.failed.append("guest/agent: cargo test")


def build_images(counts: Counts) -> None:
    """The tests' images, before the clocks of the tests run."""
    print("\n=== images from Debian's packages", flush=True)
    command = [PYTEST[0], "-m", "tools.debian_images"]
    if subprocess.run(command, cwd=ROOT, check=False, timeout=1200).returncode:
        counts.failed.append("tools.debian_images")


def main() -> int:
    if sys.argv[1:]:
        return subprocess.run([*PYTEST, *sys.argv[1:]], cwd=ROOT, check=False).returncode
    REPORTS.mkdir(parents=True, exist_ok=True)
    counts = Counts()
    started = time.monotonic()
    run_cargo(counts)
    build_images(counts)
    for group in GROUPS:
        if (ROOT / group.arguments[0]).is_dir():
            run_group(group, counts)
    print(f"\n=== all: {time.monotonic() - started:.0f} s")
    for reason, count in sorted(counts.skips.items()):
        print(f"skipped {count}: {reason}")
    for name in counts.flaky:
        print(f"FLAKY {name}")
    for name in counts.failed:
        print(f"FAILED {name}")
    print(f"{counts.passed} passed, {len(counts.failed)} failed, {counts.skipped} skipped")
    return 1 if counts.failed else 0


if __name__ == "__main__":
    sys.exit(main())
