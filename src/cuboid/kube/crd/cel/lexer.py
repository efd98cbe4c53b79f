"""The words of an expression."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from cuboid.kube.crd.cel.values import HIGH, LOW, CelError, UInt

MAX_LENGTH = 10_000
"""Characters of an expression."""
_TOKEN = re.compile(
    r"""
      (?P<space>\s+|//[^\n]*)
    | (?P<string>(?:[rR][bB]?|[bB][rR]?)?(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''
        |"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
    | (?P<float>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+(?:[eE][+-]?\d+)?)
    | (?P<int>0[xX][0-9a-fA-F]+[uU]?|\d+[uU]?)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<sign>\|\||&&|<=|>=|==|!=|\.\?|\[\?|[-+*/%!<>?:.,()\[\]{}])
    """,
    re.X | re.S | re.ASCII,
)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|X[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-3][0-7]{2}|.)", re.S)
_PLAIN = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


@dataclass(frozen=True)
class Token:
    """`kind`: value (of a literal), name, sign or end."""

    kind: str
    value: Any
    place: int


def tokens(text: str) -> list[Token]:
    """CelError where the text has no words."""
    if len(text) > MAX_LENGTH:
        raise CelError(f"the expression is longer than {MAX_LENGTH} characters")
    found: list[Token] = []
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise CelError(f"Syntax error: token recognition error at: {text[place : place + 10]!r}")
        kind, word = str(match.lastgroup), match[0]
        if kind != "space":
            found.append(Token(*_read(kind, word), place))
        place = match.end()
    return [*found, Token("end", "<EOF>", place)]


def _read(kind: str, word: str) -> tuple[str, Any]:
    if kind == "string":
        return "value", _string(word)
    if kind == "float":
        return "value", float(word)
    if kind == "int":
        return "value", _int(word)
    return kind, word


def _int(word: str) -> int:
    unsigned = word[-1] in "uU"
    digits = word[:-1] if unsigned else word
    value = int(digits, 16) if digits[:2].lower() == "0x" else int(digits)
    if unsigned:
        return UInt(value)
    if not LOW <= value <= HIGH + 1:  # one more: it may stand after a minus
        raise CelError(f"invalid int literal: {word[:30]}")
    return value


def _string(word: str) -> str | bytes:
    quote = re.search(r"['\"]", word)
    assert quote is not None
    prefix, body = word[: quote.start()].lower(), word[quote.start() :]
    size = 3 if body[:3] in ("'''", '"""') and len(body) >= 6 else 1
    inner = body[size:-size]
    text = inner if "r" in prefix else _ESCAPE.sub(_unescaped, inner)
    return text.encode() if "b" in prefix else text


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    if code[0] in "xXuU" and len(code) > 1:
        number = int(code[1:], 16)
    elif code.isdigit() and len(code) == 3:
        number = int(code, 8)
    else:
        return _PLAIN.get(code, code)
    if number > 0x10FFFF or 0xD800 <= number < 0xE000:
        raise CelError("Syntax error: invalid unicode code point")
    return chr(number)
