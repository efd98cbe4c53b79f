"""`make check`: every check that needs no running part. Prints one line per check, and all of what fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUSTFMT = ("rustfmt", "--check", "--edition", "2024", "--config-path", "rustfmt.toml")
LAUNCHER = "src/cuboid/vmm/qemu/launcher.rs"  # of one file, without a package
VENV = ROOT / ".venv/bin"
PYTHON_TREES = ["src", "tests", "bench", "tools"]
CLIPPY = ["-D", "warnings", "-W", "clippy::unwrap_used", "-W", "clippy::expect_used"]

CHECKS: list[tuple[str, Path, list[str | Path]]] = [
    ("ruff check", ROOT, [VENV / "ruff", "check", "--quiet", *PYTHON_TREES]),
    ("ruff format", ROOT, [VENV / "ruff", "format", "--check", "--quiet", *PYTHON_TREES]),
    ("mypy --strict", ROOT, [VENV / "mypy"]),
    ("import-linter", ROOT, [VENV / "lint-imports", "--no-cache"]),
    ("generated files", ROOT, [VENV / "python", "tools/gen.py", "--check"]),
    ("documentation", ROOT, [VENV / "python", "-m", "tools.docs", "--check"]),
    ("cargo fmt", ROOT / "guest/agent", ["cargo", "fmt", "--check"]),
    ("rustfmt", ROOT / "guest/agent", [*RUSTFMT, ROOT / LAUNCHER]),
    ("cargo clippy", ROOT / "guest/agent", ["cargo", "clippy", "--quiet", "--locked", "--", *CLIPPY]),
]


def missing(name: str, environment: dict[str, str]) -> bool:
    """Whether a check is one of cargo's that this machine's Rust lacks (Debian 12 has no clippy for its new Rust)."""
    tool = name.replace(" ", "-")
    return name.startswith(("cargo ", "rustfmt")) and not shutil.which(tool, path=environment["PATH"])


def main() -> int:
    environment = {**os.environ, "PATH": f"{Path.home()}/.cargo/bin:{os.environ['PATH']}"}
    failed = []
    for name, folder, command in CHECKS:
        if missing(name, environment):
            print(f"skip {name} (not installed: rustup component add {name.removeprefix('cargo ')})", flush=True)
            continue
        started = time.monotonic()
        done = subprocess.run(
            command, check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=900
        )
        print(f"{'ok  ' if done.returncode == 0 else 'FAIL'} {name} ({time.monotonic() - started:.1f} s)", flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stdout + done.stderr, flush=True)
    if failed:
        print(f"check: failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
