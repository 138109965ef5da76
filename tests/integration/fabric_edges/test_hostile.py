"""Malformed, oversized and unauthorised calls straight to a peer: each gets a refusal, and nobody else is disturbed."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec
from integration.fabric_edges import raw
from integration.fabric_edges.consortium import Consortium, metrics, working, written
from integration.fabric_edges.raw import Raw, Said, Stranger
from support.chain import wall_ms
from support.chance import told_seed

from flexrelay.ledger.fabric import FabricLedger
from flexrelay.ledger.fabric.proposal import propose
from flexrelay.network.authority import Authority, Pair
from flexrelay_contracts.invocation import decode_failure

pytestmark = pytest.mark.timeout(1200)

MIB = 1024 * 1024
LONGEST_S = 150.0


@pytest_asyncio.fixture
async def agga(consortium: Consortium) -> AsyncIterator[FabricLedger]:
    async with consortium.connect("agga") as ledger:
        await working(ledger)
        yield ledger


@pytest.fixture
def member(consortium: Consortium) -> Stranger:
    """A client of agga that is not a gateway of the network."""
    pair = consortium.native.materials["agga"].gateway("member")
    return Stranger.of("agga", pair.certificate, pair.key)


class Undisturbed:
    """The chaincode's process and its stream are the same after the block, and a good transaction commits."""

    def __init__(self, consortium: Consortium, ledger: FabricLedger) -> None:
        self._consortium = consortium
        self._ledger = ledger

    def _facts(self) -> tuple[object, ...]:
        native = self._consortium.native
        log = native.processes.log("flexrelay_1.agga").read_text()
        peers = tuple(native.pid(f"peer0.{org}") for org in ("dso", "agga", "aggb"))
        figures = metrics(self._consortium, "agga")
        streams = figures["flexrelay_chaincode_streams"], figures["flexrelay_chaincode_streams_ready"]
        return native.pid("flexrelay.agga"), peers, streams, log.count("registered as")

    async def __aenter__(self) -> None:
        self._before = await asyncio.to_thread(self._facts)

    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            return
        consortium = self._consortium
        await written(self._ledger, consortium.intent(consortium.owner, "slow.wait", ms=0))
        assert await asyncio.to_thread(self._facts) == self._before


def refused(said: Said) -> tuple[str, str]:
    """(kind, code) of a failure that the shim or the contract has written."""
    assert said.status == 500, said
    failure = decode_failure(said.text)
    assert failure is not None, said
    return failure.kind, failure.code


MALFORMED = ("rejected", "malformed_call")
ARGUMENTS: dict[str, tuple[list[bytes], tuple[str, str]]] = {
    "none": ([], MALFORMED),
    "an empty one": ([b""], MALFORMED),
    "no intent": ([b"submit"], MALFORMED),
    "too many": ([b"submit", b"{}", b"{}"], MALFORMED),
    "ten thousand": ([b"x"] * 10_000, MALFORMED),
    "another word": ([b"init", b"{}"], MALFORMED),
    "bytes that are no text": ([b"submit", b"\xff\xfe\x00"], ("refused", "malformed")),
    "no JSON": ([b"submit", b"garbage"], ("refused", "malformed")),
    "an intent without a signature": ([b"submit", b'{"intent":{"v":1}}'], ("refused", "malformed")),
    "an intent of another version": ([b"submit", b'{"intent":{"v":2}}'], ("refused", "unknown_version")),
    "deep nesting": ([b"submit", b"[" * 200_000], ("refused", "malformed")),
    "20 MB of garbage": ([b"submit", b"\x00" * (20 * MIB)], ("refused", "too_large")),
    "20 MB of JSON": ([b"submit", b'"' + b"x" * (20 * MIB) + b'"'], ("refused", "too_large")),
    "a huge integer": ([b"submit", b"9" * 900_000], ("refused", "malformed")),
    "a query without arguments": ([b"query", b"network.show"], MALFORMED),
    "a query whose name is no text": ([b"query", b"\xff", b"{}"], MALFORMED),
    "a query of no object": ([b"query", b"network.show", b"[]"], MALFORMED),
    "an unknown query": ([b"query", b"network.nothing", b"{}"], ("refused", "unknown_function")),
    "a query with too many arguments": ([b"query", b"network.show", b'{"x":1}'], ("refused", "invalid_argument")),
}


async def test_malformed_arguments_have_a_refusal(consortium: Consortium, agga: FabricLedger, member: Stranger) -> None:
    peer = consortium.profile("agga").own_peers[0]
    async with Raw.to(peer) as straight, Undisturbed(consortium, agga), asyncio.timeout(LONGEST_S * 2):
        found = {}
        for what, (args, _) in ARGUMENTS.items():
            message, _ = raw.call(member, args, wall_ms())
            found[what] = refused(await straight.process(message))
        assert found == {what: expected for what, (_, expected) in ARGUMENTS.items()}


async def test_messages_beyond_all_limits(consortium: Consortium, agga: FabricLedger, member: Stranger) -> None:
    """More than a peer takes, and values off the chain that nobody asked for."""
    peer = consortium.profile("agga").own_peers[0]
    async with Raw.to(peer) as straight, Undisturbed(consortium, agga), asyncio.timeout(LONGEST_S * 2):
        huge, _ = raw.call(member, [b"submit", bytes(101 * MIB)], wall_ms())
        said = await straight.process(huge)
        assert said.status == 0 and "RESOURCE_EXHAUSTED" in said.text, said
        many, _ = raw.call(member, [b"submit", b"garbage"], wall_ms(), transient={"x": bytes(20 * MIB)})
        assert refused(await straight.process(many)) == ("refused", "malformed")
        over, tx_id = raw.call(member, [b"submit", bytes(20 * MIB)], wall_ms())
        said = await straight.endorse(over, tx_id)
        assert "too_large" in said.text, said


async def test_a_member_who_is_no_gateway_writes_nothing(
    consortium: Consortium, agga: FabricLedger, member: Stranger
) -> None:
    """Its organisation is a member, its certificate good: the contract knows gateways by their keys."""
    intent = consortium.intent(consortium.owner, "slow.wait", ms=0)
    async with Raw.to(consortium.profile("agga").own_peers[0]) as straight, Undisturbed(consortium, agga):
        message, tx_id = raw.call(member, [b"submit", intent], wall_ms())
        assert refused(await straight.process(message)) == ("refused", "gateway_unknown")
        assert "gateway_unknown" in (await straight.endorse(message, tx_id)).text


def outsider(folder: Path, org: str, *, days: int = 100) -> Stranger:
    """Somebody of an organisation with an authority of its own, whatever name it takes."""
    authority = Authority(folder / f"{org}-{days}", org, "sign")
    pair = Pair(folder / f"{org}-{days}.pem", folder / f"{org}-{days}.key")
    authority.pair_for(pair, "somebody", "client", days=days)
    return Stranger.of(org, pair.certificate, pair.key)


def expired(consortium: Consortium, org: str) -> Stranger:
    """A client of the organisation whose certificate ended a moment ago."""
    private = ec.generate_private_key(ec.SECP256R1())
    certificate = consortium.native.materials[org].signing.issue("former", private.public_key(), "client", days=0)
    return Stranger(org, certificate, private)


async def test_who_is_not_of_the_network_is_denied(
    consortium: Consortium, agga: FabricLedger, member: Stranger, tmp_path: Path
) -> None:
    strangers = {
        "an organisation that is no member": outsider(tmp_path, "tso"),
        "a member's name, another authority": outsider(tmp_path, "agga"),
        "an expired certificate": expired(consortium, "agga"),
        "no certificate": Stranger("agga", b"not PEM", member.private),
        "no organisation": Stranger("", member.certificate, member.private),
        "another's key": Stranger("agga", member.certificate, ec.generate_private_key(ec.SECP256R1())),
    }
    intent = consortium.intent(consortium.owner, "slow.wait", ms=0)
    async with Raw.to(consortium.profile("agga").own_peers[0]) as straight, Undisturbed(consortium, agga):
        for what, stranger in strangers.items():
            message, tx_id = raw.call(stranger, [b"submit", intent], wall_ms())
            said = await straight.process(message)
            assert said.status != 200 and ("access denied" in said.text or "expired" in said.text), (what, said)
            said = await straight.endorse(message, tx_id)
            assert said.status != 200, (what, said)


async def test_proposals_that_contradict_themselves(
    consortium: Consortium, agga: FabricLedger, member: Stranger
) -> None:
    intent = consortium.intent(consortium.owner, "slow.wait", ms=0)
    args = [b"submit", intent]
    good = propose("market", "flexrelay", args, member.creator, wall_ms())
    other = propose("market", "flexrelay", args, member.creator, wall_ms())
    proposal = raw.proposals.Proposal
    swapped = proposal.FromString(good.data)
    swapped.payload = proposal.FromString(other.data).payload + b"\x00"
    messages = {
        "no bytes": b"",
        "noise": os.urandom(2_000),
        "no signature": raw.signed(member, good, signature=b""),
        "another's signature": raw.signed(member, good, signature=member.sign(other.data)),
        "a changed payload": raw.signed(
            member, raw.without(good, data=swapped.SerializeToString()), signature=member.sign(good.data)
        ),
        "a channel that does not exist": raw.call(member, args, wall_ms(), channel="nowhere")[0],
        "a chaincode that does not exist": raw.call(member, args, wall_ms(), chaincode="nothing")[0],
        "a name that is none": raw.call(member, args, wall_ms(), chaincode="../flexrelay")[0],
        "no chaincode": raw.call(member, args, wall_ms(), chaincode="")[0],
        "a timestamp of 1970": raw.call(member, args, 0)[0],
        "a timestamp before it": raw.signed(member, raw.stamped(good, -1)),
        "a timestamp of the year 9999": raw.signed(member, raw.stamped(good, 253_402_300_799)),
        "a timestamp beyond all years": raw.signed(member, raw.stamped(good, 2**62)),
    }
    async with Raw.to(consortium.profile("agga").own_peers[0]) as straight, Undisturbed(consortium, agga):
        for what, message in messages.items():
            async with asyncio.timeout(LONGEST_S):
                said = await straight.process(message)
            assert said.status != 200 and said.text, (what, said)


@pytest.mark.parametrize("count", [150, pytest.param(3_000, marks=pytest.mark.soak)])
async def test_mutated_calls_disturb_nobody(
    consortium: Consortium, agga: FabricLedger, member: Stranger, count: int
) -> None:
    """A good proposal with bytes changed, cut or added anywhere, signed again: an answer each time."""
    chance = random.Random(told_seed())
    intent = consortium.intent(consortium.owner, "slow.wait", ms=0)
    statuses: dict[int, int] = {}

    async def one(straight: Raw) -> None:
        data = bytearray(propose("market", "flexrelay", [b"submit", intent], member.creator, wall_ms()).data)
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(data))
            match chance.randrange(3):
                case 0:
                    data[at] = chance.randrange(256)
                case 1:
                    del data[at : at + chance.randrange(1, 30)]
                case 2:
                    data[at:at] = chance.randbytes(chance.randrange(1, 30))
            if not data:
                data = bytearray(b"\x0a")
        unsigned = propose("market", "flexrelay", [b"submit", intent], member.creator, wall_ms())
        said = await straight.process(raw.signed(member, raw.without(unsigned, data=bytes(data))))
        assert said.status != 200, said
        statuses[said.status] = statuses.get(said.status, 0) + 1

    async with Raw.to(consortium.profile("agga").own_peers[0]) as straight, Undisturbed(consortium, agga):
        async with asyncio.timeout(LONGEST_S * 10):
            for _ in range(count // 10):
                await asyncio.gather(*(one(straight) for _ in range(10)))
    print(f"\nresponses by status: {statuses}")
