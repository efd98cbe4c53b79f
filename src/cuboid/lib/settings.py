"""Settings are rows: frozen dataclasses whose fields carry a unit, a default and a reason. Unknown keys fail.

A field is `setting(default, unit="s", why="…")`. Sources, weakest first: the default, the file
(`/etc/cuboid/cuboid.toml`, one table per dataclass), the environment (`CUBOID_<TABLE>_<FIELD>`).
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from cuboid.lib.errors import InvalidError

S = TypeVar("S")
FILE = Path("/etc/cuboid/cuboid.toml")


def setting(default: Any, *, why: str, unit: str = "") -> Any:
    return dataclasses.field(default=default, metadata={"why": why, "unit": unit})


def load(kind: type[S], table: str, *, file: Path = FILE, environ: Mapping[str, str] | None = None) -> S:
    """Read one table into its dataclass. InvalidError names the key, its source and what would be right."""
    environ = os.environ if environ is None else environ
    given: dict[str, tuple[Any, str]] = {key: (value, str(file)) for key, value in _table(file, table).items()}
    prefix = f"CUBOID_{table.upper()}_"
    given |= {k.removeprefix(prefix).lower(): (v, k) for k, v in environ.items() if k.startswith(prefix)}
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    values = {}
    for key, (value, source) in given.items():
        if key not in names:
            raise InvalidError(
                f"unknown setting {key!r} in {source}", hint=f"known in [{table}]: {', '.join(sorted(names))}"
            )
        values[key] = _convert(value, hints[key], key, source)
    return kind(**values)


def _table(file: Path, table: str) -> dict[str, Any]:
    try:
        content = tomllib.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except tomllib.TOMLDecodeError as error:
        raise InvalidError(f"{file} is not valid TOML: {error}") from error
    found = content.get(table, {})
    if not isinstance(found, dict):
        raise InvalidError(f"[{table}] in {file} must be a table")
    return found


def _convert(value: Any, kind: Any, key: str, source: str) -> Any:
    try:
        if kind is bool and isinstance(value, str):
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[value.lower()]
        if kind in (int, float, str, Path):
            return kind(value)
        if kind is tuple[str, ...] or kind == tuple[str, ...]:
            return tuple(value.split(",")) if isinstance(value, str) else tuple(value)
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidError(f"setting {key!r} in {source}: {value!r} is not a {kind.__name__}") from error
    return value
