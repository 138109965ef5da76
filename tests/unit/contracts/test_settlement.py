"""Settlement: money by hand, finality, later runs, and the refusals."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.market import ISP_S, Market, product

from flexrelay_contracts.market.lines import Metered, settle_order
from flexrelay_contracts.refusal import Refused
from flexrelay_schemas.product import Product

GOLDEN = sorted((Path(__file__).parent / "golden").glob("settlement_*.json"))


def refused(code: str, field: str, action: Callable[[], object]) -> None:
    with pytest.raises(Refused) as caught:
        action()
    assert (caught.value.code, caught.value.field) == (code, field)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    """A scenario with its money worked out by hand (see the file's own words)."""
    story = json.loads(path.read_text())
    market = Market.start(**story["product"])
    orders = market.order(story["price_a"], story["price_b"])
    for connection, energies in story["energy_j"].items():
        for isp, energy in energies.items():
            market.energy[connection, int(isp)] = energy
    before = [market.money(party) for party in (market.dso, market.agg_a, market.agg_b)]
    escrowed = [sum(order["buyer_escrow_micro_eur"] for order in orders)]
    escrowed += [order["collateral_micro_eur"] for order in orders]
    nets = []
    for order in orders:
        market.settle(order)
        record = market.net.ask("settlement.one", settlement=f"{order['order_id']}.initial")
        nets.append([line["net_micro_eur"] for line in record["lines"]])
    assert nets == story["expected"]["net_micro_eur"]
    after = [market.money(party) for party in (market.dso, market.agg_a, market.agg_b)]
    moved = [new - old - held for new, old, held in zip(after, before, escrowed, strict=True)]
    assert dict(zip(("dso", "agg_a", "agg_b"), moved, strict=True)) == story["expected"]["paid_micro_eur"]
    assert market.balances().get("rounding", 0) == story["expected"]["rounding_micro_eur"]
    assert market.held() == {}


def test_full_delivery_pays_the_price_and_empties_the_escrows() -> None:
    market = Market.start()
    orders = market.order()
    market.deliver(*orders)
    for order in orders:
        market.settle(order)
    assert market.money(market.agg_a) == 1_000_000_000 + 500_000
    assert market.money(market.agg_b) == 1_000_000_000 + 600_000
    assert market.money(market.dso) == 1_000_000_000 - 1_100_000
    assert market.held() == {}


def test_a_settlement_is_not_final_before_acceptance_or_the_windows_end() -> None:
    market = Market.start()
    order, _ = market.order()
    market.deliver(order)
    name = market.propose(order)
    refused("dispute_window", "settlement", lambda: market.net.call(market.dso, "settlement.finalise", settlement=name))
    refused("not_party", "actor", lambda: market.net.call(market.agg_b, "settlement.accept", settlement=name))
    refused("own_proposal", "settlement", lambda: market.net.call(market.dso, "settlement.accept", settlement=name))
    refused("not_party", "actor", lambda: market.net.call(market.agg_b, "settlement.finalise", settlement=name))
    market.net.to(market.net.market_ms + 172_800_000)
    market.net.call(market.agg_a, "settlement.finalise", settlement=name)
    assert market.money(market.agg_a) == 1_000_000_000 + 500_000


def test_nothing_changes_after_finality() -> None:
    market = Market.start()
    order, _ = market.order()
    market.deliver(order)
    market.settle(order)
    name = f"{order['order_id']}.initial"
    before = market.balances()
    state = dict(market.net.ledger.state)
    refused(
        "settlement_status", "settlement", lambda: market.net.call(market.agg_a, "settlement.accept", settlement=name)
    )
    refused(
        "settlement_status", "settlement", lambda: market.net.call(market.dso, "settlement.finalise", settlement=name)
    )
    refused("settlement_exists", "run", lambda: market.propose(order))
    refused("settlement_status", "settlement", lambda: market.open(market.agg_a, name, 49, "a1", 1))
    assert market.balances() == before and market.net.ledger.state == state


def test_a_later_run_posts_the_difference_only() -> None:
    market = Market.start()
    order, _ = market.order()
    market.deliver(order)
    market.energy["a1", 49] = 8_000 * ISP_S
    refused("run", "run", lambda: market.propose(order, "month"))
    market.settle(order)
    # ISP 49: 2000 of 2500 Wh delivered: 200,000 µ€ less 500 Wh × 150,000 n€ = 75,000 µ€
    assert market.money(market.agg_a) == 1_000_000_000 + 125_000 + 250_000
    market.energy["a1", 49] = 9_000 * ISP_S
    market.settle(order, "month")
    assert market.money(market.agg_a) == 1_000_000_000 + (225_000 - 37_500) + 250_000
    market.energy["a1", 49] = 1_000 * ISP_S
    market.settle(order, "final")
    assert market.money(market.agg_a) == 1_000_000_000 + (25_000 - 337_500) + 250_000
    balances = market.balances()
    assert balances[f"actor:{market.dso.did}"] - 1_000_000_000 + 600_000 == 62_500  # B's order is in escrow still
    refused("run", "run", lambda: market.propose(order, "fourth"))


def test_rebound_beyond_the_room_is_charged_up_to_the_ordered_energy() -> None:
    market = Market.start()
    order, _ = market.order()
    market.deliver(order)
    room_w = order["isps"][2]["room_w"]
    assert room_w == 6_000, "4 kW declared and half of the 4 kW left"
    market.energy["a1", 80] = -(room_w + 1_000) * ISP_S
    name = market.propose(order)
    line = market.net.ask("settlement.one", settlement=name)["lines"][2]
    assert line["net_micro_eur"] == -12_500  # 250 Wh × 50,000 n€
    other, _ = Market.order(second := Market.start())
    second.deliver(other)
    second.energy["a1", 80] = -1_000_000 * ISP_S
    second.settle(other)
    assert second.money(second.agg_a) == 1_000_000_000 + 500_000 - 250_000
    assert second.held().keys() == {f"escrow:{p.did}:{other['auction']}" for p in (second.dso, second.agg_b)}


def test_a_proposal_is_complete_and_adds_up() -> None:
    market = Market.start()
    order, other = market.order()
    market.deliver(order)
    good = market.proposal(order)
    market.net.to(market.day.bounds(80)[1] + 3_600_000 - 1)  # the last ISP is over, the time to anchor is not
    refused("too_early", "order_id", lambda: market.net.call_with(
        {"detail": b"{}"}, market.dso, "settlement.propose", detail_hash="0" * 64,
        **{name: good[name] for name in ("order_id", "run", "lines")},
    ))  # fmt: skip

    def changed(change: Callable[[dict[str, Any]], None]) -> Callable[[], object]:
        arguments = json.loads(json.dumps(market.proposal(order)))
        change(arguments)
        return lambda: market.send_proposal(arguments)

    refused("unknown_order", "order_id", changed(lambda a: a.update(order_id="order-0")))
    refused("run", "run", changed(lambda a: a.update(run="weekly")))
    refused("isp_list", "lines", changed(lambda a: a["lines"].pop()))
    refused("detail_hash", "detail_hash", changed(lambda a: a.update(detail_hash="0" * 64)))
    refused("detail", "detail", changed(lambda a: a["detail"].update(run="month")))
    refused("detail_sum", "lines.0.actual_j", changed(lambda a: a["lines"][0].update(actual_j=7)))
    refused("quality", "lines.1.quality", changed(lambda a: a["lines"][1].update(quality=2)))
    refused("connections", "detail.connections", changed(lambda a: a["detail"]["connections"].pop()))
    refused(
        "connections", "detail.connections",
        changed(lambda a: a["detail"]["connections"].append(a["detail"]["connections"][0])),
    )  # fmt: skip
    refused("isp_list", "detail.connections.0", changed(lambda a: a["detail"]["connections"][0]["energy_j"].pop()))
    refused("invalid_argument", "detail.salt", changed(lambda a: a["detail"].update(salt="short")))
    refused("invalid_argument", "lines.0.actual_j", changed(lambda a: a["lines"][0].update(actual_j=True)))
    market.send_proposal(good)
    assert not [name for name in market.balances() if name == "rounding"]
    assert market.net.ask("settlement.one", settlement=f"{order['order_id']}.initial")["status"] == "proposed"
    refused("unknown_settlement", "settlement", lambda: market.net.ask("settlement.one", settlement=other["order_id"]))


def test_the_buyer_proposes_and_the_aggregator_when_the_buyer_does_not() -> None:
    market = Market.start()
    order, _ = market.order()
    market.deliver(order)
    stranger = market.net.actor("dso", org="dso")
    dso = market.dso
    market.dso = stranger
    refused("not_party", "actor", lambda: market.propose(order))
    market.dso = market.agg_a
    refused("not_buyer", "order_id", lambda: market.propose(order))
    market.net.to(market.net.market_ms + 172_800_000)
    name = market.propose(order)
    refused("own_proposal", "settlement", lambda: market.net.call(market.agg_a, "settlement.accept", settlement=name))
    market.net.call(dso, "settlement.accept", settlement=name)
    market.net.call(market.agg_a, "settlement.finalise", settlement=name)
    assert market.money(market.agg_a) == 1_000_000_000 + 500_000
    refused("not_buyer", "order_id", lambda: market.propose(order, "month"))


def test_all_rebound_together_is_charged_up_to_the_ordered_energy() -> None:
    """1000 W ordered for a quarter of an hour, no room: 800 W and 700 W of rebound are charged as 800 W and 200 W."""
    isps = [(1, "requested", 1_000), (2, "available", 0), (3, "available", 0)]
    order = {
        "direction": "withdrawal",
        "price_nano_eur_per_wh": 100_000,
        "penalty_nano_eur_per_wh": 150_000,
        "isps": [{"isp": isp, "disposition": kind, "power_w": power, "room_w": 0} for isp, kind, power in isps],
    }
    metered = [Metered(1, 900_000, 3, ""), Metered(2, -720_000, 3, ""), Metered(3, -630_000, 3, "")]
    lines, totals = settle_order(Product.model_validate(product()), order, [0, 0, 0], 900, metered)
    assert [line["net_micro_eur"] for line in lines] == [25_000, -10_000, -2_500]
    assert (totals.buyer_micro_eur, totals.rounding_micro_eur) == (12_500, 0)


@pytest.mark.parametrize(("left", "unpaid"), [(1_000_000, 0), (499_999, 0), (200_000, 299_999), (0, 499_999)])
def test_a_response_the_other_way_costs_more_than_the_collateral(left: int, unpaid: int) -> None:
    """A draws 10 kW less instead of more in both ISPs: deficiency 20 kW, 2 x 750,000 µ€, the collateral is 1,000,001.

    What is beyond comes from A's account; what A has not is written off, and the DSO still gets its escrow back.
    """
    market = Market.start()
    order, _ = market.order()
    market.energy["a1", 49] = market.energy["a1", 50] = -10_000 * ISP_S
    account = f"actor:{market.agg_a.did}"
    spent = market.money(market.agg_a) - left
    market.net.call(market.net.operator, "accounts.withdraw", account=account, micro_eur=spent)
    before = market.money(market.dso)
    paid = market.settle(order)
    assert (paid["provider_micro_eur"], paid["unpaid_micro_eur"]) == (-1_500_000, unpaid)
    assert market.money(market.agg_a) == left - (499_999 - unpaid)
    assert market.money(market.dso) == before + 500_000 + 1_500_000 - unpaid
    assert not [name for name in market.held() if market.agg_a.did in name]


def test_what_is_earned_in_one_interval_pays_for_another() -> None:
    """ISP 49 earns 250,000 µ€; in ISP 50 A feeds in 40 kW: 12,500 Wh deficient, 1,875,000 µ€, of which 874,999 are
    beyond the collateral. With nothing in the account 250,000 of them are paid."""
    market = Market.start()
    order, _ = market.order()
    market.energy["a1", 49], market.energy["a1", 50] = 10_000 * ISP_S, -40_000 * ISP_S
    account = f"actor:{market.agg_a.did}"
    everything = market.money(market.agg_a)
    market.net.call(market.net.operator, "accounts.withdraw", account=account, micro_eur=everything)
    before = market.money(market.dso)
    assert market.settle(order)["unpaid_micro_eur"] == 624_999
    assert market.money(market.agg_a) == 0
    assert market.money(market.dso) == before + 500_000 - 250_000 + 1_875_000 - 624_999


def test_a_later_run_pays_nobody_back_what_it_never_paid() -> None:
    """A draws 10 kW less instead of more in both ISPs, has nothing left and owes 1,500,000 µ€: 499,999 are written off.

    The month's run finds 4 kW less of the wrong way in ISP 49: A owes less then, and what was written off goes off
    first. Otherwise the DSO would pay for an account that was empty at the right moment.
    """
    market = Market.start()
    order, _ = market.order()
    market.energy["a1", 49] = market.energy["a1", 50] = -10_000 * ISP_S
    everything = market.money(market.agg_a)
    market.net.call(market.net.operator, "accounts.withdraw", account=f"actor:{market.agg_a.did}", micro_eur=everything)
    before = market.money(market.dso)
    assert market.settle(order)["unpaid_micro_eur"] == 499_999
    market.energy["a1", 49] = -6_000 * ISP_S
    assert market.settle(order, "month")["unpaid_micro_eur"] == 349_999  # 4 kW in a quarter of an hour: 150,000 µ€
    assert market.money(market.agg_a) == 0
    market.energy["a1", 49] = market.energy["a1", 50] = 10_000 * ISP_S
    assert market.settle(order, "final")["unpaid_micro_eur"] == 0
    assert market.money(market.agg_a) == 1_000_001 + 500_000  # its collateral and the price
    assert market.money(market.dso) == before + 500_000 - 500_000
    assert not [name for name in market.held() if market.agg_a.did in name]
