"""Python's garbage collector in a process that takes readings."""

import gc
from typing import Final

_YOUNG: Final = 20_000
"""Objects between two collections: more than a batch of readings makes and lets go again. Python's 700 looks at each
of them three times while it is under way, about a fifth of the time that a reading takes."""


def settle() -> None:
    """Call it once, when everything that stays is loaded (devices, projections): it is not searched for garbage any
    more. What is made afterwards is collected as ever, a little later."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 10, 10)
