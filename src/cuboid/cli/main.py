"""`cuboid`: the entry point, and the one place where an error becomes an exit code."""

from __future__ import annotations

import sys

import typer

from cuboid.cli.verbs import cp, exec_, images, info, lifecycle, logs, platform, ps, run, volumes, why
from cuboid.lib import errors

app = typer.Typer(
    name="cuboid",
    help="Containers without servers to manage: each pod is a virtual machine of its own.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (platform, run, ps, logs, exec_, lifecycle, cp, info, images, volumes, why):
    module.register(app)

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


def exit_code(error: errors.CuboidError) -> int:
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)


def main() -> None:
    try:
        app(standalone_mode=True)
    except errors.CuboidError as error:
        print(f"cuboid: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  try: {error.hint}", file=sys.stderr)
        sys.exit(exit_code(error))
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except KeyboardInterrupt:
        sys.exit(130)
