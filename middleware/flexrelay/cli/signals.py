"""SIGINT and SIGTERM: a command that runs until then stops in good order, however often they come."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_BOTH: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def asked_to_stop(ask: Callable[[], object]) -> Iterator[None]:
    """While the block runs, on the main thread's loop, a signal calls `ask`. From its end on they do nothing: the
    process ends then, and Ctrl-C pressed once more is no traceback out of a loop that closes.

    Not by `add_signal_handler`: closing the loop, asyncio gives SIGINT its default back.
    """
    loop = asyncio.get_running_loop()
    for number in _BOTH:
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(ask))
    try:
        yield
    finally:
        for number in _BOTH:
            signal.signal(number, signal.SIG_IGN)
