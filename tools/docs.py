"""Writes the reference pages from the code, and checks that each promise of docs/spec.md names a test that exists.

docs.py            write docs/reference/*.md
docs.py --check    fail if a page is stale, a promise has no test, or a link between pages is broken
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from tools.api_page import api_page

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs/reference"
SETTINGS = (
    ("server", "cuboid.server.settings", "ServerSettings"),
    ("node", "cuboid.node.settings", "NodeSettings"),
    ("vmm", "cuboid.vmm.settings", "VmmSettings"),
    ("images", "cuboid.images.settings", "ImageSettings"),
    ("net", "cuboid.net.settings", "NetSettings"),
    ("storage", "cuboid.storage.settings", "StorageSettings"),
)
PROMISE = re.compile(r"^\| (?P<id>[A-Z]+\d+) \|(?P<text>.*)\|(?P<tests>[^|]*)\|\s*$")
TEST = re.compile(r"`(?P<file>(tests|bench|guest)/[\w./-]+?)(?:::(?P<name>\w+))?`")
LINK = re.compile(r"\]\((?!https?:|#)(?P<target>[^)#]+)")


def settings_page() -> str:
    lines = [
        "# Settings",
        "",
        "From `/etc/cuboid/cuboid.toml`, one table each, or from the environment: `CUBOID_<TABLE>_<FIELD>`, which "
        "wins. An unknown key is an error. This page is generated from the code.",
    ]
    for table, module, name in SETTINGS:
        kind = getattr(importlib.import_module(module), name)
        lines += ["", f"## `[{table}]`", "", "| key | default | unit | why |", "|---|---|---|---|"]
        for row in dataclasses.fields(kind):
            default = "" if row.default is dataclasses.MISSING else _literal(row.default)
            why = str(row.metadata.get("why", "")).replace("|", "\\|")
            lines.append(f"| `{row.name}` | `{default}` | {row.metadata.get('unit', '')} | {why} |")
    return "\n".join(lines) + "\n"


def _literal(value: Any) -> str:
    return str(value) if isinstance(value, Path) else repr(value)


def commands_page() -> str:
    from cuboid.cli.main import build

    group = typer.main.get_command(build())
    lines = ["# Commands", "", "Generated from `cuboid --help`. Every verb that prints takes `-o json|yaml`.", ""]
    for path, command in sorted(_commands(group, "cuboid")):
        lines += [f"## `{path}`", "", (command.help or "").strip(), ""]
        rows = [row for row in command.params if row.name != "help"]
        lines += ["| | |", "|---|---|"] if rows else []
        for row in rows:
            names = (
                ", ".join(f"`{name}`" for name in row.opts)
                if row.param_type_name == "option"
                else f"`{row.metavar or row.name}`"
            )
            lines.append(f"| {names} | {(getattr(row, 'help', '') or '').replace('|', '/')} |")
        lines += [""] if rows else []
    return "\n".join(lines)


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def pages() -> dict[Path, str]:
    return {
        REFERENCE / "settings.md": settings_page(),
        REFERENCE / "commands.md": commands_page(),
        REFERENCE / "api.md": api_page(),
    }


def spec_problems() -> Iterator[str]:
    seen: set[str] = set()
    for line in (ROOT / "docs/spec.md").read_text().splitlines():
        if not (found := PROMISE.match(line)):
            continue
        if found["id"] in seen:
            yield f"docs/spec.md: {found['id']} is there twice"
        seen.add(found["id"])
        tests = list(TEST.finditer(found["tests"]))
        if not tests and "pending" not in found["tests"]:
            yield f"docs/spec.md: {found['id']} names no test and is not marked pending"
        yield from (f"docs/spec.md: {found['id']}: {problem}" for test in tests for problem in _test_problem(test))
    if not seen:
        yield "docs/spec.md holds no promise"


def _test_problem(test: re.Match[str]) -> Iterator[str]:
    path = ROOT / test["file"]
    if not path.exists():
        yield f"{test['file']} does not exist"
    elif test["name"] and path.suffix == ".py":
        names = {
            node.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        if test["name"] not in names:
            yield f"{test['file']} has no {test['name']}"


def link_problems() -> Iterator[str]:
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]:
        for found in LINK.finditer(page.read_text()):
            if not (page.parent / found["target"]).exists():
                yield f"{page.relative_to(ROOT)}: {found['target']} does not exist"


def main() -> int:
    problems: list[str] = []
    for path, text in pages().items():
        if "--check" not in sys.argv:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            problems.append(f"{path.relative_to(ROOT)} is stale: .venv/bin/python -m tools.docs")
    problems += [*spec_problems(), *link_problems()]
    print("\n".join(problems), end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
