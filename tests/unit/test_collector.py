"""The garbage collector after start-up: what stays is not searched, what is made afterwards still is."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from flexrelay.collector import settle


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


class Ring:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


def test_what_is_loaded_is_not_searched_and_later_garbage_still_goes() -> None:
    before = Ring()
    settle()
    assert gc.get_freeze_count() > 10_000
    assert all(item is not before for item in gc.get_objects())
    later = weakref.ref(Ring())
    kept = [[] for _ in range(gc.get_threshold()[0] + 1000)]  # type: ignore[var-annotated]  # objects to count
    assert later() is None
    assert kept
