"""Writes the messages of proto/agent.proto for Python and Rust. `--check` only says what is stale, and fails."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROTO = ROOT / "proto/agent.proto"
PYTHON = ROOT / "src/cuboid/guest"
RUST = ROOT / "guest/agent/src/pb.rs"
CODEGEN = ROOT / "guest/codegen"


def python_files(folder: Path) -> dict[Path, Path]:
    """Generate into `folder`; (made, committed) pairs."""
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO.parent}", f"--python_out={folder}"]
    subprocess.run([*command, f"--pyi_out={folder}", PROTO], check=True, timeout=60)
    return {folder / name: PYTHON / name for name in ("agent_pb2.py", "agent_pb2.pyi")}


def rust_files(folder: Path) -> dict[Path, Path]:
    made = folder / "pb.rs"
    subprocess.run(["cargo", "build", "-q", "--locked"], cwd=CODEGEN, check=True, timeout=600)
    generator = ROOT / "build/cargo-codegen/debug/cuboid-codegen"
    subprocess.run([generator, PROTO, made], check=True, timeout=60)
    style = ROOT / "guest/agent/rustfmt.toml"
    subprocess.run(["rustfmt", "--edition", "2024", "--config-path", style, made], check=True, timeout=60)
    return {made: RUST}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say what is stale")
    check = parser.parse_args().check
    stale = []
    with tempfile.TemporaryDirectory() as name:
        for made, committed in (python_files(Path(name)) | rust_files(Path(name))).items():
            if committed.exists() and made.read_bytes() == committed.read_bytes():
                continue
            stale.append(committed.relative_to(ROOT))
            if not check:
                committed.write_bytes(made.read_bytes())
    for path in stale:
        print(f"{path} {'is stale: run tools/gen.py' if check else 'written'}")
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main())
