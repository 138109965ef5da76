"""The context's rules over the protocol: the embedded ledger's, with and without batches."""

import hashlib
from typing import Any

import pytest
from unit.chaincode.network import failure, network

from flexrelay_chaincode import wire
from flexrelay_schemas.canonical import parse

KINDS = [{}, {"write_batch": 0, "multiple": 0}, {"write_batch": 3, "multiple": 2}]
IDS = ["3.1", "2.5", "small pieces"]


@pytest.mark.parametrize("peer", KINDS, ids=IDS)
async def test_many_keys_are_written_in_the_announced_pieces(peer: dict[str, Any]) -> None:
    async with network(peer) as net:
        items = [{"key": f"k{number:02}", "value": str(number)} for number in range(10)]
        result = await net.submit("probe.put_many", {"items": items})
        assert result.status == 200, result.message
        assert {key: value for key, value in result.writes.items() if key.startswith("k")} == {
            f"k{number:02}": str(number).encode() for number in range(10)
        }
        kinds = set(result.requests)
        if peer.get("write_batch") == 0:
            assert "PUT_STATE" in kinds and "GET_STATE" in kinds
            assert not kinds & {"WRITE_BATCH_STATE", "GET_STATE_MULTIPLE"}
        else:
            assert kinds == {"WRITE_BATCH_STATE", "GET_STATE_MULTIPLE"}
        assert net.peer.broken == ""


@pytest.mark.parametrize("peer", KINDS, ids=IDS)
async def test_delete_private_and_policy_reach_the_peer(peer: dict[str, Any]) -> None:
    async with network(peer) as net:
        await net.submit("probe.put", {"key": "a", "value": "1"})
        secret = {"collection": "sealed", "key": "p"}
        put = await net.submit("probe.private_put", secret, transient={"value": b"secret"})
        assert put.private == {("sealed", "p"): b"secret"}
        assert await net.query("probe.private_get", secret) == "secret"
        assert await net.query("probe.private_hash", secret) == hashlib.sha256(b"secret").hexdigest()
        purged = await net.submit("probe.private_purge", secret)
        assert purged.private == {("sealed", "p"): None}
        assert await net.query("probe.private_get", secret) is None
        assert await net.query("probe.private_hash", secret) is None
        policy = await net.submit("probe.policy", {"key": "a", "orgs": ["dso", "agga", "dso"]})
        envelope = wire.SignaturePolicyEnvelope.FromString(policy.policies["a"])
        roles = [wire.MSPRole.FromString(principal.principal) for principal in envelope.identities]
        assert [(role.msp_identifier, role.role) for role in roles] == [("agga", 3), ("dso", 3)]
        assert envelope.rule.n_out_of.n == 2
        cleared = await net.submit("probe.policy", {"key": "a", "orgs": []})
        assert cleared.policies == {"a": b""}
        deleted = await net.submit("probe.delete", {"key": "a"})
        assert deleted.writes["a"] is None
        assert await net.query("probe.get", {"key": "a"}) is None


@pytest.mark.parametrize(
    ("function", "args", "code"),
    [
        ("probe.put_empty", {"key": "a"}, "empty_value"),
        ("probe.put", {"key": "", "value": "1"}, "empty_key"),
        ("probe.delete", {"key": ""}, "empty_key"),
        ("probe.put", {"key": "\U0010ffffa", "value": "1"}, "bad_key"),
        ("probe.copy", {"key": "\U0010ffffa", "value": "b"}, "bad_key"),
        ("probe.page_then_write", {"key": "a"}, "write_after_paged_query"),
        ("probe.write_then_fail", {"key": "a"}, "contract_failure"),
        ("probe.policy", {"key": "nowhere", "orgs": ["dso"]}, "policy_without_key"),
        ("probe.private_copy", {"collection": "theirs", "key": "p", "out": "o"}, "private_not_member"),
        ("probe.private_copy", {"collection": "nowhere", "key": "p", "out": "o"}, "unknown_collection"),
        ("probe.private_purge", {"collection": "nowhere", "key": "p"}, "unknown_collection"),
        ("probe.nothing", {}, "unknown_function"),
        ("probe.put", {"key": 1, "value": "1"}, "invalid_argument"),
    ],
)
async def test_refusals_have_the_embedded_ledgers_codes(function: str, args: dict[str, Any], code: str) -> None:
    async with network() as net:
        result = await net.submit(function, args)
        assert failure(result) == ("refused", code)
        assert (result.writes, result.private, result.policies, result.event) == ({}, {}, {}, None)


async def test_own_writes_are_not_seen() -> None:
    async with network() as net:
        result = await net.submit("probe.put_and_read", {"key": "a", "value": "1"})
        assert parse(result.payload) == {"seen": None, "in_range": 0}


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 200, 250])
async def test_a_range_is_read_to_its_end(size: int) -> None:
    async with network() as net:
        net.peer.state |= {f"r{number:04}": b"x" for number in range(size)}
        net.peer.state["s"] = b"behind the end"
        found = await net.query("probe.range", {"start": "r", "end": "s"})
        assert found == [[f"r{number:04}", "x"] for number in range(size)]


@pytest.mark.parametrize("limit", [100, 130, 200])
async def test_a_range_goes_on_where_the_peer_ends_it_silently(limit: int) -> None:
    async with network({"query_limit": limit}) as net:
        net.peer.state |= {f"r{number:04}": b"x" for number in range(450)}
        assert len(await net.query("probe.range", {"start": "r", "end": "s"})) == 450


async def test_a_range_left_early_is_closed_at_the_peer() -> None:
    async with network() as net:
        net.peer.state |= {f"r{number:04}": b"x" for number in range(300)}
        result = await net.submit("probe.count", {"start": "r", "end": "s", "out": "n", "limit": 5})
        assert parse(result.payload) == {"count": 5}
        assert result.requests.count("QUERY_STATE_NEXT") == 0
        assert result.requests.count("QUERY_STATE_CLOSE") == 1


@pytest.mark.parametrize(("start", "end"), [("z", "a"), ("r", ""), ("r", "r")])
async def test_an_empty_range_asks_nothing(start: str, end: str) -> None:
    async with network() as net:
        net.peer.state["r"] = b"x"
        assert await net.query("probe.range", {"start": start, "end": end}) == []


@pytest.mark.parametrize("limit", [100_000, 2])
async def test_pages(limit: int) -> None:
    async with network({"query_limit": limit}) as net:
        net.peer.state |= {f"r{number}": b"x" for number in range(5)}
        first = await net.query("probe.page", {"start": "r", "end": "s", "size": 3})
        assert first == {"keys": ["r0", "r1", "r2"], "bookmark": "r3"}
        last = await net.query("probe.page", {"start": "r", "end": "s", "size": 3, "bookmark": "r3"})
        assert last == {"keys": ["r3", "r4"], "bookmark": ""}
        whole = await net.query("probe.page", {"start": "r", "end": "s", "size": 5})
        assert whole == {"keys": [f"r{number}" for number in range(5)], "bookmark": ""}
