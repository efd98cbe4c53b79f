"""Options of a verb whose start people wait for: declared once, read without the command-line library.

The library (typer, click) takes 50 ms to import. `parse` understands command lines that are right; all others, and
`--help`, are left to the library, which is given the same declarations by `declare` and knows how to say what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

FLAG, TEXT, LIST, NUMBER, CHOICE = "flag", "text", "list", "number", "choice"
Values = dict[str, Any]


class Option(NamedTuple):
    """`default` None of a TEXT is told from an empty one; a CHOICE has its enum class in `among`."""

    name: str
    kind: str
    flags: tuple[str, ...]
    help: str
    default: Any = None
    among: Any = None
    shown: bool | str = True  # what help says of the default


class Positional(NamedTuple):
    name: str
    metavar: str
    help: str


def parse(options: Sequence[Option], first: Positional, rest: Positional, arguments: Sequence[str]) -> Values | None:
    """The values by name; None where the command line is for the library to judge.

    Options come before the first word that is none; what follows that word belongs to the container.
    """
    known = {flag: option for option in options for flag in option.flags}
    values: Values = {option.name: option.default for option in options}
    left = list(arguments)
    while left and left[0].startswith("-"):
        word = left.pop(0)
        flags = _flags(word, known)
        if flags is not None:
            values |= dict.fromkeys(flags, True)
            continue
        name, equals, value = word.partition("=")
        option = known.get(name)
        if option is None or option.kind == FLAG or not (left or equals) or (equals and not name.startswith("--")):
            return None
        if not _take(values, option, value if equals else left.pop(0)):
            return None
    if not left:
        return None
    return values | {first.name: left[0], rest.name: left[1:]}


def _flags(word: str, known: Mapping[str, Option]) -> list[str] | None:
    """Names of the flags that a word sets: one, or several of one letter (`-it`); None if it is something else."""
    letters = [word] if word.startswith("--") else [f"-{letter}" for letter in word[1:]]
    found = [known[letter].name for letter in letters if letter in known and known[letter].kind == FLAG]
    return found if found and len(found) == len(letters) else None


def _take(values: Values, option: Option, text: str) -> bool:
    """Whether the text is a value of this option."""
    if option.kind == LIST:
        values[option.name] = [*(values[option.name] or ()), text]
    elif option.kind == NUMBER:
        if not (text.isascii() and text.isdecimal()):
            return False
        values[option.name] = float(text)
    elif option.kind == CHOICE:
        if text not in {choice.value for choice in option.among}:
            return False
        values[option.name] = option.among(text)
    else:
        values[option.name] = text
    return True


def declare(
    options: Sequence[Option], first: Positional, rest: Positional, call: Callable[..., None]
) -> Callable[..., None]:
    """`call` with the signature that typer makes a command from."""
    import inspect
    from typing import Annotated

    import typer

    def verb(**values: Any) -> None:
        call(**values)

    def parameter(name: str, kind: Any, about: Any, default: Any) -> inspect.Parameter:
        return inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[kind, about], default=default
        )

    types = {FLAG: bool, LIST: list[str] | None, NUMBER: float}
    parameters = [
        parameter(first.name, str, typer.Argument(metavar=first.metavar, help=first.help), inspect.Parameter.empty),
        parameter(rest.name, list[str] | None, typer.Argument(metavar=rest.metavar, help=rest.help), None),
    ]
    for option in options:
        kind = types.get(option.kind) or option.among or (str if option.default is not None else str | None)
        about = typer.Option(*option.flags, help=option.help, show_default=option.shown)
        parameters.append(parameter(option.name, kind, about, option.default))
    verb.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return verb
