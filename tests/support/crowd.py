"""A crowd of good devices with hostile ones among them: how many, how much memory, and what must be true of it all."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import psutil

from flexrelay_sdk.testkit import RecordingSink

GOOD, HOSTILE = 1000, 100
MEMORY_BYTES = 256 * 2**20
"""By how much the process may grow, devices, sink and all; what a hostile device can claim is more than that."""


@contextmanager
def bounded_memory(most: int = MEMORY_BYTES) -> Iterator[None]:
    """Looks at the resident memory all the time."""
    process, over = psutil.Process(), threading.Event()
    before = process.memory_info().rss
    greatest = [before]

    def watch() -> None:
        while not over.wait(0.05):
            greatest[0] = max(greatest[0], process.memory_info().rss)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()
    grown = max(greatest[0], process.memory_info().rss) - before
    assert grown <= most, f"grew by {grown:,} bytes"


def nobody_was_disturbed(
    sink: RecordingSink, good: Mapping[str, Sequence[int]], hostile: Mapping[str, Counter[str]]
) -> None:
    """`good`: credential → its readings (power_w) in order, all stored. `hostile`: credential → reasons of its dead
    letters, one for each of its bad frames. Frames of nobody else came."""
    assert sink.faults == []
    stored: dict[str, list[int]] = {}
    for each in sink.stored:
        stored.setdefault(each.frame.credential, []).extend(m.registers["power_w"] for m in each.measurements)
    wrong = [(name, stored.get(name), list(told)) for name, told in good.items() if stored.get(name) != list(told)]
    assert not wrong, f"{len(wrong)} of {len(good)} good devices were disturbed, e.g. {wrong[:2]}"
    others = sorted(stored.keys() - good.keys())
    assert not others, f"readings of {len(others)} hostile devices were stored, e.g. {others[:3]}"
    letters: dict[str, Counter[str]] = {}
    for frame, reason in sink.dead:
        letters.setdefault(frame.credential, Counter())[reason] += 1
    assert letters.keys() <= hostile.keys(), f"dead letters of {sorted(letters.keys() - hostile.keys())[:3]}"
    wrong_letters = [(name, letters.get(name), told) for name, told in hostile.items() if letters.get(name) != told]
    assert not wrong_letters, f"{len(wrong_letters)} hostile ones were judged otherwise, e.g. {wrong_letters[:2]}"
