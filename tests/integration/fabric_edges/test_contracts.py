"""An organisation whose contract, package or definition is not the others', and calls that take too long."""

from __future__ import annotations

import asyncio
import json
import re
import time
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

import pytest
from integration.fabric_edges.consortium import CONTRACT, PATIENCE_S, Consortium, asked, metrics, working, written
from support.fabric import ORGS

from flexrelay.ledger.fabric import EndorsementMismatch, FabricLedger, NetworkMismatch, TookTooLong
from flexrelay.ledger.port import Call, LedgerError, LedgerUnavailable, Validation
from flexrelay.network import contracts
from flexrelay.network.commands import patiently
from flexrelay.outbox import OUTBOX, CommittedIntent, Outbox
from flexrelay.relay import Relay
from flexrelay.store import Store

pytestmark = pytest.mark.timeout(1200)

LONGEST_S = 150.0


def wait_for(consortium: Consortium, ms: int = 0) -> bytes:
    return consortium.intent(consortium.operator, "slow.wait", ms=ms)


def other_version(text: str) -> str:
    return text.replace(f'"{CONTRACT}"', '"integration.fabric_edges.other_contract"')


async def test_another_version_at_one_organisation(consortium: Consortium, tmp_path: Path) -> None:
    """Asked together they are told apart, with both results; the relay holds the intent until they agree again."""
    async with consortium.connect("dso") as dso, Store(tmp_path / "store.db", [OUTBOX]) as store:
        outbox = Outbox(store, "dso")
        with consortium.replaced("agga", other_version):
            async with consortium.connect_patiently("agga") as agga:
                await working(agga)
            async with asyncio.timeout(LONGEST_S):
                with pytest.raises(EndorsementMismatch) as caught:
                    await dso.prepare(Call(wait_for(consortium), {}, ("dso", "agga")))
                results = caught.value.results
                assert json.loads(results["agga"].result) == {"ms": 0, "waited": 0}
                assert json.loads(results["dso"].result) == {"ms": 0}
                assert "agga: result" in str(caught.value) and "dso: result" in str(caught.value)
                # those that agree go on
                await written(dso, wait_for(consortium), orgs=("dso", "aggb"))
            async with Relay(dso, outbox):
                entry = await outbox.add(wait_for(consortium), endorsing_orgs=("dso", "agga"))
                await asyncio.sleep(2)
                assert not (await outbox.entry(entry)).state.terminal
        await consortium.answers("agga")
        async with Relay(dso, outbox), asyncio.timeout(PATIENCE_S):
            assert isinstance(await outbox.wait(entry), CommittedIntent)


async def opening_fails(consortium: Consortium, org: str) -> str:
    began = time.monotonic()
    with pytest.raises(LedgerError) as caught:
        async with consortium.connect(org):
            pass
    assert time.monotonic() - began < LONGEST_S
    return f"{type(caught.value).__name__}: {caught.value}"


async def test_a_package_id_that_is_not_the_installed_ones(consortium: Consortium) -> None:
    """The peer does not answer such a registration: the process says so, its health too, and no call hangs."""

    def renamed(text: str) -> str:
        return re.sub(r'(id = "flexrelay_1):[0-9a-f]{64}"', rf'\1:{"0" * 64}"', text)

    health = consortium.native.state.ports["flexrelay_1.agga.health"]
    async with consortium.connect("agga") as agga, consortium.connect("dso") as dso:
        with consortium.replaced("agga", renamed) as log:
            await logged(log, "listening on")
            said = await opening_fails(consortium, "agga")
            assert "does not answer" in said and "package id" in said, said
            await logged(log, "is not the id of the package")
            assert "queryinstalled" in log.read_text()
            with pytest.raises(urllib.error.HTTPError, match="503"):
                await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{health}/healthz", timeout=60)
            await written(dso, wait_for(consortium), orgs=("dso", "aggb"))
        await working(agga)


async def logged(log: Path, text: str) -> None:
    async with asyncio.timeout(LONGEST_S):
        while text not in log.read_text():  # noqa: ASYNC110 (a file tells nobody)
            await asyncio.sleep(0.1)


async def test_another_definition_approved_at_one_organisation(consortium: Consortium) -> None:
    """agga approves a policy of its own for the next sequence; the others commit theirs. It is told before anything is
    asked, and what the message says mends it."""
    native = consortium.native
    plan, contract = native.plan, native.spec.contracts[0]
    before = native.peer("peer0.dso").committed("market", "flexrelay")
    assert before is not None
    sequence = before["sequence"] + 1
    wrong = type(contract).model_validate({**contract.model_dump(), "policy": {"orgs": ["agga"], "required": 1}})

    def options(which: object) -> list[str]:
        return [*plan.orderer_options(), *contracts.definition_options(plan.folder, which, "market", sequence)]  # type: ignore[arg-type]

    def approve(org: str, which: object) -> None:
        named = ["--package-id", contracts.id_of(plan.folder.package(contract.label, org), contract)]
        run = native.peer(f"peer0.{org}").run
        patiently(partial(run, "lifecycle", "chaincode", "approveformyorg", *options(which), *named))

    def commit() -> None:
        targets = []
        for org in ("dso", "aggb"):
            peer = native.peer(f"peer0.{org}")
            targets += ["--peerAddresses", peer.address, "--tlsRootCertFiles", peer.tls_root]
        patiently(
            partial(native.peer("peer0.dso").run, "lifecycle", "chaincode", "commit", *options(contract), *targets)
        )

    async with consortium.connect("agga") as running, consortium.connect("dso") as dso:
        try:
            await asyncio.to_thread(approve, "agga", wrong)
            for org in ("dso", "aggb"):
                await asyncio.to_thread(approve, org, contract)
            await asyncio.to_thread(commit)
            async with asyncio.timeout(LONGEST_S):
                while (said := await reached(consortium, sequence)) is None:  # noqa: ASYNC110 (its peer gets the block)
                    await asyncio.sleep(0.2)
            assert said.startswith("NetworkMismatch: agga has not approved chaincode 'flexrelay'"), said
            assert f"sequence {sequence}" in said and "approve this definition" in said

            # agga's peer has no chaincode that counts; who connected before is told, or served by the others' peers
            async with asyncio.timeout(LONGEST_S):
                with pytest.raises(LedgerUnavailable):
                    await asked(running, "network.show", {})
            await written(dso, wait_for(consortium), orgs=("dso", "aggb"))
            await written(dso, wait_for(consortium))
        finally:
            await asyncio.to_thread(approve, "agga", contract)
        await working(running)
        await written(running, consortium.intent(consortium.owner, "slow.wait", ms=0), orgs=("agga", "dso"))
    await consortium.answers("agga")


async def reached(consortium: Consortium, sequence: int) -> str | None:
    """What opening agga's connection says once its peer has the new definition."""
    try:
        async with consortium.connect("agga"):
            return None
    except NetworkMismatch as error:
        return f"NetworkMismatch: {error}"


async def test_too_few_endorsements_are_a_refusal_in_the_block(consortium: Consortium) -> None:
    """A client that asks one organisation only, where the definition asks for a majority."""
    async with consortium.connect("dso") as dso, asyncio.timeout(LONGEST_S):
        prepared = await dso.prepare(Call(wait_for(consortium), {}, ("dso",)))
        await dso.submit(prepared.envelope)
        while (ended := dso.known(prepared.tx_id)) is None:  # noqa: ASYNC110 (the connection follows the blocks)
            await asyncio.sleep(0.05)
        assert ended.validation is Validation.ENDORSEMENT_POLICY_FAILURE


async def commits(consortium: Consortium, ledger: FabricLedger, within_s: float) -> float:
    """A transaction is written; how long it took."""
    began = time.monotonic()
    async with asyncio.timeout(within_s):
        await written(ledger, wait_for(consortium))
    return time.monotonic() - began


@pytest.mark.parametrize("kind", ["transaction", "query"])
async def test_a_slow_call_is_bounded(consortium: Consortium, kind: str) -> None:
    """It ends at its deadline with the reason, and is not carried to every organisation; others go on afterwards."""
    async with consortium.connect("dso") as dso:
        before = {org: given_up(consortium, org) for org in ORGS}
        began = time.monotonic()
        with pytest.raises(TookTooLong, match="deadline: the call took longer than"):
            if kind == "transaction":
                await dso.prepare(Call(wait_for(consortium, 60_000)))
            else:
                await dso.evaluate("slow.waited", {"ms": 60_000})
        took = time.monotonic() - began
        after = await commits(consortium, dso, LONGEST_S)
        print(f"\na slow {kind} ended after {took:.1f} s; then a commit took {after:.1f} s")
        tried = {org: given_up(consortium, org) - count for org, count in before.items()}
        assert max(tried.values()) == 1 and sum(tried.values()) <= (2 if kind == "transaction" else 1), tried


def given_up(consortium: Consortium, org: str) -> int:
    """Calls that the organisation's chaincode has ended at their deadline."""
    return int(metrics(consortium, org).get('flexrelay_chaincode_calls_total{outcome="deadline"}', "0"))
