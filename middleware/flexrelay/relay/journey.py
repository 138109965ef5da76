"""One entry's way from the outbox to its end.

prepare → keep transaction id and envelope → submit → outcome. What keeps it to one end:
- an envelope is kept before it is submitted, so after any failure or restart its status can be asked;
- it is submitted again only after the ledger was asked and has no block for it, and always as the same envelope;
- a new transaction under the same intent is harmless at any time: all read the intent's marker, so one commits at most;
- expired is said only when no envelope exists that may commit, or when the ledger holds the intent's void.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flexrelay.ledger.port import (
    Call,
    Committed,
    Ledger,
    LedgerError,
    LedgerUnavailable,
    NeedsAttention,
    NotFound,
    Prepared,
    Rejected,
    TxEvents,
    Validation,
)
from flexrelay.outbox import Attempt, CommittedIntent, Entry, ExpiredIntent, Outbox, Outcome, RefusedIntent, State
from flexrelay.relay.alarms import Alarms
from flexrelay.relay.follower import Follower
from flexrelay_contracts.refusal import Refused
from flexrelay_schemas.encoding import b64u

logger = logging.getLogger(__name__)

SignIntent = Callable[[str, Mapping[str, Any], int], Awaitable[bytes]]
"""(function, args, deadline in UTC ms) → the encoded intent, signed by the gateway with a new intent id."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Waits of a journey, in seconds unless named otherwise."""

    recheck: float = 2.0
    """No block after this long: ask the status. Doubles up to `longest`."""
    pause: float = 0.05
    """After a failure; doubles up to `longest`, with jitter."""
    longest: float = 10.0
    void_margin_ms: int = 1_000
    """How long after the deadline an intent whose envelope may be on its way is voided."""
    void_life_ms: int = 120_000
    """Deadline of a void from its signing."""
    rejections: int = 3
    """Fresh envelopes that the ledger rejects one after the other before the entry is refused."""


class Journey:
    """Carries one entry; `run` may be cancelled at any point and started again from what is stored."""

    def __init__(
        self,
        entry: Entry,
        ledger: Ledger,
        outbox: Outbox,
        follower: Follower,
        sign: SignIntent | None,
        pace: Pace,
        alarms: Alarms,
    ) -> None:
        self._entry = entry
        self._ledger = ledger
        self._outbox = outbox
        self._follower = follower
        self._sign = sign
        self._pace = pace
        self._alarms = alarms
        self._live: list[Attempt] = []
        self._unsent: set[str] = set()
        self._stale: set[str] = set()
        self._failures = 0
        self._rejections = 0
        self._noted: tuple[State, str] = (entry.state, entry.tx_id)
        self._refusal: RefusedIntent | None = None

    async def run(self) -> Outcome:
        """Until the entry has ended."""
        if self._entry.state is not State.PENDING:
            self._live = [a for a in await self._outbox.attempts(self._entry.id) if a.validation is None]
        while True:
            try:
                outcome = await self._round()
                self._alarms.over(self._entry.id)
            except NeedsAttention as error:
                if self._alarms.met(self._entry.id, self._entry.intent_id, error):
                    state, tx_id = self._noted
                    await self._outbox.record_state(self._entry, state, tx_id, f"{error.alarm}: {error}")
                outcome = None
                await self._pause()
            except LedgerError as error:
                logger.info("intent %s: %s; trying again", self._entry.intent_id, error)
                outcome = None
                await self._pause()
            if outcome is not None:
                return await self._outbox.conclude(self._entry, outcome)

    async def _round(self) -> Outcome | None:
        outcome = await self._ask()
        if outcome is not None:
            return outcome
        role = "intent"
        if self._outbox.clock() > self._entry.deadline:
            if not any(attempt.role == "intent" for attempt in self._live):
                return await self._lapse()
            role = "void"
        attempt = next((a for a in self._live if a.role == role and a.tx_id not in self._stale), None)
        if attempt is None:
            prepared = await (self._prepare() if role == "intent" else self._prepare_void())
            if not isinstance(prepared, Attempt):
                return prepared
            attempt = prepared
        return await self._submit(attempt)

    async def _ask(self) -> Outcome | None:
        """What the ledger says about every envelope that may be out there."""
        for attempt in list(self._live):
            if attempt.tx_id not in self._unsent:
                status = await self._ledger.status(attempt.tx_id)
                match status:
                    case Committed(_, block, validation):
                        outcome = await self._judge(attempt, validation, block)
                        if outcome is not None:
                            return outcome
                    case NotFound():
                        pass
        return None

    async def _judge(self, attempt: Attempt, validation: Validation, block: int) -> Outcome | None:
        """A block holds the attempt."""
        if validation is Validation.VALID:
            if attempt.role == "intent":
                return CommittedIntent(attempt.tx_id, block, attempt.result)
            return self._refusal or ExpiredIntent(attempt.tx_id)
        if validation is Validation.DUPLICATE_TXID:
            return None  # a later copy; the first one counts, and `status` knows it
        self._live.remove(attempt)
        why = f"{validation.value} in block {block}"
        await self._outbox.record_dead(self._entry, attempt, validation, block, why)
        self._noted = (State.CONFLICTED, attempt.tx_id)
        if not validation.conflict and attempt.role == "intent":
            return await self._reject(why)
        await self._pause()
        return None

    async def _prepare(self) -> Attempt | Outcome | None:
        """A new transaction under the entry's intent, kept; or the end when the contract refuses."""
        call = Call(self._entry.intent, self._entry.transient, self._entry.endorsing_orgs)
        try:
            prepared = await self._ledger.prepare(call)
        except Refused as error:
            return await self._refused(error)
        except Rejected as error:
            return await self._reject(str(error))
        await self._outbox.record_prepared(self._entry, prepared)
        self._noted = (State.PREPARED, prepared.tx_id)
        return self._keep(prepared, "intent")

    async def _refused(self, error: Refused) -> Outcome | None:
        if error.code == "intent_used":  # by an envelope of ours that was lost from sight, or through another gateway
            outcome = await self._marked()
            if outcome is not None:
                return outcome
            await self._pause()
            return None
        if error.code == "expired":  # the ledger's clock is ahead of ours
            if not self._live:
                return await self._lapse()
            await self._pause()
            return None
        self._refusal = RefusedIntent(error.code, error.message, error.field)
        return await self._end_refused()

    async def _reject(self, why: str) -> Outcome | None:
        """The ledger does not take what was made; after some fresh tries that is the end."""
        self._rejections += 1
        logger.warning("intent %s was rejected by the ledger: %s", self._entry.intent_id, why)
        if self._rejections < self._pace.rejections:
            await self._pause()
            return None
        self._refusal = RefusedIntent("rejected", why, "")
        return await self._end_refused()

    async def _end_refused(self) -> Outcome | None:
        """Refused is an end only when none of our envelopes may commit any more."""
        if not self._live:
            return self._refusal
        await self._pause()
        return None

    async def _prepare_void(self) -> Attempt | Outcome | None:
        wait_ms = self._entry.deadline + self._pace.void_margin_ms - self._outbox.clock()
        if wait_ms > 0 or self._sign is None:
            await self._note(State.VOIDING, "", "waiting to void" if self._sign else "no signer for a void: asking on")
            await asyncio.sleep(max(wait_ms / 1000, self._pace.pause if self._sign else self._pace.recheck))
            return None
        deadline = self._outbox.clock() + self._pace.void_life_ms
        void = await self._sign("intents.void", {"intent": b64u(self._entry.intent)}, deadline)
        try:
            prepared = await self._ledger.prepare(Call(void))
        except Refused as error:
            outcome = await self._marked()
            if outcome is None:
                logger.warning("the void of intent %s was refused: %s", self._entry.intent_id, error)
                await self._note(State.VOIDING, "", str(error))
                await self._pause()
            return outcome
        await self._outbox.record_prepared(self._entry, prepared, "void")
        self._noted = (State.VOIDING, prepared.tx_id)
        return self._keep(prepared, "void")

    async def _submit(self, attempt: Attempt) -> Outcome | None:
        """Submit, and wait for the block."""
        fresh = attempt.tx_id in self._unsent
        self._unsent.discard(attempt.tx_id)
        with self._follower.watch(attempt.tx_id) as seen:
            try:
                await self._ledger.submit(attempt.envelope)
            except Rejected as error:
                return await self._not_taken(attempt, error, fresh)
            except LedgerUnavailable:
                raise
            except LedgerError as error:
                await self._note(self._state(attempt, State.UNKNOWN), attempt.tx_id, str(error))
                raise
            await self._note(self._state(attempt, State.SUBMITTED), attempt.tx_id)
            tx = await self._block(attempt, seen)
        if tx is None:
            await self._note(self._state(attempt, State.UNKNOWN), attempt.tx_id, "no block so far")
            self._failures += 1
            return None
        self._failures = 0
        return await self._judge(attempt, tx.validation, tx.block)

    async def _block(self, attempt: Attempt, seen: "asyncio.Future[TxEvents]") -> TxEvents | None:
        wait_s = min(self._pace.recheck * 2 ** min(self._failures, 10), self._pace.longest)
        if attempt.role == "intent":
            left_s = (self._entry.deadline - self._outbox.clock()) / 1000
            wait_s = min(wait_s, max(left_s, self._pace.pause))
        done, _ = await asyncio.wait([seen], timeout=wait_s)
        return seen.result() if done else None

    async def _not_taken(self, attempt: Attempt, error: Rejected, fresh: bool) -> Outcome | None:
        if fresh:  # it was never on its way
            self._live.remove(attempt)
            await self._outbox.record_dead(self._entry, attempt, Validation.INVALID, -1, str(error))
            if attempt.role == "intent":
                return await self._reject(str(error))
            await self._pause()
            return None
        self._stale.add(attempt.tx_id)  # an earlier submission may still be ordered: ask on, prepare another
        await self._note(self._state(attempt, State.UNKNOWN), attempt.tx_id, str(error))
        await self._pause()
        return None

    async def _lapse(self) -> Outcome | None:
        """The deadline has passed and no envelope of ours may commit."""
        return await self._marked() or self._refusal or ExpiredIntent("")

    async def _marked(self) -> Outcome | None:
        """The end that the intent's marker on the ledger tells, None without a marker."""
        args = {"actor": self._entry.actor, "intent_id": self._entry.intent_id}
        try:
            marker = await self._ledger.evaluate("intents.status", args)
        except Refused as error:
            logger.warning("intents.status was refused: %s", error)
            return None
        if not marker or marker.get("status") not in ("used", "void"):
            return None
        tx_id = str(marker.get("tx_id", ""))
        if marker["status"] == "void":
            return self._refusal or ExpiredIntent(tx_id)
        block = await self._block_of(tx_id)
        attempts = await self._outbox.attempts(self._entry.id)
        ours = next((attempt.result for attempt in attempts if attempt.tx_id == tx_id), {})
        return CommittedIntent(tx_id, block, ours)

    async def _block_of(self, tx_id: str) -> int:
        """The block of a transaction whose marker was seen; -1 when no peer has it (after a restore they begin
        later). Peers that execute may be ahead of the one whose blocks are followed."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._pace.longest
        while not isinstance(status := await self._ledger.status(tx_id), Committed):
            if loop.time() > until:
                return -1
            await asyncio.sleep(self._pace.pause)
        return status.block

    def _keep(self, prepared: Prepared, role: str) -> Attempt:
        now = self._outbox.clock()
        attempt = Attempt(prepared.tx_id, role, prepared.envelope, prepared.result, now, None, None)
        self._live.append(attempt)
        self._unsent.add(attempt.tx_id)
        self._alarms.over(self._entry.id)
        return attempt

    def _state(self, attempt: Attempt, state: State) -> State:
        return state if attempt.role == "intent" else State.VOIDING

    async def _note(self, state: State, tx_id: str, detail: str = "") -> None:
        """Record a step, once while it lasts."""
        if self._noted != (state, tx_id):
            self._noted = (state, tx_id)
            await self._outbox.record_state(self._entry, state, tx_id, detail)

    async def _pause(self) -> None:
        self._failures += 1
        seconds = min(self._pace.pause * 2 ** min(self._failures - 1, 10), self._pace.longest)
        await asyncio.sleep(seconds * random.uniform(0.5, 1.0))  # noqa: S311 - spread, no secret
