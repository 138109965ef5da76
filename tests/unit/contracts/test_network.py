"""The genesis, and a network that stands on it."""

from collections.abc import Callable
from typing import Any

import pytest
from support.contracts import NETWORK, Party
from support.network import Network
from support.refusals import refused

from flexrelay_contracts.clock import market_of
from flexrelay_contracts.refusal import Refused


def genesis(change: Callable[[dict[str, Any]], Any] = lambda args: None) -> Network:
    """A network that is not bootstrapped yet, bootstrapped with changed arguments."""
    net = Network.start(days=0)
    args = net.genesis()
    net.ledger.state.clear()
    net.ledger.events.clear()
    change(args)
    net.call(net.operator, "network.bootstrap", **args)
    return net


def test_a_bootstrapped_network_carries_actors_devices_and_master_data() -> None:
    net = Network.start()
    dso = net.actor("dso", org="dso")
    owner = net.actor("prosumer", org="agg-a")
    brp = net.actor("brp", org="agg-a")
    aggregator = net.actor("aggregator", org="agg-a")
    made = net.connection(
        "c1", dso=dso, owner=owner, meter=True, devices=["battery", "pv"], brp=brp, aggregator=aggregator
    )
    assert made.meter is not None
    shown = net.ask("masterdata.show", connection="c1", date="2016-05-20")
    assert shown["meter"]["device"] == made.meter.did
    assert {item["device_kind"] for item in shown["devices"]} == {"battery", "pv"}
    assert shown["mandate"]["aggregator"] == aggregator.did
    connections = net.ask("masterdata.connections", congestion_point="cp-1", date="2016-05-20")
    assert [item["connection"] for item in connections] == ["c1"]


def test_the_genesis_is_shown_with_its_clock() -> None:
    net = Network.start(rate=(720, 1), days=0)
    shown = net.ask("network.show")
    assert (shown["network"], shown["operator"], shown["simulation"]) == (NETWORK, net.operator.did, True)
    assert shown["organisations"] == ["agg-a", "agg-b", "dso"]
    assert shown["collections"] == {"disputes": ["agg-a", "agg-b", "dso"]}
    assert market_of(shown, shown["clock"]["wall_ms"] + 1000) == shown["clock"]["market_ms"] + 720_000


def test_there_is_one_genesis() -> None:
    net = Network.start(days=0)
    for party in (net.operator, Party.new()):
        net.adopt(party)
        with refused("already_bootstrapped"):
            net.call(party, "network.bootstrap", **net.genesis() | {"operator": party.proven()})


def test_nothing_happens_before_the_genesis() -> None:
    net = Network.start(days=0)
    net.ledger.state.clear()
    with refused("no_network"):
        net.call(net.operator, "calendar.publish", days=[])
    party = net.adopt(Party.new())
    with refused("no_network"):
        net.call(party, "identity.register", **party.proven(), gateway="")
    with refused("no_network"):
        net.ask("network.show")


def test_the_operator_is_who_signed() -> None:
    with refused("did_mismatch", "operation"):
        genesis(lambda args: args.update(operator=Party.new().proven()))
    with refused("proof", "proof"):
        genesis(lambda args: args["operator"].update(proof="A" * 86))
    with refused("wrong_network"):
        genesis(lambda args: args.update(network="elsewhere"))


def test_market_time_differs_from_wall_time_only_in_a_simulation() -> None:
    def real(args: dict[str, Any], **clock: int) -> None:
        args["simulation"] = False
        args["clock"].update(market_ms=args["clock"]["wall_ms"], **clock)

    assert genesis(real).ask("network.show")["simulation"] is False
    assert genesis(lambda args: real(args, rate_num=7, rate_den=7)).market_ms > 0
    with refused("clock", "clock"):
        genesis(lambda args: real(args, rate_num=2))
    with refused("clock", "clock"):
        genesis(lambda args: args.update(simulation=False))


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        (lambda a: a["organisations"].append("dso"), "duplicate", "organisations"),
        (lambda a: a["gateways"].append(a["gateways"][0]), "duplicate", "gateways.operation"),
        (lambda a: a["gateways"][1].update(identity=a["gateways"][0]["identity"]), "duplicate", "gateways.identity"),
        (lambda a: a["gateways"][0].update(org="nobody"), "organisation", "org"),
        (lambda a: a["gateways"][0].update(proof="A" * 86), "proof", "proof"),
        (lambda a: a["gateways"][0].update(Party.new().proven()), "kind", "operation.kind"),
        (
            lambda a: a["gateways"][0].update(Party.new("gateway", network="elsewhere").proven()),
            "wrong_network",
            "gateways.0",
        ),
        (lambda a: a["collections"].update(more=["nobody"]), "organisation", "collections.more"),
        (lambda a: a.update(gateways=[]), "invalid_argument", "gateways"),
        (lambda a: a["clock"].update(rate_den=0), "invalid_argument", "clock.rate_den"),
        (lambda a: a["clock"].update(rate_num=1.5), "invalid_argument", "clock.rate_num"),
        (lambda a: a.update(tx_time_guard_ms=1), "invalid_argument", "tx_time_guard_ms"),
        (lambda a: a.update(more=1), "invalid_argument", "more"),
    ],
)
def test_bad_geneses(change: Callable[[dict[str, Any]], Any], code: str, field: str) -> None:
    if field == "clock.rate_num":
        with pytest.raises(ValueError, match="float"):  # no float reaches a contract: it has no canonical form
            genesis(change)
        return
    with refused(code, field):
        genesis(change)


def test_a_refused_genesis_leaves_nothing() -> None:
    net = Network.start(days=0)
    args = net.genesis() | {"collections": {"x": ["nobody"]}}
    net.ledger.state.clear()
    with pytest.raises(Refused):
        net.call(net.operator, "network.bootstrap", **args)
    assert net.ledger.state == {}


def test_events_of_the_genesis() -> None:
    names = [name for name, _ in genesis().ledger.events]
    assert names[:2] == ["network.bootstrapped", "identity.registered"]
    assert names.count("identity.registered") == names.count("gateway.granted") + 1 == 4
