"""Who is asked first: own peers, then others; whoever failed rests, for longer each time."""

from dataclasses import dataclass
from typing import Any

import pytest

from flexrelay.ledger.fabric.pool import PeerPool


@dataclass(frozen=True)
class Named:
    """As much of a peer as the pool looks at."""

    org: str
    address: str


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


PEERS: list[Any] = [Named("agga", "a"), Named("dso", "d0"), Named("dso", "d1")]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pool(clock: Clock) -> PeerPool:
    return PeerPool(PEERS, "dso", clock)


def order(pool: PeerPool, *, own_only: bool = False) -> list[str]:
    return [peer.address for peer in pool.order(own_only=own_only)]


def test_own_peers_come_first(pool: PeerPool) -> None:
    assert order(pool) == ["d0", "d1", "a"]
    assert order(pool, own_only=True) == ["d0", "d1"]
    assert [peer.address for peer in pool.others()] == ["a"]


def test_who_failed_rests_and_is_asked_again(pool: PeerPool, clock: Clock) -> None:
    pool.failed(PEERS[1], "test")
    assert order(pool) == ["d1", "a", "d0"]
    clock.now += 0.3
    assert order(pool) == ["d0", "d1", "a"]


def test_rests_grow_to_five_seconds(pool: PeerPool, clock: Clock) -> None:
    for _ in range(10):
        pool.failed(PEERS[1], "test")
        clock.now += 6.3
    pool.failed(PEERS[1], "test")
    clock.now += 3.7
    assert order(pool)[-1] == "d0"
    clock.now += 2.6
    assert order(pool)[0] == "d0"


def test_a_success_ends_the_growth(pool: PeerPool, clock: Clock) -> None:
    for _ in range(5):
        pool.failed(PEERS[1], "test")
        clock.now += 6.3
    pool.good(PEERS[1])
    pool.failed(PEERS[1], "test")
    clock.now += 0.3
    assert order(pool)[0] == "d0"


def test_one_that_hangs_or_lies_rests_longer(pool: PeerPool, clock: Clock) -> None:
    pool.failed(PEERS[1], "test", hangs=True)
    pool.lied(PEERS[2], "test")
    clock.now += 14.0
    assert order(pool) == ["a", "d0", "d1"]
    clock.now += 12.0
    assert order(pool) == ["d0", "a", "d1"]
    clock.now += 300.0
    assert order(pool) == ["d0", "d1", "a"]


def test_operators_are_told_who_is_not_believed_while_it_lasts(pool: PeerPool, clock: Clock) -> None:
    assert pool.trouble == ""
    pool.lied(PEERS[1], "block 7 is signed by nobody")
    assert pool.trouble == "peer d0 is not believed: block 7 is signed by nobody"
    clock.now += 301.0
    assert pool.trouble == ""


def test_with_nobody_awake_the_first_to_wake_is_asked(pool: PeerPool) -> None:
    pool.lied(PEERS[0], "test")
    pool.failed(PEERS[1], "test")
    pool.failed(PEERS[2], "test", hangs=True)
    assert order(pool) == ["d0", "d1", "a"]
