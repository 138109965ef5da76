"""A peer that is alive and a block behind what its gateway has seen: its no is no end, its answers are not taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from integration.fabric_faults.rig import PATIENCE_S, Rig
from support.chance import told_seed
from support.fabric_load import STORE

from flexrelay.ledger.fabric import Behind, FabricLedger
from flexrelay.ledger.fabric.channel import PeerChannel
from flexrelay.ledger.port import Call, LedgerError
from flexrelay.outbox import OUTBOX, CommittedIntent, Outbox, RefusedIntent
from flexrelay.relay import Relay
from flexrelay.store import Store

pytestmark = pytest.mark.timeout(1800)
OWN = "peer0.dso"


def own_peer(ledger: FabricLedger) -> PeerChannel:
    return ledger._pool.order(own_only=True)[0]


@asynccontextmanager
async def lagging(rig: Rig, ledger: FabricLedger, outbox: Outbox, account: str) -> AsyncIterator[None]:
    """Money comes into the account while the own peer is away; it comes back while no orderer can tell it of that."""
    await rig.kill(OWN)
    try:
        entry = await outbox.add(rig.chain.fund(account, 1_000, f"{account[5:]}-in"))
        outcome = await asyncio.wait_for(outbox.wait(entry), PATIENCE_S)
        assert isinstance(outcome, CommittedIntent)
        async with asyncio.timeout(PATIENCE_S):
            while ledger._follower.seen <= outcome.block:  # noqa: ASYNC110 (the connection follows the blocks)
                await asyncio.sleep(0.05)
        rig.native.stop("orderer0")
        try:
            await rig.start(OWN)
            await answering(ledger)
            assert await ledger._gateway.height(own_peer(ledger)) < ledger._follower.seen
            yield
        finally:
            rig.native.cont("orderer0")
    finally:
        if not rig.native.pid(OWN):
            await rig.start(OWN)


async def answering(ledger: FabricLedger) -> None:
    """Until the own peer executes again and is the first to be asked."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            peer = own_peer(ledger)
            try:
                await ledger._gateway.executed(peer, "flexrelay", [b"query", b"network.show", b"{}"], ledger._clock())
                if ledger._pool.order()[0] is peer:
                    return
            except LedgerError:
                pass
            await asyncio.sleep(0.2)


async def test_what_a_lagging_peer_refuses_is_not_refused(rig: Rig) -> None:
    account = f"fees:behind-{told_seed()}"
    async with (
        rig.chain.connect() as ledger,
        Store(rig.chain.folder / STORE, [OUTBOX]) as store,
        Relay(ledger, outbox := Outbox(store, ledger.org), sign=rig.chain.sign_void),
    ):
        async with lagging(rig, ledger, outbox, account):
            intent = withdrawal(rig, account, 5)
            with pytest.raises(Behind, match="funds"):  # private inputs go to no other organisation's peer
                await ledger.prepare(Call(intent, {"x": b"private"}))
            entry = await outbox.add(intent)
            asked = asyncio.create_task(ledger.evaluate("intents.status", marker(rig, f"{account[5:]}-in")))
            async with asyncio.timeout(PATIENCE_S):
                while not await outbox.attempts(entry):  # noqa: ASYNC110 (another peer has endorsed it: it is kept)
                    await asyncio.sleep(0.05)
            assert (await asked)["status"] == "used"  # out of a peer that has the block
            assert await outbox.outcome(entry) is None
        assert isinstance(await asyncio.wait_for(outbox.wait(entry), PATIENCE_S), CommittedIntent)
        never = withdrawal(rig, account, 5_000)
        outcome = await asyncio.wait_for(outbox.wait(await outbox.add(never)), PATIENCE_S)
        assert isinstance(outcome, RefusedIntent) and outcome.code == "funds"
    await rig.audited("a peer that was behind")


def withdrawal(rig: Rig, account: str, micro_eur: int) -> bytes:
    args = {"account": account, "micro_eur": micro_eur}
    return rig.chain.intent("accounts.withdraw", args, name=f"{account[5:]}-out-{micro_eur}")


def marker(rig: Rig, name: str) -> dict[str, str]:
    return {"actor": rig.chain.operator.did, "intent_id": name}
