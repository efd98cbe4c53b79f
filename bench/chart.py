"""The phases of a start as a table for the terminal and as a picture for the documentation."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.starts import Start

PICTURE = Path(__file__).resolve().parents[1] / "docs/explanation/start-phases.png"
WIDTH = 48  # characters of the terminal's time line
COLOURS = {"schedule": "#9aa5b1", "watch": "#9aa5b1", "network": "#4c9f70", "disk": "#4c9f70", "image": "#4c9f70",
           "vmm": "#e0a030", "agent": "#d1603d", "kernel": "#d1603d", "setup": "#d1603d", "container": "#d1603d",
           "ready": "#5b7db1"}  # fmt: skip
MEANING = {"#9aa5b1": "API", "#4c9f70": "host", "#e0a030": "VMM", "#d1603d": "guest", "#5b7db1": "status"}
Phases = dict[str, tuple[float, float]]  # name to (offset, seconds)


def medians(starts: Sequence[Start]) -> dict[str, float]:
    """Seconds of each phase."""
    return {name: round(seconds, 4) for name, (_, seconds) in phases(starts).items()}


def phases(starts: Sequence[Start]) -> Phases:
    """Medians of offset and length, in the order in which phases begin."""
    rows: dict[str, list[tuple[float, float]]] = {}
    for start in starts:
        for phase in start.receipt.get("phases", []):
            rows.setdefault(phase["name"], []).append((phase["offsetSeconds"], phase["seconds"]))
    found = {name: (_median([a for a, _ in row]), _median([b for _, b in row])) for name, row in rows.items()}
    return dict(sorted(found.items(), key=lambda item: item[1][0]))


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def table(kind: str, starts: Sequence[Start]) -> str:
    """One line per phase: where in the start it is, and how long it takes."""
    found = phases(starts)
    total = max((offset + seconds for offset, seconds in found.values()), default=0.0) or 1e-9
    lines = [f"{kind}: {total * 1000:.0f} ms (medians of {len(starts)})"]
    for name, (offset, seconds) in found.items():
        before = min(WIDTH - 1, int(WIDTH * offset / total))
        bar = " " * before + "█" * max(1, min(WIDTH - before, round(WIDTH * seconds / total)))
        lines.append(f"  {name:<10} {bar:<{WIDTH}} {seconds * 1000:8.1f} ms")
    return "\n".join(lines)


def draw(kinds: Mapping[str, Sequence[Start]], target: Path = PICTURE) -> None:
    """Print the tables; draw the picture where matplotlib is installed (`pip install -e .[bench]`)."""
    for kind, starts in kinds.items():
        print(table(kind, starts), flush=True)
    try:
        import matplotlib as mpl
        from matplotlib import patches, pyplot
    except ImportError:
        print("no picture: matplotlib is not installed", flush=True)
        return
    mpl.use("Agg")
    figure, axes = pyplot.subplots(len(kinds), 1, figsize=(9, 2.6 * len(kinds)), layout="constrained", squeeze=False)
    for axis, (kind, starts) in zip(axes[:, 0], kinds.items(), strict=True):
        found = phases(starts)
        for row, (name, (offset, seconds)) in enumerate(found.items()):
            axis.barh(row, seconds * 1000, left=offset * 1000, color=COLOURS.get(name, "#777777"))
            axis.text((offset + seconds) * 1000, row, f" {seconds * 1000:.1f}", va="center", fontsize=7)
        axis.set_yticks(range(len(found)), list(found), fontsize=8)
        axis.invert_yaxis()
        axis.margins(x=0.08)
        axis.set_title(f"{kind} start, ms since the API took the pod", fontsize=9, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    handles = [patches.Patch(color=colour, label=label) for colour, label in MEANING.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    figure.savefig(target, dpi=110)
    pyplot.close(figure)
