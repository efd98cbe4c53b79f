"""What a command prints: tables, JSON, YAML, ages, sizes, progress. Colours and progress on a terminal only."""

from __future__ import annotations

import enum
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


class Format(enum.StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


COLOURS = {"Running": "32", "Completed": "2", "Succeeded": "2", "Stopped": "2", "Pending": "33", "Terminating": "33"}
PROBLEM = re.compile(r"Err|Error|Failed|BackOff|Killed|Timeout|Died|Panic|Invalid|CannotRun|Unsupported")
# C0 and C1, what turns the direction of writing round or has no width, and other line ends than \n.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def colour_wanted(stream: Any = None) -> bool:
    stream = stream or sys.stdout
    return bool(stream.isatty()) and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def clean(text: str) -> str:
    """Text from a guest or registry with its control characters made visible: it must not drive the terminal."""
    return CONTROL.sub(_visible, text)


def _visible(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def paint(text: str, status: str | None = None) -> str:
    status = status or text
    code = COLOURS.get(status) or ("31" if PROBLEM.search(status) else "")
    return f"\033[{code}m{text}\033[0m" if code and colour_wanted() else text


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, coloured: str = "STATUS") -> None:
    """Columns padded to their widest cell, two spaces apart, as Docker's and kubectl's are."""
    cells = [[clean(str(cell)).replace("\n", " ") for cell in row] for row in rows]
    widths = [max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(columns)]
    print("  ".join(name.ljust(width) for name, width in zip(columns, widths, strict=True)).rstrip())
    for row in cells:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        if coloured in columns:
            at = columns.index(coloured)
            padded[at] = paint(padded[at], row[at])
        print("  ".join(padded).rstrip())


def show(value: Any, form: Format, as_table: Callable[[], None]) -> None:
    """Print `value` as JSON or YAML, its names alone, or call `as_table`."""
    if form is Format.JSON:
        print(json.dumps(value, indent=2))
    elif form is Format.YAML:
        import yaml

        print(yaml.safe_dump(value, sort_keys=False), end="")
    elif form is Format.NAME and (found := names(value)):
        print_lines(found)
    elif form is Format.NAME and isinstance(value, dict) and value.get("items") == []:
        return
    else:
        as_table()


def names(value: Any) -> list[str]:
    """What the things in an answer are called; none where they have no names."""
    rows = value if isinstance(value, list) else value.get("items", [value])
    found = [row.get("metadata", row).get("name") or row.get("id") or row.get("pod") for row in rows]
    return [str(name) for name in found if name]


def age(timestamp: str | None, now: float | None = None) -> str:
    """`5s`, `3m`, `2h`, `4d` since an RFC 3339 time; `-` where there is none."""
    if not timestamp:
        return "-"
    from datetime import UTC, datetime

    seconds = (now or time.time()) - datetime.fromisoformat(timestamp).replace(tzinfo=UTC).timestamp()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size or (unit == "d" and seconds >= size):
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(clean(line))


def size(count: float) -> str:
    """Bytes in powers of 1024 with three figures: `12.3MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{count:.0f}{unit}" if unit == "B" or count >= 100 else f"{count:.1f}{unit}"
        count /= 1024
    raise AssertionError("unreachable")


class Progress:
    """One line on a terminal's stderr that is written again and again; on anything else, one line per new step."""

    def __init__(self, quiet: bool = False) -> None:
        self._tty = sys.stderr.isatty() and not quiet
        self._quiet = quiet
        self._last = ""
        self._started = time.monotonic()

    def update(self, step: str, detail: str = "") -> None:
        text = clean(f"{step} {detail}".strip())
        if self._tty:
            seconds = time.monotonic() - self._started
            sys.stderr.write(f"\r\033[K\033[2m{seconds:5.1f}s\033[0m {text[:200]}")
            sys.stderr.flush()
        elif step != self._last and not self._quiet:
            print(text, file=sys.stderr, flush=True)
        self._last = step

    def done(self) -> None:
        if self._tty and self._last:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
        self._last = ""


@contextmanager
def progress(quiet: bool = False) -> Iterator[Progress]:
    line = Progress(quiet)
    try:
        yield line
    finally:
        line.done()
