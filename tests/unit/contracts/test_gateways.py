"""Gateways: registration by the operator, grants by controllers."""

import hashlib
from typing import Any

import pytest
from support.contracts import Party
from support.network import Network
from support.refusals import refused

from flexrelay_contracts.context import Creator


@pytest.fixture
def net() -> Network:
    return Network.start(days=0)


def entry(party: Party, org: str = "dso", name: str = "new") -> dict[str, Any]:
    return {**party.proven(), "org": org, "identity": hashlib.sha256(name.encode()).hexdigest()}


def test_a_registered_gateway_carries_what_it_is_granted(net: Network) -> None:
    gateway, actor = Party.new("gateway"), net.actor()
    arguments = entry(gateway)
    creator = Creator("dso", arguments["identity"])
    with refused("gateway_unknown"):
        net.ledger.call(actor, "gateways.grant", creator, gateway=gateway.did)
    net.call(net.operator, "gateways.register", **arguments)
    device = Party.new("device", actor.did)
    with refused("gateway_grant"):
        net.ledger.call(actor, "identity.register_device", creator, **device.proven())
    net.call(actor, "gateways.grant", gateway=gateway.did)
    net.ledger.call(actor, "identity.register_device", creator, **device.proven())
    granted = net.ask("gateways.granted", gateway=gateway.did, controller="")
    assert [(item["controller"], item["status"]) for item in granted] == [(actor.did, "active")]
    net.call(actor, "gateways.withdraw", gateway=gateway.did)
    with refused("gateway_grant"):
        net.ledger.call(device, "identity.deactivate", creator, did=device.did)
    assert len(net.ask("gateways.list")) == 4


def test_only_the_market_operator_registers(net: Network) -> None:
    with refused("role", "actor"):
        net.call(net.actor("dso"), "gateways.register", **entry(Party.new("gateway")))
    with refused("role"):
        one_market = net.actor("market_operator", markets=["local"])
        net.call(one_market, "gateways.register", **entry(Party.new("gateway")))


def test_what_is_registered(net: Network) -> None:
    good = entry(gateway := Party.new("gateway"))
    with refused("kind", "operation.kind"):
        net.call(net.operator, "gateways.register", **entry(Party.new()))
    with refused("organisation", "org"):
        net.call(net.operator, "gateways.register", **entry(gateway, "nobody"))
    with refused("identity_used", "identity"):
        net.call(net.operator, "gateways.register", **good | {"identity": net.creators["agg-a"].identity})
    with refused("wrong_network", "operation.network"):
        net.call(net.operator, "gateways.register", **entry(Party.new("gateway", network="elsewhere")))
    with refused("proof"):
        net.call(net.operator, "gateways.register", **good | {"proof": "A" * 86})
    net.call(net.operator, "gateways.register", **good)
    with refused("did_exists"):
        net.call(net.operator, "gateways.register", **entry(gateway, name="other"))


def test_the_creator_must_be_of_the_gateways_organisation(net: Network) -> None:
    actor = net.actor()
    stolen = Creator("agg-a", net.creators["dso"].identity)
    with refused("gateway_unknown"):
        net.ledger.call(actor, "gateways.grant", stolen, gateway=net.gateways["dso"].did)


def test_grants_are_actors(net: Network) -> None:
    device = net.device(net.actor())
    with refused("kind", "actor"):
        net.call(device, "gateways.grant", gateway=net.gateways["agg-a"].did)
    with refused("kind", "actor"):
        net.call(device, "gateways.withdraw", gateway=net.gateways["dso"].did)


def test_grants_go_to_active_gateways(net: Network) -> None:
    actor = net.actor()
    with refused("gateway_unknown", "gateway"):
        net.call(actor, "gateways.grant", gateway=actor.did)
    gone = net.gateways["agg-b"]
    net.call(gone, "identity.deactivate", did=gone.did)
    with refused("did_inactive", "gateway"):
        net.call(actor, "gateways.grant", gateway=gone.did)


def test_a_withdrawn_grant_is_not_withdrawn_again(net: Network) -> None:
    actor = net.actor()
    with refused("gateway_grant", "gateway"):
        net.call(actor, "gateways.withdraw", gateway=net.gateways["agg-a"].did)


def test_an_actor_without_any_gateway_names_a_new_one_through_it(net: Network) -> None:
    actor = net.actor()
    net.call(actor, "gateways.withdraw", gateway=net.gateways["dso"].did)
    net.home[actor.did] = "agg-a"
    with refused("gateway_grant"):
        net.call(actor, "gateways.grant", gateway=net.gateways["dso"].did)  # not the one that carries it
    net.call(actor, "gateways.grant", gateway=net.gateways["agg-a"].did)
    net.device(actor)


def test_an_ended_gateway_carries_nothing(net: Network) -> None:
    actor = net.actor(org="agg-a")
    gateway = net.gateways["agg-a"]
    net.call(gateway, "identity.deactivate", did=gateway.did)
    for call in (lambda: net.device(actor), lambda: net.call(actor, "gateways.grant", gateway=gateway.did)):
        with refused("gateway_inactive"):
            call()
