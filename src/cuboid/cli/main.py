"""`cuboid`: the entry point, and the one place where an error becomes an exit code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from cuboid import __version__
from cuboid.lib import errors

MODULES = {
    "platform": ("up", "down", "version", "kubeconfig", "doctor"),
    "run": ("run",),
    "ps": ("ps", "inspect"),
    "logs": ("logs",),
    "exec_": ("exec", "attach", "top"),
    "lifecycle": ("stop", "start", "restart", "rm"),
    "cp": ("cp",),
    "info": ("stats", "events", "port"),
    "images": ("pull", "images", "image"),
    "volumes": ("volume",),
    "why": ("why",),
}

EXIT_CODES: tuple[tuple[type[errors.CuboidError], int], ...] = (
    (errors.InvalidError, 2),
    (errors.NotFoundError, 1),
    (errors.AlreadyExistsError, 1),
    (errors.UnavailableError, 3),
    (errors.DeadlineError, 4),
    (errors.UnauthorizedError, 5),
    (errors.ForbiddenError, 5),
    (errors.UnsupportedError, 6),
    (errors.ExhaustedError, 7),
)


def build(arguments: Sequence[str] = ()) -> typer.Typer:
    """The application. Only the module of the verb that is asked for is imported; all, where none is known."""
    app = typer.Typer(
        name="cuboid",
        help="Containers without servers to manage: each pod is a virtual machine of its own.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_group)
    wanted = [module for module, verbs in MODULES.items() if arguments and arguments[0] in verbs]
    for module in wanted or MODULES:
        importlib.import_module(f"cuboid.cli.verbs.{module}").register(app)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cuboid {__version__}")
        raise typer.Exit


def _group(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Keeps a group a group when only one verb is registered."""


def exit_code(error: errors.CuboidError) -> int:
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)


def main() -> None:
    try:
        build(sys.argv[1:])(standalone_mode=True)
    except errors.CuboidError as error:
        from cuboid.cli.output import clean  # it holds what a guest or a registry said

        print(f"cuboid: {clean(error.message)}", file=sys.stderr)
        if error.hint:
            print(f"  try: {clean(error.hint)}", file=sys.stderr)
        sys.exit(exit_code(error))
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except KeyboardInterrupt:
        sys.exit(130)
