"""The garbage collector of a daemon, kept out of the way of what people wait for."""

from __future__ import annotations

import gc

YOUNG = 5_000
"""New objects between two looks at the young ones. A start of a pod makes some thousands."""
OLDER = 20


def settle() -> None:
    """Call it when a daemon is ready: what it consists of is never looked at again.

    Modules, classes and tables are 60,000 objects, which a full collection walks through while nothing else runs: 40 ms
    on a quiet machine, now and then in the middle of a start. What comes later is collected as ever.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, OLDER, OLDER)
