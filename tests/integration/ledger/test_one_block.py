"""What Fabric's rules say of transactions that share a block, on the embedded ledger."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from conformance.ledger.embedded import EmbeddedNetwork, held
from conformance.ledger.harness import Spec, fresh, outcome

from flexrelay.ledger.embedded import BlockCutting, verify
from flexrelay.ledger.port import Checkpoint, Prepared, Validation

MVCC, EPF = Validation.MVCC_READ_CONFLICT, Validation.ENDORSEMENT_POLICY_FAILURE


@pytest_asyncio.fixture
async def net(tmp_path: Path) -> AsyncIterator[EmbeddedNetwork]:
    network = EmbeddedNetwork(Spec(), tmp_path)
    cutting = BlockCutting(timeout_ms=1)
    network.genesis = network.genesis.model_copy(update={"block_cutting": cutting})
    async with network.running():
        await network.bootstrap()
        yield network


async def together(net: EmbeddedNetwork, *several: Prepared) -> list[Validation]:
    """How transactions that are submitted at once, into one block, are judged there."""
    ledger = net.connect("dso")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(net.ledger, "_fill", lambda messages, seconds: held(net.ledger, len(several)))
        await asyncio.gather(*(ledger.submit(prepared.envelope) for prepared in several))
    block = (await outcome(ledger, several[0].tx_id, seconds=60)).block
    items = await net.take(ledger, Checkpoint(block), lambda item: item.block == block and item.last_in_block)
    assert [item.tx_id for item in items] == [prepared.tx_id for prepared in several]
    return [item.validation for item in items]


async def test_a_key_whose_policy_changes_is_written_by_nobody_else(net: EmbeddedNetwork, tmp_path: Path) -> None:
    ledger, key, other = net.connect("dso"), fresh(), fresh()
    await net.run("probe.put", key=key, value="v")
    owned = await net.prepare(ledger, "probe.policy", key=key, orgs=["dso"])
    late = await net.prepare(ledger, "probe.put", key=key, value="w")
    aside = await net.prepare(ledger, "probe.put", key=other, value="w")
    assert await together(net, owned, late, aside, owned) == [Validation.VALID, EPF, Validation.VALID, EPF]
    assert (await net.get(key), await net.get(other)) == ("v", "w")
    status = await outcome(ledger, owned.tx_id, seconds=60)
    assert status.validation is Validation.VALID, "the first one counts"
    assert (await net.run("probe.put", key=key, value="x")).validation is Validation.VALID
    assert (await asyncio.to_thread(_recomputed, tmp_path)) == []


async def test_what_the_block_touched_conflicts_even_when_it_is_as_before(net: EmbeddedNetwork) -> None:
    ledger, key = net.connect("dso"), fresh()
    gone = await net.prepare(ledger, "probe.delete", key=key)
    read = await net.prepare(ledger, "probe.copy", key=key, value=fresh())
    assert await together(net, gone, read) == [Validation.VALID, MVCC]


async def test_an_id_that_comes_twice_counts_once(net: EmbeddedNetwork) -> None:
    added = await net.prepare(net.connect("dso"), "probe.add", key=fresh(), value="1")
    assert await together(net, added, added) == [Validation.VALID, Validation.DUPLICATE_TXID]


def _recomputed(folder: Path) -> list[str]:
    from conformance.ledger.contract import TRANSACTIONS

    return [str(problem) for problem in verify(folder, transactions=TRANSACTIONS).problems]
