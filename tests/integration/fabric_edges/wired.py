"""The gateway of `integration.fabric_faults.rig`, with a wire between it and every peer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from integration.fabric_faults.rig import Rig
from support.chain import Signer
from support.fabric_chain import FabricChain
from support.wire import Wire

from flexrelay.ledger.fabric import FabricLedger, Limits, Profile, Vigilance, load_profile

SHORT = Limits(evaluate_s=3.0, endorse_s=5.0, submit_s=3.0)
"""Deadlines that a stalled wire runs into."""


class WiredChain(FabricChain):
    """Connects by `through`; what looks at the chain afterwards reads the peers themselves."""

    through: Profile

    @asynccontextmanager
    async def connect(self, in_flight: int = 64) -> AsyncIterator[FabricLedger]:
        quick = Vigilance(silent_s=1.0, answer_s=2.0, witness_s=5.0)
        limits = Limits(SHORT.evaluate_s, SHORT.endorse_s, SHORT.submit_s, in_flight)
        async with FabricLedger.open(self.through, Signer(self.gateway), vigilance=quick, limits=limits) as ledger:
            yield ledger


@asynccontextmanager
async def wired(rig: Rig) -> AsyncIterator[tuple[Rig, list[Wire]]]:
    """The rig with one wire for each peer of the profile, the own organisation's first."""
    profile = load_profile(rig.chain.profile)
    async with AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(Wire.to(peer.endpoint)) for peer in profile.peers]
        peers = tuple(
            peer.model_copy(update={"endpoint": wire.address}) for peer, wire in zip(profile.peers, wires, strict=True)
        )
        chain = WiredChain(rig.chain.folder, rig.chain.operator, rig.chain.gateway)
        chain.through = profile.model_copy(update={"peers": peers})
        yield Rig(rig.native, chain), wires
