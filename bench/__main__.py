"""`python -m bench [NAME…]`: run all benchmarks or those named."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from bench import density, exec, logs, start  # noqa: A004 - named after the verb
from bench.common import RESULTS, machine

PROGRAMS = {"start": start.measure, "exec": exec.measure, "logs": logs.measure, "density": density.measure}


def table(results: dict[str, dict[str, Any]], where: dict[str, Any]) -> str:
    lines = [
        "# Measured",
        "",
        f"{where['cores']} cores of {where['cpu']}, {where['memory_gib']} GiB, Linux {where['kernel']}, "
        f"{where['qemu']}.",
        "",
        "| benchmark | figures | bar | verdict |",
        "|---|---|---|---|",
    ]
    for name, row in results.items():
        hidden = {"what", "bar", "verdict", "unit", "machine"}
        figures = "; ".join(f"{key}: {json.dumps(value)}" for key, value in row.items() if key not in hidden)
        lines.append(f"| **{name}**: {row['what']} ({row['unit']}) | {figures} | {row['bar']} | {row['verdict']} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    where = machine()
    for name in sys.argv[1:] or PROGRAMS:
        started = time.monotonic()
        print(f"{name} …", flush=True)
        result = {**PROGRAMS[name](), "machine": where}
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
        print(f"{name}: {result['verdict']} ({time.monotonic() - started:.0f} s)", flush=True)
    found = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    (RESULTS / "table.md").write_text(table(found, where))
    print(f"\n{table(found, where)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
