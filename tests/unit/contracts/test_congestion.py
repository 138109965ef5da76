"""From prognosis to order: money, reservations, gates and the refusals on the way."""

from collections.abc import Callable
from typing import Any

import pytest
from support.contracts import MemoryContext
from support.market import AUCTION, DATE, POINT, PRODUCT, Market, available, option, requested

from flexrelay_contracts.market.options import Option, needs
from flexrelay_contracts.market.prognosis import power_of
from flexrelay_contracts.market.terms import shared_collection
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Caller
from flexrelay_contracts.state import key


@pytest.fixture
def market() -> Market:
    return Market.start()


def ready(**changes: Any) -> Market:
    """Nominated and requested, the gate open."""
    market = Market.start(**changes)
    market.nominate(market.agg_a)
    market.nominate(market.agg_b)
    market.request()
    return market


def refused(code: str, field: str, action: Callable[[], object]) -> None:
    with pytest.raises(Refused) as caught:
        action()
    assert (caught.value.code, caught.value.field) == (code, field)
    assert caught.value.message


def test_two_offers_become_two_orders_and_the_money_is_held(market: Market) -> None:
    first, second = market.order()
    assert [item["power_w"] for item in first["isps"]] == [10_000, 10_000, -4_000]
    assert [item["power_w"] for item in second["isps"]] == [10_000, 10_000, 0]
    assert (first["price_nano_eur_per_wh"], second["price_nano_eur_per_wh"]) == (100_000, 120_000)
    # 10 kW for a quarter of an hour is 2500 Wh: 250,000 and 300,000 µ€ an ISP
    assert first["buyer_escrow_micro_eur"] == 500_000
    assert second["buyer_escrow_micro_eur"] == 600_000
    # penalty 150 €/MWh on 5000 Wh, rebound 50 €/MWh on as much, and one µ€ for the rebound line's rounding
    assert first["collateral_micro_eur"] == 750_000 + 250_000 + 1
    assert market.held() == {
        f"escrow:{market.dso.did}:{AUCTION}": 1_100_000,
        f"escrow:{market.agg_a.did}:{AUCTION}": 1_000_001,
        f"escrow:{market.agg_b.did}:{AUCTION}": 1_000_001,
    }
    clearing = market.net.ask("congestion.clearing", auction=AUCTION)
    assert clearing["uncovered_w"] == [0, 0] and clearing["method"] == "exact"


def test_the_cheaper_offer_comes_first_and_the_loser_gets_everything_back() -> None:
    market = ready()
    market.offer(market.agg_a, option(100_000, [20_000, 20_000, 0], a1=[10_000, 10_000, 0], a2=[10_000, 10_000, 0]))
    market.offer(market.agg_b, option(99_999, [20_000, 20_000, 0], b1=[20_000, 20_000, 0]))
    market.close()
    (order,) = market.clear()
    assert order["aggregator"] == market.agg_b.did
    assert market.money(market.agg_a) == 1_000_000_000
    reserved = market.net.ask("portfolio.reserved", connection="a1", direction="withdrawal", date=DATE)
    assert reserved["reserved_w"] == [0] * 96 and reserved["holds"] == {}
    options = market.net.ask("congestion.clearing", auction=AUCTION)["options"]
    assert options["offer-a"][0]["connections"] == [] and options["offer-b"][0]["connections"]


def test_what_was_taken_stays_reserved_and_what_was_not_is_free() -> None:
    market = ready()
    market.offer(
        market.agg_a,
        option(100_000, [20_000, 20_000, 0], a1=[15_000, 15_000, 0], a2=[5_000, 5_000, 0]),
        option(150_000, [20_000, 0, 0], option_id="o2", a2=[20_000, 0, 0]),
    )
    held = market.net.ask("portfolio.reserved", connection="a2", direction="withdrawal", date=DATE)
    assert held["reserved_w"][48:50] == [20_000, 5_000], "alternatives reserve the larger of both"
    market.close()
    (order,) = market.clear()
    assert (order["option_id"], order["activation_percent"]) == ("o1", 100)
    for connection, watts in (("a1", 15_000), ("a2", 5_000)):
        reserved = market.net.ask("portfolio.reserved", connection=connection, direction="withdrawal", date=DATE)
        assert reserved["reserved_w"][48:50] == [watts, watts]
        assert [hold["status"] for hold in reserved["holds"].values()] == ["confirmed"]


def test_percent_of_an_option_keeps_its_share_of_reservations_and_collateral() -> None:
    market = ready()
    market.offer(market.agg_a, option(100_000, [20_000, 20_000, 0], a1=[15_000, 15_000, 0], a2=[5_000, 5_000, 0]))
    market.offer(market.agg_b, option(50_000, [15_000, 15_000, 0], b1=[15_000, 15_000, 0], min_percent=100))
    market.close()
    first, second = market.clear()
    assert second["activation_percent"] == 100 and first["activation_percent"] == 25
    assert [item["power_w"] for item in first["isps"]] == [5_000, 5_000, 0]
    reserved = market.net.ask("portfolio.reserved", connection="a1", direction="withdrawal", date=DATE)
    assert reserved["reserved_w"][48] == 3_750
    # 25 % of (penalty 1,500,000 + rebound 500,000) and one µ€
    assert market.held()[f"escrow:{market.agg_a.did}:{AUCTION}"] == 500_001


def test_orders_do_not_depend_on_the_order_of_arrival() -> None:
    def run(reverse: bool) -> list[Any]:
        market = ready()
        offers = [
            (market.agg_a, option(100_000, [20_000, 20_000, 0], a1=[15_000, 15_000, 0], a2=[5_000, 5_000, 0])),
            (market.agg_b, option(100_000, [20_000, 20_000, 0], b1=[15_000, 15_000, 0], b2=[5_000, 5_000, 0])),
        ]
        for party, made in reversed(offers) if reverse else offers:
            market.offer(party, made)
        market.close()
        return [(o["offer_id"], o["activation_percent"], o["isps"]) for o in market.clear()]

    assert run(False) == run(True)


def test_rebound_room_is_shared_out_once() -> None:
    market = ready()
    market.offer(market.agg_a, option(100_000, [10_000, 10_000, -6_000], a1=[10_000, 10_000, -6_000]))
    market.offer(market.agg_b, option(100_000, [10_000, 10_000, -8_000], b1=[10_000, 10_000, -8_000]))
    market.close()
    rooms = [order["isps"][2]["room_w"] for order in market.clear()]
    assert sum(rooms) == 8_000 and sorted(rooms) == [3_429, 4_571]


def test_after_the_gate_nothing_is_taken(market: Market) -> None:
    market = ready()
    good = option(100_000, [10_000, 10_000, 0], a1=[10_000, 10_000, 0])
    refused("gate_open", "auction", lambda: market.net.call(market.dso, "congestion.close_gate", auction=AUCTION))
    refused("auction_status", "auction", lambda: market.net.call(market.dso, "congestion.clear", auction=AUCTION))
    market.net.to(market.closes)
    refused("gate_closed", "auction", lambda: market.offer(market.agg_a, good))
    refused("gate_closed", "orders", lambda: market.nominate(market.agg_a, revision=2))
    market.net.call(market.dso, "congestion.close_gate", auction=AUCTION)
    market.net.to(market.closes - 60_000)  # a clock that goes back does not open a gate again
    refused("gate_closed", "auction", lambda: market.offer(market.agg_a, good))
    refused("gate_closed", "orders", lambda: market.nominate(market.agg_a, revision=2))
    refused("gate_closed", "auction", lambda: market.net.call(market.dso, "congestion.close_gate", auction=AUCTION))


def test_before_the_gate_opens_nothing_is_taken() -> None:
    market = Market.start(gate_opening={"relative_to": "delivery_date", "offset_s": -57_600 + 1800})
    market.nominate(market.agg_a)
    market.request()
    good = option(100_000, [10_000, 10_000, 0], a1=[10_000, 10_000, 0])
    refused("gate_not_open", "auction", lambda: market.offer(market.agg_a, good))


def test_an_offer_reads_what_closing_the_gate_writes() -> None:
    """So an envelope that is held back over the gate conflicts at commit."""

    market = ready()
    reads: set[str] = set()
    original = MemoryContext.get

    def spy(self: MemoryContext, name: str) -> bytes | None:
        reads.add(name)
        return original(self, name)

    MemoryContext.get = spy  # type: ignore[method-assign]
    try:
        market.offer(market.agg_a, option(100_000, [10_000, 10_000, 0], a1=[10_000, 10_000, 0]))
    finally:
        MemoryContext.get = original  # type: ignore[method-assign]
    before = dict(market.net.ledger.state)
    market.close()
    after = market.net.ledger.state
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert key("auction", AUCTION) in reads & changed


@pytest.mark.parametrize(
    ("code", "field", "made"),
    [
        ("price_limit", "options.0.price_nano_eur_per_wh", option(3_000_001, [1_000, 0, 0], a1=[1_000, 0, 0])),
        ("price_limit", "options.0.price_nano_eur_per_wh", option(-1, [1_000, 0, 0], a1=[1_000, 0, 0])),
        ("granularity", "options.0.isps.0.power_w", option(1, [1_050, 0, 0], a1=[1_050, 0, 0])),
        ("quantity", "options.0.isps.0.power_w", option(1, [500, 0, 0], a1=[500, 0, 0])),
        ("power_limit", "options.0.isps.0.power_w", option(1, [20_100, 0, 0], a1=[20_100, 0, 0])),
        ("power_limit", "options.0.isps.1.power_w", option(1, [1_000, -1_000, 0], a1=[1_000, -1_000, 0])),
        ("power_limit", "options.0.isps.2.power_w", option(1, [1_000, 0, -8_100], a1=[1_000, 0, -8_100])),
        ("power", "options.0.isps", option(1, [0, 0, -1_000], a1=[0, 0, -1_000])),
        ("isp_list", "options.0.isps", option(1, [1_000], isps=(49,), a1=[1_000])),
        ("isp_list", "options.0.isps", option(1, [1_000, 0, 0], isps=(49, 51, 80), a1=[1_000, 0, 0])),
        ("isp_list", "options.0.connections.0.power_w", option(1, [1_000, 0, 0], a1=[1_000])),
        ("shares", "options.0.connections", option(1, [1_000, 0, 0], a1=[900, 0, 0])),
        ("mandate", "options.0.connections.0.connection", option(1, [1_000, 0, 0], b1=[1_000, 0, 0])),
        ("mandate", "options.0.connections.0.connection", option(1, [1_000, 0, 0], c9=[1_000, 0, 0])),
        ("invalid_argument", "options.0.min_activation_percent", option(1, [1, 0, 0], min_percent=0, a1=[1, 0, 0])),
    ],
)
def test_an_offer_beyond_the_rules_is_refused(code: str, field: str, made: dict[str, Any]) -> None:
    market = ready()
    refused(code, field, lambda: market.offer(market.agg_a, made))
    assert market.net.ask("congestion.offers", auction=AUCTION) == []
    assert market.held() == {}


def test_option_ids_and_offers_stand_once() -> None:
    market = ready()
    good = option(1, [1_000, 0, 0], a1=[1_000, 0, 0])
    refused("option_id", "options.1.option_id", lambda: market.offer(market.agg_a, good, good))
    refused("no_options", "options", lambda: market.offer(market.agg_a))
    refused("unknown_prognosis", "prognosis_revision", lambda: market.offer(market.agg_a, good, prognosis_revision=2))
    market.offer(market.agg_a, good)
    refused("offer_exists", "offer_id", lambda: market.offer(market.agg_a, good, offer_id="again"))
    refused("offer_id", "offer_id", lambda: market.offer(market.agg_b, good, offer_id="offer-a"))
    refused(
        "not_owner", "offer_id",
        lambda: market.net.call(market.agg_b, "congestion.revoke", auction=AUCTION, offer_id="offer-a"),
    )  # fmt: skip
    market.net.call(market.agg_a, "congestion.revoke", auction=AUCTION, offer_id="offer-a")
    assert market.held() == {} and market.money(market.agg_a) == 1_000_000_000
    reserved = market.net.ask("portfolio.reserved", connection="a1", direction="withdrawal", date=DATE)
    assert reserved["holds"] == {} and not any(reserved["reserved_w"])
    market.offer(market.agg_a, good)


def test_roles_and_owners() -> None:
    market = Market.start()
    other = market.net.actor("dso", org="dso")
    outsider = market.net.actor("prosumer", org="agg-a")
    narrow = market.net.actor("aggregator", org="agg-a", markets=["another-product"])
    refused("role", "actor", lambda: market.nominate(outsider))
    refused("role", "actor", lambda: market.nominate(narrow))
    foreign = {"product": PRODUCT, "congestion_point": POINT, "date": DATE, "direction": "withdrawal"}
    ask = [requested(49, 0, 1_000)]
    refused("role", "actor", lambda: market.net.call(outsider, "congestion.request", **foreign, isps=ask))
    refused("not_dso", "congestion_point", lambda: market.net.call(other, "congestion.request", **foreign, isps=ask))
    nowhere = {**foreign, "congestion_point": "cp-9"}
    refused(
        "unknown_congestion_point", "congestion_point",
        lambda: market.net.call(market.dso, "congestion.request", **nowhere, isps=ask),
    )  # fmt: skip
    market.request()
    refused("auction_exists", "", lambda: market.request())
    refused("unknown_auction", "auction", lambda: market.net.call(market.dso, "congestion.clear", auction="none"))
    market.close()
    refused("not_buyer", "auction", lambda: market.net.call(other, "congestion.clear", auction=AUCTION))


@pytest.mark.parametrize(
    ("code", "field", "isps"),
    [
        ("isp", "isps.1.isp", [requested(49, 0, 1_000), requested(49, 0, 1_000)]),
        ("isp", "isps.0.isp", [requested(97, 0, 1_000)]),
        ("power", "isps.0.max_w", [requested(49, 2_000, 1_000)]),
        ("direction", "isps.0.min_w", [requested(49, -1_000, 1_000)]),
        ("direction", "isps.0.min_w", [requested(49, 0, 0)]),
        ("power", "isps.1.min_w", [requested(49, 0, 1_000), available(50, 100, 200)]),
        ("no_need", "isps", [available(50, -100, 200)]),
    ],
)
def test_a_request_without_sense_is_refused(code: str, field: str, isps: list[dict[str, Any]], market: Market) -> None:
    refused(code, field, lambda: market.request(isps))


def test_prognoses_are_numbered_and_complete(market: Market) -> None:
    refused("revision", "revision", lambda: market.nominate(market.agg_a, revision=2))
    refused("isps", "power_w", lambda: market.nominate(market.agg_a, [0] * 95))
    refused("unknown_product", "product", lambda: market.nominate(market.agg_a, product="other"))
    refused("calendar", "date", lambda: market.nominate(market.agg_a, date="2030-01-01"))
    refused("unknown_order", "orders.0", lambda: market.nominate(market.agg_a, orders=["order-x"]))
    market.nominate(market.agg_a, 5)
    market.nominate(market.agg_a, 6, revision=2)
    found = market.net.ask(
        "congestion.prognoses", product=PRODUCT, congestion_point=POINT, date=DATE, aggregator=market.agg_a.did
    )
    assert [(item["revision"], item["power_w"][0]) for item in found] == [(1, 5), (2, 6)]


def test_the_updated_prognosis_is_the_baseline_and_the_order(market: Market) -> None:
    first, second = market.order()
    watts = [0] * 96
    watts[48] = watts[49] = 10_000
    watts[79] = -4_000
    wrong = [*watts[:79], -3_999, *watts[80:]]
    named = {"revision": 2, "orders": [first["order_id"]]}
    refused("not_contained", "power_w.79", lambda: market.nominate(market.agg_a, wrong, **named))
    theirs = {"revision": 2, "orders": [second["order_id"]]}
    refused("unknown_order", "orders.0", lambda: market.nominate(market.agg_a, watts, **theirs))
    refused("gate_closed", "orders", lambda: market.nominate(market.agg_a, watts, revision=2))
    market.nominate(market.agg_a, watts, **named)


def test_activation_is_recorded_under_the_order(market: Market) -> None:
    first, _ = market.order()
    named = {"order_id": first["order_id"], "hash": "ab" * 32}
    refused(
        "not_owner", "order_id",
        lambda: market.net.call(market.agg_b, "congestion.activation", stage="commanded", **named),
    )  # fmt: skip
    market.net.call(market.agg_a, "congestion.activation", stage="commanded", **named)
    market.net.call(market.agg_a, "congestion.activation", stage="activated", **named)
    stages = [item["stage"] for item in market.net.ask("congestion.order", order_id=first["order_id"])["activations"]]
    assert sorted(stages) == ["activated", "commanded"]


def test_an_order_counts_only_as_the_award_names_it(market: Market) -> None:
    first, _ = market.order()
    name = key("order", first["order_id"])
    stands = market.net.ledger.state[name]
    market.net.ledger.state[name] = stands.replace(b'"price_nano_eur_per_wh":100000', b'"price_nano_eur_per_wh":900000')
    assert market.net.ledger.state[name] != stands
    named = {"order_id": first["order_id"], "hash": "ab" * 32, "stage": "commanded"}
    refused("not_awarded", "order_id", lambda: market.net.call(market.agg_a, "congestion.activation", **named))
    market.net.ledger.state[name] = stands
    market.net.call(market.agg_a, "congestion.activation", **named)


def test_without_money_no_offer_and_no_clearing() -> None:
    market = Market.start(fund_micro_eur=0)
    market.nominate(market.agg_a)
    market.request()
    good = option(100_000, [10_000, 10_000, 0], a1=[10_000, 10_000, 0])
    refused("funds", "account", lambda: market.offer(market.agg_a, good))
    market.net.call(market.net.operator, "accounts.fund", account=f"actor:{market.agg_a.did}", micro_eur=1_000_001)
    market.offer(market.agg_a, good)
    market.close()
    refused("funds", "account", lambda: market.clear())
    market.net.call(market.net.operator, "accounts.fund", account=f"actor:{market.dso.did}", micro_eur=500_000)
    assert len(market.clear()) == 1


def test_an_auction_that_is_not_cleared_in_time_gives_everything_back() -> None:
    market = ready()
    market.offer(market.agg_a, option(100_000, [10_000, 10_000, 0], a1=[10_000, 10_000, 0]))
    market.close()
    revoke = {"auction": AUCTION, "offer_id": "offer-a"}
    refused("gate_closed", "auction", lambda: market.net.call(market.agg_a, "congestion.revoke", **revoke))
    market.net.to(market.day.bounds(49)[0] - 900_000)
    refused("lapsed", "auction", lambda: market.clear())
    market.net.call(market.agg_a, "congestion.revoke", **revoke)
    assert market.held() == {} and market.money(market.agg_a) == 1_000_000_000


def test_an_order_cannot_be_revoked() -> None:
    market = Market.start()
    market.order()
    market.net.to(market.day.end)
    revoke = {"auction": AUCTION, "offer_id": "offer-a"}
    refused("gate_closed", "auction", lambda: market.net.call(market.agg_a, "congestion.revoke", **revoke))


def test_an_intent_is_used_once_and_on_its_own_network() -> None:
    market = ready()
    net, args = market.net, {"auction": AUCTION, "offer_id": "offer-a", "prognosis_revision": 1}
    args["options"] = [option(1, [1_000, 0, 0], a1=[1_000, 0, 0])]
    creator = net.creators["agg-a"]
    intent = market.agg_a.intent("congestion.offer", args, deadline=net.ledger.now + 60_000)
    net.ledger.run(intent, creator)
    refused("intent_used", "intent_id", lambda: net.ledger.run(intent, creator))
    late = market.agg_a.intent("congestion.revoke", args, deadline=net.ledger.now - 1)
    refused("expired", "deadline", lambda: net.ledger.run(late, creator))
    other = intent.replace(b'"network":"test"', b'"network":"else"')
    refused("wrong_network", "network", lambda: net.ledger.run(other, creator))
    version = intent.replace(b'"v":1}', b'"v":2}')
    refused("unknown_version", "v", lambda: net.ledger.run(version, creator))
    foreign = market.agg_a.intent("congestion.offer", args, deadline=net.ledger.now + 60_000)
    refused("gateway_grant", "", lambda: net.ledger.run(foreign, net.creators["agg-b"]))


def test_a_part_of_an_odd_share_is_reserved_rounded_up() -> None:
    market = Market.start(granularity_w=1)
    market.nominate(market.agg_a)
    market.request([requested(49, 0, 1_001)])
    market.offer(market.agg_a, option(100_000, [1_001], isps=(49,), a1=[333], a2=[668]))
    market.close()
    (order,) = market.clear()
    assert order["isps"][0]["power_w"] == 1_001
    shares = Option.model_validate(option(1, [1_001], isps=(49,), a1=[333], a2=[668]))
    half = needs(shares, market.day, 50)
    assert [half[name, "withdrawal"][48] for name in ("a1", "a2")] == [167, 334]


def test_a_revision_that_contains_an_order_is_no_baseline() -> None:
    market = Market.start()
    order, _ = market.order()
    watts = [0] * 96
    watts[48] = watts[49] = 10_000
    watts[79] = -4_000
    market.nominate(market.agg_a, watts, revision=2, orders=[order["order_id"]])
    context = MemoryContext(market.net.ledger, "0" * 64, 0, market.net.creators["dso"], {})
    auction = market.net.ask("congestion.auction", auction=AUCTION)
    assert power_of(context, auction, market.agg_a.did, 1) == [0] * 96
    refused("contains_order", "", lambda: power_of(context, auction, market.agg_a.did, 2))


def test_a_request_comes_before_the_gate_closes(market: Market) -> None:
    market.net.to(market.closes)
    refused("gate_closed", "date", lambda: market.request())


def test_a_connection_elsewhere_does_not_help_here() -> None:
    market = ready()
    market.net.connection("far", dso=market.dso, owner=market.agg_a, aggregator=market.agg_a, congestion_point="cp-2")
    made = option(1, [1_000, 0, 0], far=[1_000, 0, 0])
    refused("congestion_point", "options.0.connections.0.connection", lambda: market.offer(market.agg_a, made))


def test_private_data_goes_to_the_two_parties_and_nobody_else() -> None:
    """A collection that others share does not do."""
    two = {"all": ["agg-a", "agg-b", "dso"], "dso--agg-b": ["agg-b", "dso"]}
    network = {"collections": two}
    caller = Caller("did", "actor", "", "dso", "gateway", network)
    assert shared_collection(caller, "dso", "agg-b") == "dso--agg-b"
    refused("no_collection", "", lambda: shared_collection(caller, "dso", "agg-a"))


def test_an_order_is_contained_where_it_was_given() -> None:
    """An order of one date does not excuse a late revision for another."""
    market = Market.start()
    order, _ = market.order()
    market.nominate(market.agg_a, date="2016-05-21")
    market.request(date="2016-05-21")
    watts = [0] * 96
    watts[48] = watts[49] = 10_000
    watts[79] = -4_000
    elsewhere = {"date": "2016-05-21", "revision": 2, "orders": [order["order_id"]]}
    refused("unknown_order", "orders.0", lambda: market.nominate(market.agg_a, watts, **elsewhere))


def test_orders_of_less_than_a_watt_share_the_room_too() -> None:
    """Of needs (1, 1, 1) W and options (1, 1, 0), (0, 1, 1), (1, 0, 1) W half of each covers everything for the least
    money; half a watt is ordered as none, and the room of ISP 80 has no weights to go by."""
    market = Market.start(granularity_w=1, min_quantity_w=1)
    third = market.net.actor("aggregator", org="agg-b")
    market.net.call(market.net.operator, "accounts.fund", account=f"actor:{third.did}", micro_eur=1_000_000)
    market.net.connection("c1", dso=market.dso, owner=third, meter=True, aggregator=third)
    qualified = {"connection": "c1", "direction": "withdrawal", "max_w": 20, "valid_from": "2016-05-12"}
    market.net.call(market.dso, "portfolio.qualify", **qualified)
    market.request([*(requested(isp, 0, 1) for isp in (49, 50, 51)), available(80, -8, 0)])
    offers = ((market.agg_a, "a1", [1, 1, 0, 0]), (market.agg_b, "b1", [0, 1, 1, 0]), (third, "c1", [1, 0, 1, 0]))
    for party, connection, power in offers:
        market.nominate(party)
        offered = option(100_000, power, isps=(49, 50, 51, 80), min_percent=1, **{connection: power})
        market.offer(party, offered, offer_id=f"offer-{connection}")
    market.close()
    assert len(market.net.call(market.dso, "congestion.clear", auction=AUCTION)["orders"]) == 3
