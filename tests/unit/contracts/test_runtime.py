"""The checks that every transaction has in common."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.contracts import Party
from support.network import Network
from support.refusals import refused

from flexrelay_contracts.catalogue import QUERIES, TRANSACTIONS
from flexrelay_contracts.context import Creator
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import MAX_INTENT_BYTES
from flexrelay_schemas.canonical import canonical


@pytest.fixture
def net() -> Network:
    return Network.start(days=0)


def grant(net: Network, party: Party, **change: Any) -> bytes:
    """A good intent, with changed fields and a signature over the change."""
    names = {"function": "gateways.grant", "args": {"gateway": net.gateways["dso"].did}, "deadline": net.ledger.now}
    return party.intent(**names | change)


def test_an_intent_is_used_once(net: Network) -> None:
    actor = net.actor()
    data = grant(net, actor)
    net.ledger.run(data, net.creators["dso"])
    with refused("intent_used", "intent_id"):
        net.ledger.run(data, net.creators["dso"])
    intent_id = json.loads(data)["intent"]["intent_id"]
    other = grant(net, actor, intent_id=intent_id, args={"gateway": "x"})
    with refused("intent_used", "intent_id"):
        net.ledger.run(other, net.creators["dso"])
    assert net.ask("intents.status", actor=actor.did, intent_id=intent_id)["status"] == "used"


def test_the_deadline_is_the_last_millisecond(net: Network) -> None:
    actor = net.actor()
    data, late = grant(net, actor), grant(net, actor, deadline=net.ledger.now - 1)
    net.ledger.run(data, net.creators["dso"])
    with refused("expired", "deadline"):
        net.ledger.run(late, net.creators["dso"])


def test_every_changed_field_breaks_the_signature(net: Network) -> None:
    actor = net.actor()
    document = json.loads(grant(net, actor))
    for name, value in (
        ("intent_id", "other"),
        ("deadline", net.ledger.now + 1),
        ("function", "gateways.withdraw"),
        ("args", {"gateway": net.gateways["agg-a"].did}),
    ):
        changed = canonical(document | {"intent": document["intent"] | {name: value}})
        with refused("signature", "signature"):
            net.ledger.run(changed, net.creators["dso"])


def test_a_signature_has_one_text(net: Network) -> None:
    """The last of 86 characters carries 2 bits: the texts with other unused bits are not taken for it."""
    data = grant(net, net.actor())
    assert data.endswith(b'"}')
    last = data[-3:-2]
    for number in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
        other = bytes([number])
        if other != last:
            with pytest.raises(Refused, match=r"\[signature\]$"):
                net.ledger.run(data[:-3] + other + data[-2:], net.creators["dso"])
    net.ledger.run(data, net.creators["dso"])


def test_networks_functions_versions_and_actors(net: Network) -> None:
    actor = net.actor()
    document = json.loads(grant(net, actor))
    for change, code, field in (
        ({"network": "elsewhere"}, "wrong_network", "network"),
        ({"function": "market.none"}, "unknown_function", "function"),
        ({"v": 2}, "unknown_version", "v"),
        ({"actor": Party.new().did}, "unknown_did", "actor"),
        ({"key_version": 2}, "key_version", "key_version"),
        ({"more": 1}, "malformed", "intent.more"),
        ({"deadline": -1}, "malformed", "intent.deadline"),
    ):
        with refused(code, field):
            net.ledger.run(canonical(document | {"intent": document["intent"] | change}), net.creators["dso"])


def test_a_creator_that_is_no_gateway(net: Network) -> None:
    actor = net.actor()
    with refused("gateway_unknown"):
        net.ledger.run(grant(net, actor), Creator("dso", "0" * 64))


def test_another_gateways_grant_does_not_count(net: Network) -> None:
    actor = net.actor(org="agg-a")
    with refused("gateway_grant"):
        net.ledger.run(grant(net, actor, args={"gateway": net.gateways["agg-b"].did}), net.creators["dso"])


def test_too_large_and_not_json(net: Network) -> None:
    for data, code in (
        (b"x" * (MAX_INTENT_BYTES + 1), "too_large"),
        (b"", "malformed"),
        (b"\xff", "malformed"),
        (b"[" * 100_000, "malformed"),
        (b'{"intent":1}', "malformed"),
        (b'{"a":1,"a":1}', "malformed"),
        (b'{"a":1.0}', "malformed"),
        (b'{"a":NaN}', "malformed"),
        (b'{"a":9007199254740993}', "malformed"),
    ):
        with refused(code):
            net.ledger.run(data, net.creators["dso"])


def test_unknown_queries_and_arguments(net: Network) -> None:
    with refused("unknown_function", "function"):
        net.ask("market.none")
    with refused("invalid_argument", "did"):
        net.ask("identity.show", did="did:web:example.org")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_byte_never_gets_through(data: st.DataObject) -> None:
    """Any change of any byte of a signed intent is a refusal and leaves the state as it was."""
    net, actor = _shared()
    intent = bytearray(actor.intent("gateways.grant", {"gateway": net.gateways["dso"].did}, deadline=net.ledger.now))
    place = data.draw(st.integers(0, len(intent) - 1))
    intent[place] ^= data.draw(st.integers(1, 255))
    before = dict(net.ledger.state)
    with pytest.raises(Refused):
        net.ledger.run(bytes(intent), net.creators["dso"])
    assert net.ledger.state == before


@settings(max_examples=150, deadline=None)
@given(
    args=st.dictionaries(
        st.sampled_from(["did", "operation", "proof", "gateway", "subject", "credential", "days", "data", "role"]),
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
            max_leaves=8,
        ),
    ),
    name=st.sampled_from(sorted(name for name in TRANSACTIONS if name != "network.bootstrap")),
)
def test_foreign_arguments_are_refused_never_a_crash(args: dict[str, Any], name: str) -> None:
    net, _ = _shared()
    try:
        encoded = net.operator.intent(name, args, deadline=net.ledger.now)
    except ValueError:
        return  # a lone surrogate has no canonical form
    with pytest.raises(Refused):
        net.ledger.run(encoded, net.creators["dso"])


def test_names_are_unique_and_have_one_form() -> None:
    for name in (*TRANSACTIONS, *QUERIES):
        room, _, verb = name.partition(".")
        assert room.isidentifier() and verb.isidentifier() and name == name.lower()
    assert not set(TRANSACTIONS) & set(QUERIES)


def test_a_key_of_the_wrong_curve_text_is_a_refusal(net: Network) -> None:
    """A Multikey of the right shape that holds no point of the curve."""
    party = Party.new()
    bad = party.operation.model_copy(update={"key": "zDnae" + "1" * 44})
    forged = net.adopt(replace(party, operation=bad))
    with refused("signature"):
        net.call(forged, "identity.register", **party.proven(bad), gateway="")


_CACHE: list[tuple[Network, Party]] = []


def _shared() -> tuple[Network, Party]:
    """One network for all examples of a property (none of them changes it)."""
    if not _CACHE:
        net = Network.start(days=0)
        _CACHE.append((net, net.actor(p256=False)))
    return _CACHE[0]
