"""`cuboid`: the entry point, and the one place where an error becomes an exit code."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from cuboid.lib import errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    import typer

MODULES = {
    "platform": ("up", "down", "version", "kubeconfig", "doctor"),
    "run": ("run",),
    "ps": ("ps", "inspect"),
    "logs": ("logs",),
    "exec_": ("exec", "attach", "top"),
    "lifecycle": ("stop", "start", "restart", "rm"),
    "pause": ("pause", "resume"),
    "cp": ("cp",),
    "info": ("stats", "events", "port"),
    "images": ("pull", "images", "image"),
    "volumes": ("volume",),
    "why": ("why",),
    "tenant": ("tenant",),
    "backup": ("backup", "restore"),
    "deploy": ("deploy",),
    "scale": ("scale",),
    "rollout": ("rollout",),
    "job": ("job",),
    "cron": ("cron",),
    "node": ("node",),
    "explain": ("explain",),
    "apply": ("apply", "delete"),
    "get": ("get",),
}

COMPLETION = "_CUBOID_COMPLETE"
"""Set by the shell when it wants words to choose from instead of the command's work."""

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
    import importlib

    import typer

    app = typer.Typer(
        name="cuboid",
        help="Containers without servers to manage: each pod is a virtual machine of its own.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    from cuboid.cli.common import group

    app.callback()(group)
    wanted = [module for module, verbs in MODULES.items() if arguments and arguments[0] in verbs]
    for module in wanted or MODULES:
        importlib.import_module(f"cuboid.cli.verbs.{module}").register(app)
    return app


def exit_code(error: errors.CuboidError) -> int:
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)


def _fast(arguments: Sequence[str]) -> int | None:
    """The exit code of a verb that is read without the command-line library; None if this is not one."""
    if arguments[:1] != ["run"] or COMPLETION in os.environ:
        return None
    from cuboid.cli.verbs.run import fast_run

    return fast_run(list(arguments[1:]))


def main() -> None:
    try:
        code = _fast(sys.argv[1:])
        if code is not None:
            sys.exit(code)
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
