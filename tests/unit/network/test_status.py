"""What a process' status says of one that works and has come to a stand."""

from __future__ import annotations

import pytest

from flexrelay.cli.network import _state
from flexrelay.network import ProcessStatus
from flexrelay.network.network import BEHIND, _behind


def status(*, healthy: bool, behind: int, pid: int | None = 1) -> ProcessStatus:
    return ProcessStatus("orderer0", "orderer", "orderer", pid, "", "", healthy, {}, "", behind)


@pytest.mark.parametrize(
    ("healthy", "behind", "pid", "good", "text"),
    [
        (True, 0, 1, True, "up"),
        (True, BEHIND, 1, True, "up"),
        (True, BEHIND + 1, 1, False, f"{BEHIND + 1} blocks behind"),
        (False, 0, 1, False, "does not answer"),
        (False, 0, None, False, "down"),
    ],
)
def test_one_that_stays_behind_is_not_good(healthy: bool, behind: int, pid: int | None, good: bool, text: str) -> None:
    found = status(healthy=healthy, behind=behind, pid=pid)
    assert (found.good, _state(found)) == (good, text)


def test_the_channel_where_most_is_missing_counts() -> None:
    highest = {"market": 500, "grid": 20}
    assert _behind({"market": 499, "grid": 3}, highest) == 17
    assert _behind({"market": 500}, highest) == 0
    assert _behind({}, highest) == 0  # a contract's process has no blocks
