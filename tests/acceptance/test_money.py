"""Money: every line, verdict, trade, imbalance and account recomputed by the auditor."""

from fractions import Fraction
from math import floor

import pytest
from acceptance.conftest import Run
from acceptance.independent.money import (
    Imbalance,
    first_principles,
    imbalance,
    local_trades,
    posted,
    settlements,
    verdicts,
)

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def imbalances(run: Run) -> Imbalance:
    losses = run.chain.calls("imbalance.allocate")[0].args["losses_brp"]
    return imbalance(run.market, run.report["meters"][run.report["congestion_point"]], losses)


def test_proposals_are_what_the_dso_could_know(run: Run) -> None:
    """Energies and ranks of the proposed lines, the damaged reading estimated from its neighbours."""
    wanted = settlements(run.market, judged=False)
    for call in run.chain.calls("settlement.propose"):
        found = wanted[call.args["order_id"]]
        assert {line["isp"]: line["actual_j"] for line in call.args["lines"]} == found.actual
        assert {line["isp"]: line["quality"] for line in call.args["lines"]} == found.ranks
    for event in run.chain.events("settlement.proposed"):
        found = wanted[event["order_id"]]
        assert (event["provider_micro_eur"], event["buyer_micro_eur"]) == (found.provider, found.buyer)


def test_verdicts_are_what_the_meters_say(run: Run) -> None:
    wanted = {verdict.dispute_id: verdict for verdict in verdicts(run.market)}
    events = run.chain.events("dispute.resolved")
    assert len(events) == len(wanted) == 2
    for event in events:
        assert event["verdict"] == wanted[event["dispute_id"]].winner
    winners = {wanted[event["dispute_id"]].challenger: event["verdict"] for event in events}
    assert sorted(winners.values()) == ["challenger", "respondent"]


def test_bs_claim_is_four_kilowatt_hours_above_the_meter(run: Run) -> None:
    (lost,) = [verdict for verdict in verdicts(run.market) if verdict.winner == "respondent"]
    meter = run.market.meter[lost.connection]
    assert lost.claimed_j - run.market.true_j(meter, lost.isp) == 4_000 * 3600
    own = run.holders["agg-b"].net_j(meter, *run.market.bounds(lost.isp))
    assert own == run.market.true_j(meter, lost.isp), "B's own journal holds the meter's word against it"


def test_final_lines_are_volume_times_price(run: Run) -> None:
    wanted = settlements(run.market, judged=True)
    events = {event["order_id"]: event for event in run.chain.events("settlement.final")}
    assert events.keys() == wanted.keys()
    for order_id, event in events.items():
        found = wanted[order_id]
        for line, (delivered, deficiency, net) in zip(event["lines"], found.lines, strict=True):
            assert line["actual_j"] == found.actual[line["isp"]]
            assert line["quality"] == found.ranks[line["isp"]]
            assert (line["delivered_j"], line["deficiency_j"]) == (delivered, deficiency)
            assert line["net_micro_eur"] == floor(net)
        assert (event["provider_micro_eur"], event["buyer_micro_eur"]) == (found.provider, found.buyer)
    reported = [(line["order_id"], line["isp"], line["net_micro_eur"]) for line in run.report["settlement"]]
    assert sorted(reported) == sorted(
        (order_id, line["isp"], line["net_micro_eur"]) for order_id, event in events.items() for line in event["lines"]
    )


def test_a_dispute_changed_one_line_and_the_estimate_beside_it(run: Run) -> None:
    """What one line gains the other gives up: both are then what the meter says, and their sum is what it was."""
    before, after = settlements(run.market, judged=False), settlements(run.market, judged=True)
    (won,) = [verdict for verdict in verdicts(run.market) if verdict.winner == "challenger"]
    for order_id, found in after.items():
        old = before[order_id]
        changed = [isp for isp, energy in found.actual.items() if energy != old.actual[isp]]
        assert changed == ([won.isp, won.isp + 1] if order_id == won.order_id else [])
        assert sum(found.actual.values()) == sum(old.actual.values())
        for isp in changed:
            portfolio = run.market.portfolio(run.market.orders[order_id]["aggregator"])
            assert found.actual[isp] == sum(run.market.true_j(run.market.meter[name], isp) for name in portfolio)
    assert (before[won.order_id].ranks[won.isp], after[won.order_id].ranks[won.isp]) == (1, 3)
    (event,) = [e for e in run.chain.events("dispute.resolved") if e["verdict"] == "challenger"]
    assert event["neighbour"] == {"isp": won.isp + 1, "delta_j": won.defended_j - won.claimed_j, "reason": ""}


def test_the_failed_battery_costs_b_a_penalty_and_a_nothing(run: Run) -> None:
    deficiency = {
        run.report["names"][run.market.orders[order_id]["aggregator"]]: sum(
            missing
            for item, (_, missing, _) in zip(run.market.orders[order_id]["isps"], found.lines, strict=True)
            if item["disposition"] == "requested"
        )
        for order_id, found in settlements(run.market, judged=True).items()
    }
    assert deficiency["agg-a/aggregator"] == 0
    assert deficiency["agg-b/aggregator"] > 0


def test_local_auctions_clear_at_one_price_under_the_headroom(run: Run) -> None:
    trades = local_trades(run.market)
    events = {event["auction"]: event for event in run.chain.events("local_energy.cleared")}
    assert events.keys() == trades.keys()
    for auction, event in events.items():
        trade = trades[auction]
        assert (event["volume_j"], event["price_nano_eur_per_wh"]) == (trade.volume, trade.price)
        assert event["fills"] == trade.fills
        assert 0 < event["volume_j"] <= event["cap_j"]
    for event in run.chain.events("local_energy.settled"):
        for line in event["lines"]:
            sign = -1 if line["side"] == "buy" else 1
            exact = Fraction(sign * line["energy_j"] * line["price_nano_eur_per_wh"], 3_600_000)
            assert line["cash_micro_eur"] == floor(exact)
            fee = Fraction(line["energy_j"] * 5_000, 3_600_000) if line["side"] == "buy" else 0
            assert line["fee_micro_eur"] == floor(fee)


def test_imbalances_are_allocation_less_position(run: Run, imbalances: Imbalance) -> None:
    (event,) = run.chain.events("imbalance.settled")
    assert event["imbalance_j"] == imbalances.energy_j
    assert event["cash_micro_eur"] == {brp: floor(-owed) for brp, owed in imbalances.owed.items()}
    system = [sum(column) for column in zip(*imbalances.energy_j.values(), strict=True)]
    assert event["system_imbalance_j"] == system


def test_the_aggregators_brps_nominated_their_orders(run: Run) -> None:
    nominated = {call.actor: call.args["energy_j"] for call in run.chain.calls("imbalance.nominate")}
    for order in run.market.orders.values():
        brps = {run.market.brp[name] for name in run.market.portfolio(order["aggregator"])}
        (brp,) = brps
        wanted = [0] * len(run.market.isps)
        for item in order["isps"]:
            wanted[item["isp"] - 1] = item["power_w"] * 900
        assert nominated[brp] == wanted


def test_postings_give_the_reported_accounts(run: Run) -> None:
    books = posted(run.chain)
    assert {account: balance for account, balance in books.accounts.items() if balance} == run.report["accounts"]
    assert sum(books.accounts.values()) == run.report["cash_sum_micro_eur"] == 0


def test_first_principles_give_the_same_accounts(run: Run, imbalances: Imbalance) -> None:
    """Not one posting is looked at: registers, orders, prices, bonds and prices of imbalance are enough."""
    tso = run.chain.calls("imbalance.settle")[0].actor
    assert first_principles(run.market, imbalances, tso) == run.report["accounts"]


def test_every_product_nets_to_zero_by_itself(run: Run) -> None:
    books = posted(run.chain)
    assert {"congestion-day-ahead", "local-energy-auction", "imbalance"} <= set(books.by_product)
    for name, accounts in books.by_product.items():
        assert sum(accounts.values()) == 0, name
        held = {a: b for a, b in accounts.items() if a.partition(":")[0] in ("escrow", "bond")}
        assert not any(held.values()), (name, held)
        if name:
            assert accounts.get("external", 0) == 0, "money comes in under no product"


def test_escrow_and_bonds_end_at_zero_and_were_used(run: Run) -> None:
    for kind in ("escrow", "bond"):
        accounts = {a: b for a, b in posted(run.chain).accounts.items() if a.startswith(f"{kind}:")}
        assert accounts and not any(accounts.values())


def test_rounding_is_less_than_a_micro_euro_a_line(run: Run) -> None:
    lines = sum(len(event["lines"]) for event in run.chain.events("settlement.final"))
    trades = sum(len(event["lines"]) for event in run.chain.events("local_energy.settled"))
    cash = sum(len(event["cash_micro_eur"]) + 1 for event in run.chain.events("imbalance.settled"))
    assert abs(run.report["accounts"].get("rounding", 0)) < lines + trades + cash


def test_nobody_that_may_not_owes_money(run: Run) -> None:
    for account, balance in run.report["accounts"].items():
        assert balance >= 0 or account.partition(":")[0] in ("external", "brp", "imbalance", "rounding"), account
