"""Anchoring: at every interval of market time, close what is due, make one root, and hand it to the outbox."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from typing import Final

from flexrelay.identity.intents import sign_intent
from flexrelay.identity.signer import Signer
from flexrelay.outbox import Options, Outbox, OutboxFull, OutboxId
from flexrelay.store import StoreUnavailable
from flexrelay.windows.windows import ANCHOR, Anchor, Windows

_LOG = logging.getLogger(__name__)

LIFETIME_MS: Final = 3_600_000
"""An anchor may take an hour to the ledger; later ones do not wait for it. One that expired is handed over again."""
_TICK_S: Final = 0.2
_RETRY_S: Final = 1.0


class Anchoring:
    """Runs the windows of one gateway. `market_now` and `wall_now` give UTC ms; `every_ms` is market time."""

    def __init__(
        self,
        windows: Windows,
        outbox: Outbox,
        signer: Signer,
        network: str,
        market_now: Callable[[], int],
        wall_now: Callable[[], int],
        every_ms: int,
    ) -> None:
        self._windows = windows
        self._outbox = outbox
        self._signer = signer
        self._network = network
        self._market_now = market_now
        self._wall_now = wall_now
        self._every_ms = every_ms
        self._turn = asyncio.Lock()
        self.withheld = 0
        """Readings that their device observed after it was suspended or deactivated, as of the last step."""

    async def run(self) -> None:
        """Step at every multiple of the interval, until cancelled; what store or outbox cannot take is tried again."""
        last = -1
        while True:
            turn = self._market_now() // self._every_ms
            if turn != last:
                try:
                    await self.step()
                    last = turn
                except (StoreUnavailable, OutboxFull) as error:
                    _LOG.warning("windows cannot be closed or anchored now: %s; trying again", error)
                    await asyncio.sleep(_RETRY_S)
            await asyncio.sleep(_TICK_S)

    async def step(self) -> list[OutboxId]:
        """Close, anchor and hand over what is due now; the outbox entries of the anchors that were handed over."""
        entries: list[OutboxId] = []
        async with self._turn:
            now = self._market_now()
            self.withheld = (await self._windows.close(now)).withheld
            await self._windows.anchor(now)

            def add(connection: sqlite3.Connection, anchor: Anchor, intent: bytes) -> None:
                options = Options(correlation_id=anchor.anchor_id)
                entries.append(self._outbox.add_in(connection, intent, options))

            await self._windows.hand_over(self._sign, add)
            entries += await self._again()
        return entries

    async def _again(self) -> list[OutboxId]:
        """Hand over again what expired: the ledger was away for longer than an intent lives. The new intent has an id
        of its own; the expired one can never commit."""
        entries = []
        for anchor in await self._windows.anchors(await self._outbox.lapsed(ANCHOR)):
            last = (await self._outbox.by_correlation(anchor.anchor_id))[-1].intent_id  # older ones may be purged
            turn = int(last.removeprefix(anchor.anchor_id).removeprefix(".") or 1) + 1
            intent = await self._sign(anchor, turn)
            entries.append(await self._outbox.add(intent, correlation_id=anchor.anchor_id))
            _LOG.warning("anchor %s expired before the ledger took it; handed over again", anchor.anchor_id)
        return entries

    async def _sign(self, anchor: Anchor, turn: int = 1) -> bytes:
        deadline = self._wall_now() + LIFETIME_MS
        intent_id = anchor.anchor_id if turn == 1 else f"{anchor.anchor_id}.{turn}"
        return await sign_intent(self._signer, self._network, ANCHOR, anchor.args(), deadline, intent_id)
