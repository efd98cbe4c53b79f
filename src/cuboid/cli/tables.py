"""What the API answers as a Table: its own columns for a kind, custom kinds too."""

from __future__ import annotations

from typing import Any

from cuboid.cli.output import clean

Object = dict[str, Any]


def cells(
    content: Object, *, wide: bool, with_namespace: bool, definitions: list[Object] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Columns and rows; columns of a priority above 0 if `wide` alone. `definitions`: of the watch's first answer."""
    definitions = content.get("columnDefinitions") or definitions or []
    chosen = [number for number, row in enumerate(definitions) if wide or not row.get("priority")]
    columns = [str(definitions[number]["name"]).upper() for number in chosen]
    rows = []
    for row in content.get("rows") or []:
        given = row["cells"]
        cell = [_text(given[number] if number < len(given) else None) for number in chosen]
        rows.append([row.get("object", {}).get("metadata", {}).get("namespace", ""), *cell] if with_namespace else cell)
    return (["NAMESPACE", *columns] if with_namespace else columns), rows


def _text(value: Any) -> str:
    if value is None:
        return "<none>"
    return str(value).lower() if isinstance(value, bool) else str(value)


class Rows:
    """Prints rows as they come, under the columns of the first answer that has rows."""

    def __init__(self, *, wide: bool, with_namespace: bool) -> None:
        self._wide = wide
        self._with_namespace = with_namespace
        self._definitions: list[Object] = []
        self._widths: list[int] = []

    def print(self, content: Object) -> None:
        self._definitions = content.get("columnDefinitions") or self._definitions
        columns, rows = cells(
            content, wide=self._wide, with_namespace=self._with_namespace, definitions=self._definitions
        )
        shown = [[clean(cell).replace("\n", " ") for cell in row] for row in rows]
        if not self._widths and shown:
            self._widths = [max([len(name), *(len(row[at]) for row in shown)]) for at, name in enumerate(columns)]
            shown = [columns, *shown]
        for row in shown:
            padded = (cell.ljust(width) for cell, width in zip(row, self._widths, strict=True))
            print("  ".join(padded).rstrip(), flush=True)
