"""Closing intents after their deadline."""

from dataclasses import replace

import pytest
from support.contracts import Party
from support.network import Network
from support.refusals import refused

from flexrelay_contracts.runtime import MAX_INTENT_BYTES
from flexrelay_schemas.encoding import b64u


@pytest.fixture
def net() -> Network:
    return Network.start(days=0)


def late(net: Network, party: Party, intent_id: str = "i1") -> bytes:
    """An intent whose deadline has just passed."""
    data = party.intent(
        "gateways.grant", {"gateway": net.gateways["dso"].did}, deadline=net.ledger.now, intent_id=intent_id
    )
    net.ledger.now += 1
    return data


def test_a_void_intent_is_never_carried_out(net: Network) -> None:
    actor = net.actor()
    data = late(net, actor)
    assert net.ask("intents.status", actor=actor.did, intent_id="i1") == {"status": "open", "tx_id": ""}
    net.call(net.gateways["dso"], "intents.void", intent=b64u(data))
    assert net.ask("intents.status", actor=actor.did, intent_id="i1")["status"] == "void"
    net.ledger.now -= 1  # an envelope that claims to be from before the deadline
    with refused("intent_used"):
        net.ledger.run(data, net.creators["dso"])


def test_not_before_the_deadline_has_passed(net: Network) -> None:
    actor = net.actor()
    data = late(net, actor)
    net.ledger.now -= 1
    with refused("not_expired"):
        net.call(net.gateways["dso"], "intents.void", intent=b64u(data))


def test_a_used_intent_is_not_voided_nor_a_void_one_again(net: Network) -> None:
    actor = net.actor()
    data = late(net, actor)
    net.ledger.now -= 1
    net.ledger.run(data, net.creators["dso"])
    net.ledger.now += 1
    with refused("intent_used"):
        net.call(net.gateways["dso"], "intents.void", intent=b64u(data))
    other = late(net, actor, "i2")
    net.call(net.gateways["dso"], "intents.void", intent=b64u(other))
    with refused("intent_used"):
        net.call(net.gateways["dso"], "intents.void", intent=b64u(other))


def test_by_a_gateway_that_held_a_grant(net: Network) -> None:
    actor = net.actor()
    data = late(net, actor)
    with refused("kind"):
        net.call(actor, "intents.void", intent=b64u(data))
    with refused("gateway_grant"):
        net.call(net.gateways["agg-a"], "intents.void", intent=b64u(data))
    net.call(actor, "gateways.withdraw", gateway=net.gateways["dso"].did)
    net.call(net.gateways["dso"], "intents.void", intent=b64u(data))


def test_devices_intents_follow_their_controllers_grant(net: Network) -> None:
    device = net.device(net.actor())
    data = late(net, device)
    with refused("gateway_grant"):
        net.call(net.gateways["agg-a"], "intents.void", intent=b64u(data))
    net.call(net.gateways["dso"], "intents.void", intent=b64u(data))


def test_the_signature_is_checked_with_the_named_version(net: Network) -> None:
    actor = net.actor()
    data = late(net, actor)
    net.rotate(actor)
    net.call(net.gateways["dso"], "intents.void", intent=b64u(data))
    forged = late(net, replace(actor, private=Party.new().private), "i2")
    with refused("signature"):
        net.call(net.gateways["dso"], "intents.void", intent=b64u(forged))
    with refused("unknown_key_version"):
        net.call(net.gateways["dso"], "intents.void", intent=b64u(late(net, replace(actor, version=3), "i3")))


def test_intents_of_ended_identities_can_be_closed(net: Network) -> None:
    actor = net.actor()
    data = late(net, actor)
    net.call(actor, "identity.deactivate", did=actor.did)
    net.call(net.gateways["dso"], "intents.void", intent=b64u(data))


def test_a_registration_that_never_came_can_be_closed(net: Network) -> None:
    party = Party.new()
    data = party.intent("identity.register", party.proven() | {"gateway": ""}, deadline=net.ledger.now, intent_id="i1")
    net.ledger.now += 1
    net.call(net.gateways["dso"], "intents.void", intent=b64u(data))
    net.ledger.now -= 1
    with refused("intent_used"):
        net.ledger.run(data, net.creators["dso"])


def test_other_strangers_intents_and_other_networks(net: Network) -> None:
    with refused("unknown_did"):
        net.call(net.gateways["dso"], "intents.void", intent=b64u(late(net, Party.new())))
    with refused("wrong_network"):
        net.call(net.gateways["dso"], "intents.void", intent=b64u(late(net, Party.new(network="elsewhere"))))


@pytest.mark.parametrize("text", ["A", b64u(b"{}"), b64u(b"\xff"), b64u(b"[1]")])
def test_malformed(net: Network, text: str) -> None:
    with refused("malformed"):
        net.call(net.gateways["dso"], "intents.void", intent=text)


def test_the_largest_intent_can_be_voided_and_only_a_void_is_larger(net: Network) -> None:
    """Or an outbox could never say of it that it has expired."""
    actor, empty = net.actor(), len(net.operator.intent("products.publish", {"pad": ""}, deadline=net.ledger.now))
    largest = {"pad": "x" * (MAX_INTENT_BYTES - empty)}
    data = actor.intent("products.publish", largest, deadline=net.ledger.now, intent_id="0" * 16)
    assert len(data) == MAX_INTENT_BYTES
    net.ledger.now += 1
    net.call(net.gateways["dso"], "intents.void", intent=b64u(data))
    assert net.ask("intents.status", actor=actor.did, intent_id="0" * 16)["status"] == "void"
    more = {"pad": largest["pad"] + "x"}
    with refused("too_large"):
        net.call(actor, "products.publish", **more)
    with refused("invalid_argument", "intent"):
        late_one = actor.intent("products.publish", more, deadline=net.ledger.now - 1)
        net.call(net.gateways["dso"], "intents.void", intent=b64u(late_one))
