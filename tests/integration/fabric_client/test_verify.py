"""Recomputing a channel: it holds for what real peers have made, and notices every single thing that was changed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from conformance.ledger.contract import TRANSACTIONS, put
from conformance.ledger.fabric import CHANNEL, FabricNetwork
from conformance.ledger.harness import fresh

from flexrelay.ledger.fabric import FabricLedger
from flexrelay.ledger.fabric.messages import (
    SIGNATURES,
    TRANSACTIONS_FILTER,
    Block,
    ChaincodeActionPayload,
    Envelope,
    Payload,
    Transaction,
)
from flexrelay.ledger.fabric.peerview import PeerView
from flexrelay.ledger.fabric.verification import data_hash
from flexrelay.ledger.fabric.verify import Replay, Report, verify
from flexrelay.ledger.fabric.verify.comparison import Comparison
from flexrelay.ledger.port import Call, Ledger, Validation
from flexrelay_contracts.runtime import Transaction as Function

pytestmark = pytest.mark.timeout(1200)

Blocks = list[Any]


async def history(net: FabricNetwork) -> None:
    """Ranges of all sizes that a peer digests, policies of keys, conflicts, phantoms, duplicates, private values."""
    ledger = net.connect("dso")
    name = fresh("range")
    for count in (10, 51, 52, 120, 2700):
        items = [{"key": f"{name}-{count}-{number:05}", "value": "v"} for number in range(count)]
        for start in range(0, count, 900):
            await net.run("probe.put_many", items=items[start : start + 900])
        span = {"start": f"{name}-{count}-", "end": f"{name}-{count}-x"}
        await net.run("probe.count", **span, out=f"{name}-{count}")
        await net.run("probe.count", **span, out=f"{name}-{count}-part", limit=min(count - 1, 60))
        late = await net.prepare(ledger, "probe.count", **span, out=f"{name}-{count}")
        await net.run("probe.put", key=f"{name}-{count}-00005", value="w")
        assert (await net.commit(ledger, late)).validation is Validation.PHANTOM_READ_CONFLICT
    key = fresh("owned")
    await net.run("probe.put", key=key, value="v")
    await net.run("probe.policy", key=key, orgs=["dso"], one_of=["agga", "aggb"])
    await net.run("probe.put", key=key, value="w")
    alone = await ledger.prepare(Call(net.intent("probe.put", key=key, value="x"), endorsing_orgs=("agga",)))
    assert (await net.commit(ledger, alone)).validation is Validation.ENDORSEMENT_POLICY_FAILURE
    both = [await net.prepare(ledger, "probe.add", key=fresh("sum"), value="1") for _ in range(2)]
    for prepared in [*both, both[0]]:
        await ledger.submit(prepared.envelope)
    call = net.intent("probe.private_put", collection="everyone", key=fresh("secret"))
    await net.commit(ledger, await ledger.prepare(Call(call, {"value": b"s"})))
    await brief(net)
    await net.run("probe.emit", names=["one", "two"])
    await net.run("strict.put", key=fresh(), value="v")


async def brief(net: FabricNetwork) -> None:
    """Private values that are kept for three blocks; one of them is written again in time."""
    ledger, gone, renewed = net.connect("dso"), fresh("gone"), fresh("renewed")

    async def write(name: str) -> None:
        call = net.intent("probe.private_put", collection="brief", key=name)
        await net.commit(ledger, await ledger.prepare(Call(call, {"value": b"seven b"})))

    async def length(name: str) -> str:
        out = fresh("length")
        await net.run("probe.private_copy", collection="brief", key=name, out=out)
        return str(await net.get(out))

    await write(gone)
    await write(renewed)
    assert await length(gone) == "7"
    await write(renewed)
    await net.run("probe.put", key=fresh(), value="v")
    assert (await length(gone), await length(renewed)) == ("0", "7")


@pytest_asyncio.fixture
async def blocks(net: FabricNetwork) -> AsyncIterator[Blocks]:
    await history(net)
    view = net.ledgers["dso"].at_peer()
    height = await view.height()
    yield [block async for block in view.blocks(0, height - 1)]


def replay(ledger: FabricLedger, blocks: Blocks, transactions: Any = TRANSACTIONS) -> Report:
    run = Replay(ledger.profile, ledger.trust, transactions, Report())
    try:
        for block in blocks:
            if not run.block(block):
                break
        return run.report
    finally:
        run.close()


def calls(blocks: Blocks) -> list[tuple[int, int]]:
    """(block, place) of the transactions of the contract, the newest first."""
    return [(b.header.number, i) for b in reversed(blocks[8:]) for i in range(len(b.data.data))]


def other_code(blocks: Blocks) -> str:
    number, place = calls(blocks)[0]
    codes = bytearray(blocks[number].metadata.metadata[TRANSACTIONS_FILTER])
    codes[place] = 11 if codes[place] == 0 else 0
    blocks[number].metadata.metadata[TRANSACTIONS_FILTER] = bytes(codes)
    return "is judged"


def no_signature(blocks: Blocks) -> str:
    blocks[-2].metadata.metadata[SIGNATURES] = b""
    return "signatures"


def other_data(blocks: Blocks) -> str:
    data = bytearray(blocks[-2].data.data[0])
    data[-1] ^= 1
    blocks[-2].data.data[0] = bytes(data)
    return "the hash in its header is not its data's"


def other_data_and_hash(blocks: Blocks) -> str:
    other_data(blocks)
    blocks[-2].header.data_hash = data_hash(blocks[-2])
    return "signatures of orderers"


def left_out(blocks: Blocks) -> str:
    del blocks[-3]
    return "the block before it is"


def endorsement_taken(blocks: Blocks) -> str:
    """One of two endorsements is not there: also the creator's signature does not fit any more."""
    number, place = calls(blocks)[0]
    envelope = Envelope.FromString(blocks[number].data.data[place])
    payload = Payload.FromString(envelope.payload)
    transaction = Transaction.FromString(payload.data)
    action = ChaincodeActionPayload.FromString(transaction.actions[0].payload)
    del action.action.endorsements[0]
    transaction.actions[0].payload = action.SerializeToString()
    payload.data = transaction.SerializeToString()
    envelope.payload = payload.SerializeToString()
    blocks[number].data.data[place] = envelope.SerializeToString()
    return "the signature is not its creator's"


CHANGES: tuple[Callable[[Blocks], str], ...] = (
    other_code, no_signature, other_data, other_data_and_hash, left_out, endorsement_taken,
)  # fmt: skip


async def test_a_channel_recomputes_and_every_change_is_noticed(net: FabricNetwork, blocks: Blocks) -> None:
    ledger = net.ledgers["dso"]
    good = await asyncio.to_thread(replay, ledger, blocks)
    assert good.ok, good.problems
    assert good.executed > 30 and good.hash_only and good.endorsements
    for change in CHANGES:
        copies = [Block.FromString(block.SerializeToString()) for block in blocks]
        expected = change(copies)
        found = await asyncio.to_thread(replay, ledger, copies)
        assert any(expected in problem.message for problem in found.problems), (change.__name__, found.problems)


async def test_a_contract_that_does_other_things_is_noticed(net: FabricNetwork, blocks: Blocks) -> None:
    def other(ctx: Any, caller: Any, args: Any) -> Any:
        put(ctx, caller, args)
        ctx.emit("more", b"than it said")
        return {"written": "something else"}

    functions: dict[str, Function[Any]] = {
        **TRANSACTIONS,
        "strict.put": replace(TRANSACTIONS["strict.put"], run=other),
    }
    found = await asyncio.to_thread(replay, net.ledgers["dso"], blocks, functions)
    messages = " ".join(problem.message for problem in found.problems)
    assert "its events differ" in messages and "its result differ" in messages and "its writes differ" not in messages


class Lying(PeerView):
    """A peer whose state differs from its blocks."""

    async def query(self, name: str, args: Any) -> Any:
        page = await super().query(name, args)
        if not args["bookmark"]:
            page["items"][0][1] = "0" * 64
            page["items"].append(["zzz", "1" * 64])
            del page["items"][1]
        return page


async def test_a_state_that_does_not_follow_from_the_blocks_is_noticed(net: FabricNetwork, blocks: Blocks) -> None:
    ledger = net.ledgers["dso"]
    view = ledger.at_peer()
    run = Replay(ledger.profile, ledger.trust, TRANSACTIONS, Report())
    for block in blocks:
        run.block(block)
    comparison = Comparison(ledger.profile.chaincode, run.report)
    await comparison.read(Lying(*(getattr(view, name) for name in PeerView.__dataclass_fields__)))
    comparison.finish(run.world)
    run.close()
    messages = [problem.message for problem in run.report.problems]
    assert len(messages) == 3 and all("the peer's state" in text for text in messages), messages


async def test_a_chain_that_goes_on_meanwhile_is_no_problem(net: FabricNetwork) -> None:
    stop = asyncio.Event()

    async def busy(ledger: Ledger) -> int:
        count = 0
        while not stop.is_set():
            await net.commit(ledger, await net.prepare(ledger, "probe.put", key="busy", value=str(count)))
            count += 1
        return count

    work = asyncio.create_task(busy(net.connect("agga")))
    try:
        found = await verify(net.ledgers["dso"], transactions=TRANSACTIONS)
    finally:
        stop.set()
    assert await work and found.ok and found.compared_state, found.problems
    assert net.ledgers["dso"].profile.channel == CHANNEL
