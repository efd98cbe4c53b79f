"""From the exceptions of a task group to the one that its caller wants to hear of."""

from __future__ import annotations


def first(errors: BaseExceptionGroup[BaseException], *kinds: type[BaseException]) -> BaseException:
    """The first that is of the first of `kinds` there is, else the first of all."""
    leaves = _leaves(errors)
    for kind in kinds:
        for leaf in leaves:
            if isinstance(leaf, kind):
                return leaf
    return leaves[0]


def _leaves(errors: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in errors.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
