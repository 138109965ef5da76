"""The calls of Fabric's gateway service, over the pool's peers: bounded in flight, with fail-over and deadlines."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc.aio

from flexrelay.ledger.fabric.channel import PeerChannel
from flexrelay.ledger.fabric.currency import Currency, Sight
from flexrelay.ledger.fabric.errors import Behind, EndorsedResult, EndorsementMismatch, TookTooLong, Untrusted
from flexrelay.ledger.fabric.failures import (
    Failure,
    execution_error,
    raise_contract_failure,
    refusal_code,
    submit_error,
)
from flexrelay.ledger.fabric.identity import Identity
from flexrelay.ledger.fabric.messages import (
    EndorseRequest,
    Envelope,
    EvaluateRequest,
    SignedProposal,
    SubmitRequest,
)
from flexrelay.ledger.fabric.msp import Trust
from flexrelay.ledger.fabric.pool import PeerPool
from flexrelay.ledger.fabric.proposal import Endorsed, Unsigned, check_endorsed, propose
from flexrelay.ledger.port import LedgerError, LedgerUnavailable, OutcomeUnknown, Rejected
from flexrelay_contracts.refusal import Refused

_LOG = logging.getLogger(__name__)
_OF_ONE = "private_not_member"
_CATCH_UP_S = 0.05


@dataclass(frozen=True, slots=True)
class Limits:
    """Deadlines in seconds, and how many calls may be under way at once (a peer serves 500 for all its clients)."""

    evaluate_s: float = 10.0
    endorse_s: float = 30.0
    submit_s: float = 20.0
    in_flight: int = 64


class Gateway:
    """One gateway's calls on one channel."""

    def __init__(self, channel: str, identity: Identity, pool: PeerPool, trust: Trust, limits: Limits) -> None:
        self._channel = channel
        self._identity = identity
        self._pool = pool
        self._trust = trust
        self._limits = limits
        self._room = asyncio.Semaphore(limits.in_flight)
        self._currency = Currency(channel, identity, pool)

    def look_by(self, sight: Sight) -> None:
        """What has been seen of the chain is known there from now on; until then every peer is good enough."""
        self._currency.sight = sight

    async def evaluate(
        self,
        chaincode: str,
        args: Sequence[bytes],
        timestamp_ms: int,
        *,
        peer: PeerChannel | None = None,
        own_only: bool = False,
        timeout_s: float | None = None,
        current: bool = False,
    ) -> bytes:
        """The answer of a query: from the asked peer, or from the first of the pool (of the own ones) that can answer.

        The executing organisation is always the asked peer's own, so that a dead chaincode is not hidden by another's.
        `current`: only from a peer that holds every block that was seen when this began; while none does, they are
        asked again within the time of one answer.
        Raises Refused, Rejected, AccessDenied, TookTooLong, LedgerUnavailable.
        """
        self._identity.renew()
        self._identity.check()
        unsigned = propose(self._channel, chaincode, args, self._identity.creator, timestamp_ms)
        signed = await self._signed(unsigned)
        limit = self._limits.evaluate_s if timeout_s is None else timeout_s
        loop = asyncio.get_running_loop()
        until, seen = loop.time() + limit, self._currency.sight.seen if current else 0
        while True:
            try:
                return await self._evaluated(unsigned, signed, limit, peer, own_only, seen)
            except Behind:
                if loop.time() > until:
                    raise
                await asyncio.sleep(_CATCH_UP_S)

    async def _evaluated(
        self, unsigned: Unsigned, signed: Any, limit: float, peer: PeerChannel | None, own_only: bool, seen: int
    ) -> bytes:
        """One try at each candidate. Raises Behind when one of them would answer, but lacks blocks that were seen."""
        error: LedgerError | None = None
        async with self._room:
            for candidate in [peer] if peer else self._pool.order(own_only=own_only):
                try:
                    await self._currency.demand(candidate, seen)
                except Behind as behind:
                    error = behind
                    continue
                except LedgerError as silent:
                    error = error or silent
                    continue
                request = EvaluateRequest(
                    transaction_id=unsigned.tx_id,
                    channel_id=self._channel,
                    proposed_transaction=signed,
                    target_organizations=[candidate.org],
                )
                try:
                    with self._pool.attending(candidate, LedgerUnavailable, unsigned.tx_id):
                        response = await candidate.evaluate(request, limit)
                except LedgerUnavailable as hung:
                    error = error or hung
                    continue
                except grpc.aio.AioRpcError as rpc_error:
                    failure = Failure.of(rpc_error, candidate.address)
                    found = _execution_failure(failure)
                    if isinstance(found, Refused) and self._is_a_strangers(found, candidate, peer):
                        error = error or _stranger(candidate, found)
                        continue
                    if isinstance(found, LedgerUnavailable) and not isinstance(found, TookTooLong):
                        if failure.peer_failed:
                            self._pool.failed(candidate, failure.message, hangs=failure.hangs)
                        error = error or found
                        continue
                    raise found from None
                self._pool.good(candidate)
                result: bytes = response.result.payload
                return result
        raise error or LedgerUnavailable("the profile names no peer that could be asked")

    async def executed(self, peer: PeerChannel, chaincode: str, args: Sequence[bytes], timestamp_ms: int) -> bytes:
        """The answer of this very peer; `evaluate` may have another one of its organisation execute.

        Raises Refused, Rejected, AccessDenied, TookTooLong, LedgerUnavailable.
        """
        unsigned = propose(self._channel, chaincode, args, self._identity.creator, timestamp_ms)
        try:
            async with self._room:
                response = (await peer.execute(await self._signed(unsigned), self._limits.evaluate_s)).response
        except grpc.aio.AioRpcError as rpc_error:
            raise _execution_failure(Failure.of(rpc_error, peer.address)) from None
        if not 200 <= response.status < 400:
            raise _execution_failure(Failure.in_words(response.status, response.message, peer.address))
        payload: bytes = response.payload
        return payload

    def _is_a_strangers(self, refused: Refused, peer: PeerChannel, asked: PeerChannel | None = None) -> bool:
        """Whether a peer that stands in for the own ones, which rest, only says that it may not read the collection."""
        return refused.code == _OF_ONE and asked is None and not self._pool.is_own(peer)

    async def height(self, peer: PeerChannel) -> int:
        """How many blocks this very peer has. Raises LedgerError."""
        return await self._currency.height(peer)

    async def endorse(
        self,
        chaincode: str,
        args: Sequence[bytes],
        timestamp_ms: int,
        transient: Mapping[str, bytes],
        orgs: Sequence[str],
    ) -> tuple[Unsigned, bytes, Endorsed]:
        """(proposal, payload of the envelope to be signed, what the endorsers signed).

        Without `orgs` the peer plans who endorses. Transient values go to peers of the own organisation only.
        Raises Refused (by a peer that holds all that was seen of the chain), Rejected, AccessDenied, TookTooLong,
        LedgerUnavailable, EndorsementMismatch, Untrusted.
        """
        self._identity.renew()
        self._identity.check()
        unsigned = propose(self._channel, chaincode, args, self._identity.creator, timestamp_ms, transient)
        signed = await self._signed(unsigned)
        error: LedgerError | None = None
        async with self._room:
            for peer in self._pool.order(own_only=bool(transient)):
                try:
                    payload, endorsed = await self._endorse_at(peer, unsigned, signed, orgs, private=bool(transient))
                except TookTooLong:
                    raise
                except LedgerUnavailable as found:
                    _LOG.warning("no endorsement through peer %s of %s: %s", peer.address, peer.org, found)
                    error = error or found
                    continue
                except Untrusted as found:
                    self._pool.lied(peer, str(found))
                    error = found
                    continue
                self._pool.good(peer)
                return unsigned, payload, endorsed
        raise error or LedgerUnavailable("the profile names no peer that could be asked", unsigned.tx_id)

    async def _endorse_at(
        self, peer: PeerChannel, unsigned: Unsigned, signed: Any, orgs: Sequence[str], *, private: bool
    ) -> tuple[bytes, Endorsed]:
        request = EndorseRequest(
            transaction_id=unsigned.tx_id,
            channel_id=self._channel,
            proposed_transaction=signed,
            endorsing_organizations=orgs,
        )
        current = self._currency.holding()
        for tried in (False, True):
            try:
                with self._pool.attending(peer, LedgerUnavailable, unsigned.tx_id):
                    response = await peer.endorse(request, self._limits.endorse_s)
            except grpc.aio.AioRpcError as rpc_error:
                failure = Failure.of(rpc_error, peer.address)
                if failure.mismatch or _refused_elsewhere(failure, peer, orgs):
                    asked = orgs or (self._trust.orgs("peer") if not private else {peer.org, *failure.orgs})
                    results = await self._each(peer, unsigned, signed, sorted(asked))
                    if _disagree(results):
                        raise EndorsementMismatch(
                            f"the organisations' peers disagree on this transaction: {_disagreement(results)}",
                            results,
                            unsigned.tx_id,
                            behind=_behind(results),
                        ) from None
                    if not any(item.refusal for item in results.values()):  # one of them was a block behind
                        text = "the organisations' peers disagreed, and agree by now"
                        raise LedgerUnavailable(text, unsigned.tx_id) from None
                if refusal_code(failure) and not current.believes(failure, peer):
                    # Only a peer that held all of it before it executed can say no for good: once more, then.
                    await current.catch_up(failure, peer, last=tried)
                    continue
                try:
                    raise_contract_failure(failure, unsigned.tx_id)
                except Refused as refused:
                    if not orgs and self._is_a_strangers(refused, peer):
                        raise _stranger(peer, refused) from None
                    raise
                if failure.peer_failed:
                    self._pool.failed(peer, failure.message, hangs=failure.hangs)
                raise execution_error(failure, unsigned.tx_id) from None
            payload: bytes = response.prepared_transaction.payload
            return payload, check_endorsed(unsigned, payload, self._trust, orgs)
        raise AssertionError("the second try ends")

    async def _each(
        self, peer: PeerChannel, unsigned: Unsigned, signed: Any, orgs: Sequence[str]
    ) -> dict[str, EndorsedResult]:
        """What each organisation's peer gives for the proposal. Nothing of it is ordered."""
        found: dict[str, EndorsedResult] = {}
        for org in orgs:
            request = EndorseRequest(
                transaction_id=unsigned.tx_id,
                channel_id=self._channel,
                proposed_transaction=signed,
                endorsing_organizations=[org],
            )
            try:
                response = await peer.endorse(request, self._limits.endorse_s)
                endorsed = check_endorsed(unsigned, response.prepared_transaction.payload, self._trust, [org])
            except grpc.aio.AioRpcError as rpc_error:
                failure = Failure.of(rpc_error, peer.address)
                found[org] = EndorsedResult("", "", failure.text(), refusal_code(failure))
            except Untrusted as error:
                found[org] = EndorsedResult("", "", str(error))
            else:
                result = endorsed.result.decode(errors="replace")
                found[org] = EndorsedResult(result, endorsed.digest, reads=endorsed.reads())
        return found

    async def submit(self, tx_id: str, envelope: Any) -> None:
        """Order a signed envelope through any peer. Raises OutcomeUnknown, LedgerUnavailable, Rejected."""
        request = SubmitRequest(transaction_id=tx_id, channel_id=self._channel, prepared_transaction=envelope)
        unknown: LedgerError | None = None
        unavailable: LedgerError | None = None
        async with self._room:
            for peer in self._pool.order():
                try:
                    with self._pool.attending(peer, OutcomeUnknown, tx_id):
                        await peer.submit(request, self._limits.submit_s)
                except OutcomeUnknown as hung:
                    unknown = unknown or hung
                except grpc.aio.AioRpcError as rpc_error:
                    failure = Failure.of(rpc_error, peer.address)
                    error = submit_error(failure, tx_id)
                    if error is None:
                        return
                    if not isinstance(error, LedgerUnavailable | OutcomeUnknown):
                        raise (unknown or error) from None
                    if failure.peer_failed:
                        self._pool.failed(peer, failure.message, hangs=failure.hangs)
                    if isinstance(error, OutcomeUnknown):
                        unknown = unknown or error
                        if failure.details:  # the orderers failed, not the peer: another peer would not help now
                            break
                    else:
                        unavailable = unavailable or error
                else:
                    self._pool.good(peer)
                    return
        raise unknown or unavailable or LedgerUnavailable("the profile names no peer that could be asked", tx_id)

    async def _signed(self, unsigned: Unsigned) -> Any:
        return SignedProposal(proposal_bytes=unsigned.data, signature=await self._identity.sign(unsigned.data))

    async def sign_envelope(self, payload: bytes) -> Any:
        return Envelope(payload=payload, signature=await self._identity.sign(payload))


def _execution_failure(failure: Failure) -> LedgerError | Refused:
    try:
        raise_contract_failure(failure, "")
    except (Refused, Rejected, LedgerUnavailable) as found:
        return found
    return execution_error(failure)


def _stranger(peer: PeerChannel, refused: Refused) -> LedgerUnavailable:
    return LedgerUnavailable(
        f"peer {peer.address} of {peer.org} cannot stand in for the own organisation's, which do not answer: "
        f"{refused.message}"
    )


def _refused_elsewhere(failure: Failure, peer: PeerChannel, orgs: Sequence[str]) -> bool:
    """Whether only other organisations' peers failed: then what a contract said there is not the whole truth. That peer
    may be a block behind, or run another version. That it is no member of a collection is true of it alone."""
    there, code = failure.orgs, refusal_code(failure)
    own = peer.org not in there and (not orgs or peer.org in orgs)
    return bool(there) and own and code not in ("", _OF_ONE)


def _disagree(results: Mapping[str, EndorsedResult]) -> bool:
    """Whether two peers executed the contract with different ends; a peer that cannot be reached has none."""
    ends = {item.digest or item.refusal for item in results.values()}
    return len(ends - {""}) > 1


def _behind(results: Mapping[str, EndorsedResult]) -> bool:
    """Whether the difference may come from different states only: the same key or range was another at two peers, or
    one of them refused and showed nothing of what it read."""
    seen: dict[tuple[str, ...], bytes] = {}
    different = False
    for item in results.values():
        different = different or bool(item.refusal)
        different = different or any(seen.setdefault(what, version) != version for what, version in item.reads.items())
    return different


def _disagreement(results: Mapping[str, EndorsedResult]) -> str:
    return "; ".join(
        f"{org}: {item.error}" if item.error else f"{org}: result {item.result[:200]}, digest {item.digest[:16]}…"
        for org, item in results.items()
    )
