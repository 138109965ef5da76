"""The ledger port on Hyperledger Fabric: a gateway's connection to a channel through its organisation's peers."""

import asyncio
import copy
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from google.protobuf.message import DecodeError

from flexrelay.ledger.fabric import deliver, startup
from flexrelay.ledger.fabric.blocks import items_of, transaction_events
from flexrelay.ledger.fabric.channel import PeerChannel
from flexrelay.ledger.fabric.errors import Untrusted
from flexrelay.ledger.fabric.follower import Follower, Vigilance
from flexrelay.ledger.fabric.gateway import Gateway, Limits
from flexrelay.ledger.fabric.identity import Identity
from flexrelay.ledger.fabric.members import NOT_MEMBER, check_members, touched_by
from flexrelay.ledger.fabric.messages import ChannelHeader, Envelope, Payload
from flexrelay.ledger.fabric.msp import Trust
from flexrelay.ledger.fabric.outcomes import Outcomes
from flexrelay.ledger.fabric.peerview import PeerView
from flexrelay.ledger.fabric.pool import PeerPool
from flexrelay.ledger.fabric.profile import Profile, load_profile
from flexrelay.ledger.fabric.system import System
from flexrelay.ledger.fabric.verification import verify_block
from flexrelay.ledger.fabric.views import block_view
from flexrelay.ledger.fabric.witness import Witness
from flexrelay.ledger.port import (
    BlockView,
    Call,
    Checkpoint,
    Committed,
    GatewaySigner,
    LedgerError,
    NotFound,
    Prepared,
    Rejected,
    TxEvents,
    TxStatus,
)
from flexrelay_contracts.invocation import query_args, submit_args
from flexrelay_contracts.refusal import Refused
from flexrelay_schemas.canonical import CanonicalError, parse
from flexrelay_sdk.clock import wall_ms

_LOG = logging.getLogger(__name__)
_STATUS_S: Final = 10.0
_FRESH_S: Final = 1.0
_SILENT_S: Final = 30.0


class FabricLedger:
    """A `Ledger` and `BlockReader`. Open it with `async with FabricLedger.open(profile, signer) as ledger`."""

    def __init__(
        self,
        profile: Profile,
        identity: Identity,
        gateway: Gateway,
        pool: PeerPool,
        system: System,
        trust: Trust,
        follower: Follower,
        witness: Witness,
        clock: Callable[[], int],
    ) -> None:
        self.profile = profile
        self._identity = identity
        self._gateway = gateway
        self._pool = pool
        self._system = system
        self._trust = trust
        self._follower = follower
        self._witness = witness
        self._clock = clock
        self._prepared_at: dict[str, int] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        profile: Profile | Path,
        signer: GatewaySigner | None = None,
        clock: Callable[[], int] = wall_ms,
        *,
        limits: Limits | None = None,
        vigilance: Vigilance | None = None,
    ) -> AsyncIterator["FabricLedger"]:
        """Connect, check that the network is what the profile says, and follow its blocks until the end.

        Raises ProfileError, NetworkMismatch, AccessDenied, LedgerUnavailable, Untrusted.
        """
        if isinstance(profile, Path):
            profile = await asyncio.to_thread(load_profile, profile)
        identity = Identity(profile, signer)
        trust = Trust.of(profile.organisations)
        startup.check_issuer(profile, identity, trust)
        peers = [PeerChannel(peer, number, profile.tls) for number, peer in enumerate(profile.peers)]
        pool = PeerPool(peers, profile.org)
        try:
            gateway = Gateway(profile.channel, identity, pool, trust, limits or Limits())
            system = System(profile.channel, gateway, wall_ms)
            height = await startup.check(profile, gateway, system, pool, wall_ms)
            watch = vigilance or Vigilance()
            follower = Follower(profile.channel, profile.chaincodes, identity, pool, trust, system, wall_ms, watch)
            witness = Witness(profile.channel, identity, pool, follower, wall_ms, watch.witness_s)
            await startup.consensus(profile, identity, pool, trust, system, follower, height, wall_ms)
            gateway.look_by(follower)
            running = [
                asyncio.create_task(follower.run(), name=f"fabric-follower-{profile.org}"),
                asyncio.create_task(witness.run(), name=f"fabric-witness-{profile.org}"),
            ]
            try:
                yield cls(profile, identity, gateway, pool, system, trust, follower, witness, clock)
            finally:
                follower.close()
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)
        finally:
            await pool.close()

    def with_clock(self, clock: Callable[[], int]) -> "FabricLedger":
        """The same connection, its transactions stamped by another clock (UTC ms)."""
        other = copy.copy(self)
        other._clock = clock
        return other

    def at_peer(self) -> PeerView:
        """The peer that would be asked first, by itself: for verifying what it holds."""
        peer = self._pool.order()[0]
        return PeerView(self.profile, peer, self._identity, self._gateway, wall_ms)

    @property
    def trust(self) -> Trust:
        """Whose signatures this connection believes."""
        return self._trust

    @property
    def org(self) -> str:
        return self._identity.org

    @property
    def identity(self) -> str:
        """The creator's identity as contracts see it: hex SHA-256 of the gateway's public key."""
        return self._identity.identifier

    @property
    def trouble(self) -> str:
        """Why nothing may be known of the network now, or what another organisation's peer contradicts (that stays:
        what was delivered is delivered). "" when the blocks are followed and the peers agree."""
        if self._follower.heard_within(_SILENT_S):
            return self._witness.trouble or self._pool.trouble
        failures = [f"{peer}: {failure}" for peer, failure in self._pool.failures.items()]
        why = f" ({'; '.join(failures) or self._follower.failure})" if failures or self._follower.failure else ""
        return f"no peer has given {self.org}'s gateway a sign of life for {_SILENT_S:.0f} s{why}"

    async def evaluate(self, function: str, args: Mapping[str, Any]) -> Any:
        """See the port. No peer that is behind what was seen is believed; with none but such, LedgerUnavailable."""
        try:
            query = query_args(function, args)
        except CanonicalError as error:
            raise Rejected(f"the arguments of {function} are no JSON of integers and texts: {error}") from None
        data = await self._gateway.evaluate(self.profile.chaincode, query, self._clock(), current=True)
        return _json(data, function)

    async def prepare(self, call: Call) -> Prepared:
        """See the port. Also raises EndorsementMismatch with each organisation's result, and Untrusted."""
        function = _function(call.intent) if self.profile.entries else ""
        await self._check_private(call, self.profile.entry_of(function))
        unsigned, payload, endorsed = await self._gateway.endorse(
            self.profile.entry_of(function),
            submit_args(call.intent),
            self._clock(),
            call.transient,
            call.endorsing_orgs,
        )
        result = _json(endorsed.result, "a transaction")
        if not isinstance(result, dict):
            raise Rejected(f"a transaction gave {type(result).__name__}, not an object", unsigned.tx_id)
        envelope = await self._gateway.sign_envelope(payload)
        self._follower.checked(unsigned.tx_id)
        self._prepared_at[unsigned.tx_id] = self._follower.height
        if len(self._prepared_at) > Outcomes.ROOM:
            del self._prepared_at[next(iter(self._prepared_at))]
        return Prepared(unsigned.tx_id, envelope.SerializeToString(), result)

    async def _check_private(self, call: Call, chaincode: str) -> None:
        """Raises Refused when private inputs would go to an organisation that is no member of what they are for. The
        own organisation's peer, which has them anyway, executes first and so tells what that is."""
        if not call.transient or not set(call.endorsing_orgs) - {self.org}:
            return
        args = submit_args(call.intent)
        try:
            _, _, alone = await self._gateway.endorse(chaincode, args, self._clock(), call.transient, [self.org])
            touched = touched_by(alone.accesses)
        except Refused as error:
            if error.code != NOT_MEMBER:
                raise
            touched = []  # this organisation only carries it, and may not read it
        await check_members(self._system, self.profile.chaincode, touched, self.org, call.endorsing_orgs)

    async def submit(self, envelope: bytes) -> None:
        try:
            message = Envelope.FromString(envelope)
            header = ChannelHeader.FromString(Payload.FromString(message.payload).header.channel_header)
        except DecodeError:
            raise Rejected("this is no transaction envelope of Hyperledger Fabric") from None
        if not message.signature or not header.tx_id:
            raise Rejected("this envelope carries no signature or no transaction id", header.tx_id)
        if header.channel_id != self.profile.channel:
            raise Rejected(f"this envelope is for channel {header.channel_id!r}", header.tx_id)
        await self._gateway.submit(header.tx_id, message)

    def known(self, tx_id: str) -> Committed | None:
        """How a transaction of the blocks that were followed so far has ended; nobody is asked."""
        return self._follower.outcomes.get(tx_id)

    async def status(self, tx_id: str) -> TxStatus:
        known = self.known(tx_id)
        if known is not None:
            return known
        began = self._prepared_at.get(tx_id, -1)
        if began > self._follower.outcomes.forgotten and self._follower.heard_within(_FRESH_S):
            return NotFound(tx_id)  # it did not exist before the blocks that were followed since, all of them known
        block = await self._system.block_of(tx_id, timeout_s=_STATUS_S)
        if block is None:
            return self.known(tx_id) or NotFound(tx_id)
        verify_block(block, None, self._trust, await self._follower.consensus_for(block, self._pool.order()[0]))
        found = Outcomes(2)
        number = block.header.number
        for item in transaction_events(number, items_of(block), ()):
            if item.tx_id == tx_id:
                found.add(number, [item])
        committed: Committed | None = found.get(tx_id)
        if committed is None:
            raise Untrusted(f"the peer gave block {number} for a transaction that it does not hold", tx_id)
        self._follower.saw(number)
        return committed

    def events(self, checkpoint: Checkpoint) -> AsyncIterator[TxEvents]:
        return self._follower.events(checkpoint)

    async def height(self) -> int:
        return await self._system.height()

    async def block(self, number: int) -> BlockView:
        """Raises LedgerError for a block that does not exist, Untrusted for one that is not proved."""
        height = await self.height()
        if not 0 <= number < height:
            raise LedgerError(f"there is no block {number}; the ledger has {height}")
        error: LedgerError | None = None
        for peer in self._pool.order():
            try:
                block = await deliver.one_block(peer, self._identity, self.profile.channel, number, wall_ms())
                own_hash = verify_block(block, None, self._trust, await self._follower.consensus_for(block, peer))
            except Untrusted as found:
                self._pool.lied(peer, str(found))
                error = found
            except LedgerError as found:
                error = error or found
            else:
                return block_view(block, own_hash, self._trust, self.profile.chaincodes)
        raise error or LedgerError(f"no peer gave block {number}")


def _json(data: bytes, function: str) -> Any:
    try:
        return parse(data)
    except CanonicalError as error:
        raise Rejected(f"the chaincode's answer to {function} is not canonical JSON: {error}") from None


def _function(intent: bytes) -> str:
    """The function that an intent names, "" when it cannot be read: the contract says what is wrong with it."""
    try:
        value = parse(intent)
    except CanonicalError:
        return ""
    inner = value.get("intent") if isinstance(value, dict) else None
    name = inner.get("function") if isinstance(inner, dict) else None
    return name if isinstance(name, str) else ""
