"""A desk: where an actor's (or a gateway's) intents are signed and put into its gateway's outbox.

The key stays behind the `Signer`; what leaves the desk is a signed intent. One desk is one actor on one gateway.
"""

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flexrelay.identity.intents import sign_intent
from flexrelay.identity.signer import Signer
from flexrelay.outbox import CommittedIntent, ExpiredIntent, Outbox, OutboxId, RefusedIntent
from flexrelay_contracts.refusal import Refused

log = logging.getLogger(__name__)

LIFETIME_MS: Final = 60_000
"""How long an intent may take to the ledger by default."""


class IntentExpired(Exception):
    """The intent did not reach the ledger before its deadline and never will; nothing of it was done."""


@dataclass(frozen=True, slots=True)
class Done:
    """A committed intent: the transaction, its block, and what the contract's function returned."""

    tx_id: str
    block: int
    result: Mapping[str, Any]


class Desk:
    """Signs and sends. `clock` gives wall-clock UTC ms."""

    def __init__(self, signer: Signer, network: str, outbox: Outbox, clock: Callable[[], int]) -> None:
        self._signer = signer
        self._network = network
        self._outbox = outbox
        self._clock = clock

    @property
    def did(self) -> str:
        return self._signer.did

    async def send(
        self,
        function: str,
        args: Mapping[str, Any],
        *,
        intent_id: str = "",
        transient: Mapping[str, bytes] | None = None,
        endorsing_orgs: Sequence[str] = (),
        correlation_id: str = "",
        ordering_key: str = "",
        gate: int | None = None,
        lifetime_ms: int = LIFETIME_MS,
    ) -> OutboxId:
        """Put a signed intent into the outbox; it is on disk when this returns.

        The same `intent_id` is the same intent, the one that was signed first: give one wherever a restart may come
        back to the same step.
        """
        if intent_id:
            known = await self._outbox.find(self.did, intent_id)
            if known is not None:
                return known.id
        intent = await sign_intent(
            self._signer,
            self._network,
            function,
            args,
            self._clock() + lifetime_ms,
            intent_id or secrets.token_hex(16),
        )
        return await self._outbox.add(
            intent,
            transient=transient,
            endorsing_orgs=endorsing_orgs,
            correlation_id=correlation_id,
            ordering_key=ordering_key,
            gate=gate,
        )

    async def wait(self, entry: OutboxId) -> Done:
        """Wait for the recorded end. Raises Refused (the contract said no) and IntentExpired."""
        match await self._outbox.wait(entry):
            case CommittedIntent(tx_id, block, result):
                return Done(tx_id, block, result)
            case RefusedIntent(code, message, field):
                raise Refused(code, message, field)
            case ExpiredIntent(tx_id):
                raise IntentExpired(f"outbox entry {entry} expired" + (f", voided in {tx_id}" if tx_id else ""))

    async def do(self, function: str, args: Mapping[str, Any], **options: Any) -> Done:
        """`send` and `wait`."""
        return await self.wait(await self.send(function, args, **options))


async def insist(desk: Desk, function: str, args: Mapping[str, Any], *, intent_id: str, **options: Any) -> Done:
    """`Desk.do`, again whenever it expired: the intent did nothing and never will, the next try has an id of its own.

    After a restart the same try is found again. Raises Refused.
    """
    number, wanted = 1, intent_id
    while True:
        try:
            return await desk.do(function, args, intent_id=wanted, **options)
        except IntentExpired as error:
            log.warning("%s of %s: %s; sent anew", function, desk.did, error)
            number += 1
            wanted = f"{intent_id}.{number}"
