"""Peers that die, hang and come back; organisations that disagree: nothing is lost, nothing hangs, both are told."""

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from conformance.ledger.fabric import FabricHarness, FabricNetwork
from conformance.ledger.harness import fresh, outcome

from flexrelay.ledger.fabric import EndorsementMismatch, FabricLedger, IdentityFiles, Vigilance, load_profile
from flexrelay.ledger.port import Call, Checkpoint, Committed, LedgerError, LedgerUnavailable, TxEvents, Validation

pytestmark = pytest.mark.timeout(1200)

PATIENCE_S = 150.0


@pytest_asyncio.fixture
async def ledger(harness: FabricHarness, net: FabricNetwork, profile: Path) -> AsyncIterator[FabricLedger]:
    """The DSO's connection with all organisations' peers to fall back on."""
    own = net.profiles["dso"].identity
    both = load_profile(profile).model_copy(update={"identity": IdentityFiles(certificate=own.certificate)})
    quick = Vigilance(silent_s=1.0, answer_s=1.0)
    async with FabricLedger.open(both, net.gateways["dso"], vigilance=quick) as opened:
        yield opened


async def written(net: FabricNetwork, ledger: FabricLedger) -> str:
    """Prepare, submit until taken, wait: as the relay does it. The transaction's id."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                prepared = await ledger.prepare(Call(net.intent("probe.put", key=fresh(), value="v")))
                break
            except LedgerError:
                await asyncio.sleep(0.1)
        while True:
            try:
                await ledger.submit(prepared.envelope)
                break
            except LedgerError:
                await asyncio.sleep(0.1)
    committed = await outcome(ledger, prepared.tx_id, seconds=PATIENCE_S)
    assert committed.validation is Validation.VALID
    return prepared.tx_id


async def followed(ledger: FabricLedger, began: Checkpoint, into: list[TxEvents]) -> None:
    async for item in ledger.events(began):
        into.append(item)


async def arrived(tx_id: str, seen: list[TxEvents]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while tx_id not in {item.tx_id for item in seen}:  # noqa: ASYNC110 (what is seen is a plain list)
            await asyncio.sleep(0.05)


async def test_the_own_peer_dies_and_comes_back(
    harness: FabricHarness, net: FabricNetwork, ledger: FabricLedger
) -> None:
    seen: list[TxEvents] = []
    follower = asyncio.create_task(followed(ledger, net.began, seen))
    ids = [await written(net, ledger)]
    await asyncio.to_thread(harness.native.kill, "peer0.dso")
    try:
        for _ in range(3):
            ids.append(await written(net, ledger))
        assert await ledger.evaluate("probe.get", {"key": "nothing"}) is None
    finally:
        await asyncio.to_thread(harness.native.start, "peer0.dso")
    ids.append(await written(net, ledger))
    await arrived(ids[-1], seen)
    follower.cancel()
    assert [item.tx_id for item in seen if item.tx_id in set(ids)] == ids
    places = [item.block for item in seen]
    assert all(b - a in (0, 1) for a, b in itertools.pairwise(places))


async def test_what_memory_has_forgotten_is_asked_of_the_peer(
    net: FabricNetwork, ledger: FabricLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Committed long ago is not "was never there": the relay would go on with it."""
    monkeypatch.setattr(ledger._follower.outcomes, "_room", 1)
    ids = [await written(net, ledger) for _ in range(3)]
    assert [ledger.known(tx_id) is None for tx_id in ids] == [True, True, False]
    for tx_id in ids:
        found = await ledger.status(tx_id)
        assert isinstance(found, Committed) and found.validation is Validation.VALID


async def test_the_own_peer_hangs(harness: FabricHarness, net: FabricNetwork, ledger: FabricLedger) -> None:
    """A hanging peer keeps its connections open: deadlines and the look after a silent stream find it."""
    began, seen = await ledger.height(), []
    follower = asyncio.create_task(followed(ledger, Checkpoint(began - 1), seen))
    other = net.ledgers["agga"]
    harness.native.stop("peer0.dso")
    try:
        tx_id = await written(net, other)
        await arrived(tx_id, seen)
        assert (await ledger.status(tx_id)).block > 0  # type: ignore[union-attr] # it is committed
    finally:
        harness.native.cont("peer0.dso")
        follower.cancel()


async def test_organisations_that_disagree_are_told_apart(
    harness: FabricHarness, net: FabricNetwork, ledger: FabricLedger
) -> None:
    """Another contract at one organisation: both results are reported, and nothing of the private inputs."""
    name = "flexrelay_1.agga"
    await asyncio.to_thread(harness.native.processes.stop, [name])
    other = await asyncio.to_thread(another_version, harness.native.folder.contracts / f"{name}.toml")
    try:
        await answering(net, "agga")
        call = Call(net.intent("probe.about"), {"value": b"a private value"}, ("dso", "agga"))
        with pytest.raises(EndorsementMismatch) as caught:
            await ledger.prepare(call)
    finally:
        other.kill()
        other.wait()
        await asyncio.to_thread(harness.native.start, name)
    found = caught.value
    assert set(found.results) == {"dso", "agga"}
    assert '"another":1' in found.results["agga"].result
    assert '"another":1' not in found.results["dso"].result
    assert found.results["dso"].digest != found.results["agga"].digest
    assert "agga: result" in str(found)
    assert found.tx_id
    assert "private value" not in str(found) + repr(found.results)
    await answering(net, "agga")


def another_version(config: Path) -> "subprocess.Popen[bytes]":
    """The organisation's chaincode process with another contract in it."""
    changed = config.with_name("another.toml")
    changed.write_text(
        config.read_text().replace('"conformance.ledger.contract"', '"integration.fabric_client.other_contract"')
    )
    path = ":".join(item for item in sys.path if item)
    command = (sys.executable, "-m", "flexrelay_chaincode", "--config", str(changed))
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path})


async def answering(net: FabricNetwork, org: str) -> None:
    """Until the organisation's chaincode answers through its own peer."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await net.ledgers[org].evaluate("probe.get", {"key": "nothing"})
                return
            except LedgerUnavailable:
                await asyncio.sleep(0.2)
