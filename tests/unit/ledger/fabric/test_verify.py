"""Endorsement policies and digests of ranges, as peers evaluate and compute them."""

import hashlib
import itertools
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from flexrelay.ledger.fabric.messages import Block, QueryReads
from flexrelay.ledger.fabric.verify.policies import signed_by
from flexrelay.ledger.fabric.verify.ranges import summary
from flexrelay.ledger.fabric.verify.recompute import _replay
from flexrelay.ledger.fabric.verify.report import Report
from flexrelay_chaincode.wire import MSPPrincipal, MSPRole, SignaturePolicy, SignaturePolicyEnvelope
from flexrelay_chaincode.writes import key_policy
from flexrelay_contracts.context import policy_met, policy_terms

ORGS = ("dso", "agga", "aggb")


class Ending:
    """A peer that gives fewer blocks than it says it has."""

    name = "peer0.dso of dso"

    def __init__(self, blocks: Sequence[Any]) -> None:
        self._blocks = blocks

    async def blocks(self, start: int, stop: int) -> AsyncIterator[Any]:
        for block in self._blocks:
            yield block


class Counting:
    def __init__(self) -> None:
        self.report = Report()

    def block(self, block: Any) -> bool:
        self.report.height += 1
        return True


async def test_a_chain_that_ends_too_early_is_not_verified() -> None:
    run: Any = Counting()
    await _replay(
        Ending([Block(header={"number": number}) for number in range(3)]), run, 0, 3, lambda done, total: None
    )
    assert run.report.ok
    await _replay(Ending([Block(header={"number": 3})]), run, 3, 6, lambda done, total: None)
    assert [str(problem) for problem in run.report.problems] == [
        "block 3: is the last one that the peer gives, though it says that it has 6 blocks"
    ]


def some_orgs() -> list[tuple[str, ...]]:
    return [orgs for count in range(4) for orgs in itertools.combinations(ORGS, count)]


@pytest.mark.parametrize("orgs", some_orgs())
@pytest.mark.parametrize("one_of", some_orgs())
def test_key_policies_mean_the_same_here_as_in_the_contracts(orgs: tuple[str, ...], one_of: tuple[str, ...]) -> None:
    terms = policy_terms(orgs, one_of)
    if not terms:
        assert key_policy(terms) == b""
        return
    for endorsing in some_orgs():
        assert signed_by(key_policy(terms), endorsing) == policy_met(terms, endorsing), (terms, endorsing)


def out_of(count: int, *orgs: str, role: int = 3) -> bytes:
    principals = [MSPPrincipal(principal=MSPRole(msp_identifier=o, role=role).SerializeToString()) for o in orgs]
    rules = [SignaturePolicy(signed_by=index) for index in range(len(orgs))]
    rule = SignaturePolicy(n_out_of=SignaturePolicy.NOutOf(n=count, rules=rules))
    data: bytes = SignaturePolicyEnvelope(rule=rule, identities=principals).SerializeToString()
    return data


def test_a_signature_counts_once() -> None:
    assert not signed_by(out_of(2, "dso", "dso"), ["dso"])
    assert signed_by(out_of(2, "dso", "dso"), ["dso", "dso"]), "two peers of one organisation"
    assert signed_by(out_of(2, *ORGS), ["aggb", "dso"])
    assert not signed_by(out_of(2, *ORGS), ["aggb"])


@pytest.mark.parametrize(("role", "met"), [(0, True), (1, False), (2, False), (3, True), (4, False)])
def test_endorsing_peers_are_members_and_peers_and_nothing_else(role: int, met: bool) -> None:
    assert signed_by(out_of(1, "dso", role=role), ["dso"]) is met


def test_what_is_no_policy_is_met_by_nobody() -> None:
    assert not signed_by(b"\xff\xff", ORGS)


def entries(count: int) -> list[tuple[str, tuple[int, int]]]:
    return [(f"key-{number:06}", (number % 7, number % 3)) for number in range(count)]


def test_few_entries_have_no_digest() -> None:
    assert summary(entries(50), 50) is None
    assert summary(entries(51), 50).max_level == 1
    assert summary(entries(10), 1) is None


def test_a_leaf_is_the_hash_of_the_reads() -> None:
    reads = [{"key": key, "version": {"block_num": b, "tx_num": t}} for key, (b, t) in entries(3)]
    leaf = hashlib.sha256(QueryReads(kv_reads=reads).SerializeToString(deterministic=True)).digest()
    assert list(summary(entries(3), 2).max_level_hashes) == [leaf]


@pytest.mark.parametrize("count", [3, 7, 9, 10, 27, 28, 100, 1000])
def test_a_digest_is_of_exactly_these_entries(count: int) -> None:
    """Small degree, many levels: at most `degree` hashes on top, and any change gives others."""
    good = summary(entries(count), 2)
    assert 1 <= len(good.max_level_hashes) <= 2 and good == summary(iter(entries(count)), 2)
    chance = random.Random(count)
    for _ in range(20):
        changed = entries(count)
        place = chance.randrange(count)
        kind = chance.randrange(3)
        if kind == 0:
            del changed[place]
        elif kind == 1:
            changed.insert(place, ("new", (1, 1)))
        else:
            changed[place] = (changed[place][0], (9, 9))
        assert summary(changed, 2) != good
