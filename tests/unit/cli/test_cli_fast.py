"""A command line that is read without the library means what the library says it means."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import typer.main
from click import ClickException
from hypothesis import given
from hypothesis import strategies as st

from cuboid.cli import fast
from cuboid.cli.main import build
from cuboid.cli.output import Format
from cuboid.cli.verbs.run import COMMAND, IMAGE, OPTIONS, fast_run

WORDS = [
    "-d", "-it", "-dq", "--rm", "--name", "web", "-e", "A=b", "-p", "8080:80", "--cpus=0.5", "--memory", "64m", "-v",
    "data:/data", "-o", "json", "-oyaml", "-p8080:80", "--init-timeout", "5", "x", "--", "-", "--nmae", "-x", "echo",
    "--detach=yes", "-e=A=b", "--entrypoint", "", "-n", "team", "-ix", "image", "--help-me",
]  # fmt: skip


def slow(arguments: list[str]) -> dict[str, Any] | None:
    """What the library makes of it; None if it refuses or only helps."""
    taken: list[dict[str, Any]] = []
    app = typer.Typer()
    command = fast.declare(OPTIONS, IMAGE, COMMAND, lambda **values: taken.append(values))
    app.command("run", context_settings={"allow_interspersed_args": False})(command)
    try:
        typer.main.get_command(app).main(list(arguments), standalone_mode=False)
    except ClickException:
        return None
    return taken[0] if taken else None


def same(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value or None if name in ("args", *LISTS) else value for name, value in values.items()}


LISTS = [option.name for option in OPTIONS if option.kind == fast.LIST]


@given(st.lists(st.sampled_from(WORDS), max_size=7))
def test_what_is_read_fast_is_what_the_library_reads(arguments: list[str]) -> None:
    found = fast.parse(OPTIONS, IMAGE, COMMAND, arguments)
    if found is not None:
        expected = slow(arguments)
        assert expected is not None
        assert same(found) == same(expected)


@pytest.mark.parametrize("line", [
    "busybox:1", "-q --name web -d -p 8080:80 -p 53:53/udp nginx", "-it --rm busybox:1 sh -c 'echo -n $A'",
    "--memory=64m -o json -d image", "-e A=b -e C --init-timeout 5 image -d",
])  # fmt: skip
def test_usual_command_lines_are_read_fast(line: str) -> None:
    arguments = shlex.split(line)
    found = fast.parse(OPTIONS, IMAGE, COMMAND, arguments)
    assert found is not None
    assert same(found) == same(slow(arguments) or {})


@pytest.mark.parametrize(
    "line", ["", "--help", "-d", "--name", "--nmae x image", "-o tabel image", "--init-timeout x i"]
)
def test_what_is_wrong_is_left_to_the_library_and_nothing_is_done(line: str) -> None:
    assert fast_run(shlex.split(line)) is None


def test_the_library_has_the_same_command() -> None:
    command = typer.main.get_command(build(["run"])).commands["run"]  # type: ignore[attr-defined]
    assert [option.name for option in OPTIONS] == [
        row.name for row in command.params if row.name not in ("image", "args", "help")
    ]
    assert next(row for row in command.params if row.name == "output").default in (Format.TABLE, "table")
