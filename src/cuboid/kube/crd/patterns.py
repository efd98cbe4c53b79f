"""Regular expressions of tenants. RE2 has Go's syntax, as in Kubernetes, and takes time linear in the text."""

from __future__ import annotations

import functools
from typing import Any

import re2

from cuboid.lib.errors import InvalidError

MAX_MEMORY = 1 << 20
"""Bytes of one compiled expression; RE2 refuses what needs more, after 20 ms at most."""
MAX_LENGTH = 4096
"""Bytes of an expression."""
_OPTIONS = re2.Options()
_OPTIONS.max_mem = MAX_MEMORY
_OPTIONS.log_errors = False


@functools.lru_cache(maxsize=128)
def compiled(pattern: str) -> Any:
    """InvalidError says what is wrong with the expression."""
    if len(pattern.encode("utf-8", "replace")) > MAX_LENGTH:
        raise InvalidError(f"the regular expression is longer than {MAX_LENGTH} bytes")
    try:
        return re2.compile(pattern, options=_OPTIONS)
    except (re2.error, UnicodeEncodeError) as error:
        why = error.args[0] if error.args else error
        raise InvalidError(why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)) from error


def found(pattern: str, text: str) -> bool:
    """Whether the expression matches somewhere in the text."""
    try:
        return compiled(pattern).search(text) is not None
    except UnicodeEncodeError:  # a lone surrogate
        return False
