"""The peers of a connection: who is asked first, and who rests after a failure."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from flexrelay.ledger.fabric.channel import PeerChannel
from flexrelay.ledger.port import LedgerError

_LOG = logging.getLogger(__name__)
_FIRST_REST_S = 0.2
_LONGEST_REST_S = 5.0
_HANGING_REST_S = 20.0
_DISTRUST_S = 300.0


class PeerPool:
    """Own organisation's peers first, in the profile's order; a peer that failed rests for a while (doubling up to 5 s,
    20 s when it hangs) and is then asked again. With nobody awake the one that wakes first is asked."""

    def __init__(self, peers: Sequence[PeerChannel], org: str, now: Callable[[], float] = time.monotonic) -> None:
        self._own = [peer for peer in peers if peer.org == org]
        self._others = [peer for peer in peers if peer.org != org]
        self._now = now
        self._rests: dict[str, tuple[float, float]] = {}
        self._attended: dict[str, dict[asyncio.Task[object], bool]] = {}
        self._lies: dict[str, tuple[float, str]] = {}
        self._why: dict[str, str] = {}

    def order(self, *, own_only: bool = False) -> list[PeerChannel]:
        """All peers in the order in which to try them."""
        now = self._now()
        peers = self._own if own_only else [*self._own, *self._others]
        return sorted(peers, key=lambda peer: max(self._rests.get(peer.address, (0.0, 0.0))[0] - now, 0.0))

    def is_own(self, peer: PeerChannel) -> bool:
        return peer in self._own

    def others(self) -> list[PeerChannel]:
        """Peers of other organisations."""
        return [peer for peer in self.order() if peer in self._others]

    def at(self, address: str) -> PeerChannel | None:
        """The peer with this address, when the profile names it."""
        return next((peer for peer in (*self._own, *self._others) if peer.address == address), None)

    def failed(self, peer: PeerChannel, why: str, *, hangs: bool = False) -> None:
        """`hangs`: it does not answer in time, so every try costs a whole deadline; it rests longer."""
        now = self._now()
        self._why[peer.address] = why
        until, last = self._rests.get(peer.address, (0.0, 0.0))
        if until > now:
            return
        rest = _HANGING_REST_S if hangs else min(max(last * 2, _FIRST_REST_S), _LONGEST_REST_S)
        self._rests[peer.address] = (now + rest * random.uniform(0.75, 1.25), rest)  # noqa: S311 (jitter)
        _LOG.warning("peer %s of %s failed and rests for %.1f s: %s", peer.address, peer.org, rest, why)

    @contextmanager
    def attending(self, peer: PeerChannel, ends: type[LedgerError], tx_id: str) -> Iterator[None]:
        """Around one call of a peer: when it is found out meanwhile that the peer hangs, the call ends with `ends`."""
        task = asyncio.current_task()
        assert task is not None
        tasks = self._attended.setdefault(peer.address, {})
        cancelling = task.cancelling()
        tasks[task] = False
        try:
            yield
        except asyncio.CancelledError:
            if tasks[task] and task.uncancel() <= cancelling:
                raise ends(f"peer {peer.address} of {peer.org} hangs: it answers no other call", tx_id) from None
            raise
        finally:
            del tasks[task]

    def give_up(self, peer: PeerChannel) -> None:
        """It is known that this peer hangs: nobody waits for it any longer."""
        self.failed(peer, "it hangs", hangs=True)
        tasks = self._attended.get(peer.address, {})
        for task in tasks:
            tasks[task] = True
            task.cancel()

    def lied(self, peer: PeerChannel, why: str) -> None:
        """What it told is not proved by its signatures: it is the last to be asked for some minutes."""
        self._lies[peer.address] = (self._now() + _DISTRUST_S, why)
        self._rests[peer.address] = (self._now() + _DISTRUST_S, _LONGEST_REST_S)
        _LOG.error("peer %s of %s is not believed for %.0f s: %s", peer.address, peer.org, _DISTRUST_S, why)

    @property
    def trouble(self) -> str:
        """Which peers are not believed now, and why; "" when all are."""
        now = self._now()
        found = [
            f"peer {address} is not believed: {why}" for address, (until, why) in self._lies.items() if until > now
        ]
        return "; ".join(found)

    @property
    def failures(self) -> dict[str, str]:
        """`address of organisation` → why, of each peer that has failed and not answered since."""
        peers = [*self._own, *self._others]
        return {f"{peer.address} of {peer.org}": self._why[peer.address] for peer in peers if peer.address in self._why}

    def good(self, peer: PeerChannel) -> None:
        self._why.pop(peer.address, None)
        if self._rests and (found := self._rests.get(peer.address)) and found[0] <= self._now():
            del self._rests[peer.address]

    async def close(self) -> None:
        for peer in [*self._own, *self._others]:
            await peer.close()
