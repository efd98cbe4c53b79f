"""`python -m bench [NAME…]`: run all benchmarks or those named, in this order."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from bench import api, burst, cli, density, deploy, exec, logs, network, node_death, rights, snapshot, start, work  # noqa: A004 - a verb
from bench.common import RESULTS, load, machine

PROGRAMS = {
    "start": start.measure, "burst": burst.measure, "exec": exec.measure, "cli": cli.measure, "logs": logs.measure,
    "density": density.measure, "snapshot": snapshot.measure, "network": network.measure,
    "node-death": node_death.measure, "work": work.measure, "deploy": deploy.measure, "api": api.measure,
    "rights": rights.measure,
}  # fmt: skip
NO_FIGURES = ("what", "unit", "bar", "verdict", "machine", "load")


def table(results: dict[str, dict[str, Any]], where: dict[str, Any]) -> str:
    lines = [
        "# Measured",
        "",
        f"{where['cores']} cores of {where['cpu']}, {where['memory_gib']} GiB, Linux {where['kernel']}, "
        f"{where['qemu']}. Load: before and after, the benchmark's own included.",
        "",
        "| benchmark | figures | bar | verdict | load |",
        "|---|---|---|---|---|",
        *(_row(name, result) for name, result in results.items()),
    ]
    return "\n".join(lines) + "\n"


def _row(name: str, result: dict[str, Any]) -> str:
    figures = "<br>".join(f"{key}: {_figure(value)}" for key, value in result.items() if key not in NO_FIGURES)
    head = f"**{name}**: {result['what']} ({result['unit']})"
    return f"| {head} | {figures} | {result['bar']} | {result['verdict']} | {' → '.join(map(str, result['load']))} |"


def _figure(value: Any) -> str:
    if isinstance(value, dict) and "median" in value:
        last = f", p99 {value['p99']}" if "p99" in value else ""
        return f"**{value['median']}** ({value['min']}–{value['max']}{last}, {value['runs']} runs)"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_figure(part)}" for key, part in value.items())
    return str(value)


def main() -> int:
    where = machine()
    RESULTS.mkdir(exist_ok=True)
    for name in sys.argv[1:] or PROGRAMS:
        before, started = load(), time.monotonic()
        print(f"{name} …", flush=True)
        result = {**PROGRAMS[name](), "load": [before, load()], "machine": where}
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
        print(f"{name}: {result['verdict']} ({time.monotonic() - started:.0f} s)", flush=True)
    found = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    (RESULTS / "table.md").write_text(table(found, where))
    print(f"\n{table(found, where)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
