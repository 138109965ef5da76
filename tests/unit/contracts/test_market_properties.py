"""What must always hold, over whole auctions with any offers, any metering and any disputes (markets.md)."""

import copy
import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.market import AUCTION, DATE, ISP_S, Market, option, product

from flexrelay_contracts.catalogue import TRANSACTIONS
from flexrelay_contracts.market.lines import Metered, settle_order
from flexrelay_contracts.refusal import Refused
from flexrelay_schemas.product import Product

START = 1_000_000_000


class Replay:
    """One market set up once; every example starts from the same ledger."""

    def __init__(self) -> None:
        self.market = Market.start()
        self.market.nominate(self.market.agg_a, 1_000)
        self.market.nominate(self.market.agg_b, -2_000)
        self.market.request()
        ledger = self.market.net.ledger
        self._kept = (dict(ledger.state), dict(ledger.private), list(ledger.events), ledger.now, ledger.count)

    def again(self) -> Market:
        ledger = self.market.net.ledger
        state, private, events, ledger.now, ledger.count = copy.copy(self._kept)
        ledger.state, ledger.private, ledger.events = dict(state), dict(private), list(events)
        self.market.energy.clear()
        return self.market


@pytest.fixture(scope="module")
def replay() -> Replay:
    return Replay()


hectowatts = st.integers(10, 200).map(lambda value: value * 100)


@st.composite
def offers(draw: st.DrawFn, first: str, second: str) -> list[dict[str, Any]]:
    """One to three options over two connections, with and without rebound."""
    made = []
    for index in range(draw(st.integers(1, 3))):
        rebound = -100 * draw(st.integers(0, 80))
        one, two = draw(hectowatts), draw(st.sampled_from([0, 1_000, 5_000, 20_000]))
        share = draw(st.integers(0, one // 100)) * 100
        made.append(
            option(
                draw(st.integers(0, 3_000_000)),
                [one, two, rebound],
                option_id=f"o{index}",
                min_percent=draw(st.sampled_from([1, 25, 50, 100])),
                **{first: [share, two, rebound], second: [one - share, 0, 0]},
            )
        )
    return made


energies = st.integers(-30_000 * ISP_S, 30_000 * ISP_S)
stories = st.fixed_dictionaries(
    {
        "a": offers("a1", "a2"),
        "b": st.none() | offers("b1", "b2"),
        "swap": st.booleans(),
        "energy": st.lists(energies, min_size=12, max_size=12),
        "later": st.none() | energies,
        "dispute": st.sampled_from(["", "wins", "loses", "entrusted", "stranger", "counter", "unresolved"]),
    }
)


def play(market: Market, story: dict[str, Any]) -> list[dict[str, Any]]:
    """Offers to orders to metering to final settlements; the invariants are checked at every step."""
    made = [(market.agg_a, story["a"]), (market.agg_b, story["b"])]
    for party, options in reversed(made) if story["swap"] else made:
        if options:
            market.offer(party, *options)
            check_money(market)
    market.close()
    orders = market.clear()
    check_money(market)
    check_reservations(market)
    for place, (connection, isp) in enumerate((c, i) for c in ("a1", "a2", "b1", "b2") for i in (49, 50, 80)):
        market.energy[connection, isp] = story["energy"][place]
    proofs = {}
    for order in orders:
        connection = "a1" if order["aggregator"] == market.agg_a.did else "b1"
        market.net.to(max(market.net.market_ms, market.day.end))
        own, other = ("agg-a", "agg-b") if connection == "a1" else ("agg-b", "agg-a")
        word = {
            "entrusted": (own, 2),
            "stranger": (other, 2),
        }  # an attested reading counts from its meter's people only
        org, attested = word.get(story["dispute"], ("agg-a", 0))
        energy = market.energy[connection, 49] + 3_600
        proofs[connection] = market.meter_proofs(org, connection, 49, energy, attested=attested)
    market.net.to(market.net.market_ms + 1000)
    for index, order in enumerate(orders):
        settle(market, story, order, proofs, f"d{index}")
    return orders


def settle(market: Market, story: dict[str, Any], order: dict[str, Any], proofs: dict[str, Any], dispute: str) -> None:
    ours = order["aggregator"] == market.agg_a.did
    aggregator, connection = (market.agg_a, "a1") if ours else (market.agg_b, "b1")
    name = market.propose(order)
    if story["dispute"]:
        proven = story["dispute"] in ("wins", "entrusted")
        claimed = market.energy[connection, 49] + (3_600 if proven or story["dispute"] == "stranger" else 7_200)
        challenger = market.dso if story["dispute"] == "counter" else aggregator
        market.open(challenger, name, 49, connection, claimed, dispute)
        check_money(market)
        if story["dispute"] not in ("loses", "unresolved"):
            market.show(aggregator, proofs[connection], dispute)
        market.net.to(market.net.market_ms + 172_800_000)
        verdict = market.resolve(market.dso, dispute)["verdict"]
        assert verdict == ("challenger" if proven else "respondent" if challenger is market.dso else "unresolved")
        check_money(market)
    before = rounding(market)
    market.net.call(aggregator, "settlement.accept", settlement=name)
    market.net.call(market.dso, "settlement.finalise", settlement=name)
    check_money(market)
    check_lines(market, order, "initial", rounding(market) - before)
    if story["later"] is not None:
        market.energy[connection, 49] = story["later"]
        market.settle(order, "month")
        check_lines(market, order, "month", rounding(market) - before)
        check_money(market)
    with pytest.raises(Refused, match="settlement_status"):
        market.net.call(market.dso, "settlement.finalise", settlement=name)


def rounding(market: Market) -> int:
    return market.balances().get("rounding", 0)


def check_money(market: Market) -> None:
    """Σ = 0, nothing that must not be negative is, and the journal by itself gives the same balances."""
    balances = market.balances()
    assert all(value >= 0 for name, value in balances.items() if name.startswith(("actor", "escrow", "bond")))
    journal: dict[str, int] = {}
    products: dict[str, int] = {}
    for name, payload in market.net.ledger.events:
        if name == "accounts.posted":
            document = json.loads(payload)
            for line in document["lines"]:
                for account, amount in ((line["debit"], -line["micro_eur"]), (line["credit"], line["micro_eur"])):
                    journal[account] = journal.get(account, 0) + amount
                    products[document["product"]] = products.get(document["product"], 0) + amount
    assert {n: v for n, v in journal.items() if v} == {n: v for n, v in balances.items() if v}
    assert set(products.values()) <= {0}


def check_reservations(market: Market) -> None:
    for connection in market.connections:
        for direction in ("withdrawal", "feed_in"):
            found = market.net.ask("portfolio.reserved", connection=connection, direction=direction, date=DATE)
            sums = [sum(hold["watts"][i] for hold in found["holds"].values()) for i in range(96)]
            assert sums == found["reserved_w"]
            assert all(r <= q for r, q in zip(found["reserved_w"], found["qualified_w"], strict=True))


def check_lines(market: Market, order: dict[str, Any], run: str, rounded: int) -> None:
    """Each line by the definition in markets.md with exact fractions, independently of the contract's own code."""
    record = market.net.ask("settlement.one", settlement=f"{order['order_id']}.{run}")
    exact = Fraction(0)
    left = sum(i["power_w"] for i in order["isps"] if i["disposition"] == "requested") * ISP_S
    for item, line in zip(order["isps"], record["lines"], strict=True):
        change = line["actual_j"] - line["baseline_j"]
        if item["disposition"] == "requested":
            ordered = item["power_w"] * ISP_S
            delivered, deficiency = min(max(change, 0), ordered), max(ordered - change, 0) if ordered else 0
            assert (line["delivered_j"], line["deficiency_j"]) == (delivered, deficiency)
            penalty = order["penalty_nano_eur_per_wh"] if deficiency * 1000 > 50 * ordered else 0
            net = Fraction(delivered * order["price_nano_eur_per_wh"] - deficiency * penalty, 3_600_000)
        else:
            excess = min(max(-change - item["room_w"] * ISP_S, 0), left)
            left -= excess
            net = Fraction(-excess * 50_000, 3_600_000)
        assert line["net_micro_eur"] == net.numerator // net.denominator
        exact += net
    assert record["buyer_micro_eur"] == exact.numerator // exact.denominator
    assert 0 <= rounded < len(record["lines"])
    assert rounded == record["buyer_micro_eur"] - record["provider_micro_eur"]


@given(story=stories)
@settings(max_examples=60, deadline=None)
def test_the_invariants_hold_for_every_story(story: dict[str, Any], replay: Replay) -> None:
    market = replay.again()
    orders = play(market, story)
    assert market.held().keys() == set() or not any(market.held().values())
    assert {order["aggregator"] for order in orders} <= {market.agg_a.did, market.agg_b.did}


@given(story=stories)
@settings(max_examples=25, deadline=None)
def test_the_order_of_arrival_changes_nothing(story: dict[str, Any], replay: Replay) -> None:
    results = []
    for swap in (False, True):
        market = replay.again()
        made = [(market.agg_a, story["a"]), (market.agg_b, story["b"])]
        for party, options in reversed(made) if swap else made:
            if options:
                market.offer(party, *options)
        market.close()
        orders = [{k: v for k, v in order.items() if k != "activations"} for order in market.clear()]
        clearing = market.net.ask("congestion.clearing", auction=AUCTION)
        results.append((orders, clearing, market.balances()))
    assert results[0] == results[1]


@given(
    power=st.lists(st.integers(-20_000, 20_000), min_size=3, max_size=3),
    energy=st.lists(st.integers(-(2**40), 2**40), min_size=3, max_size=3),
    price=st.integers(-(10**9), 10**9),
    penalty=st.integers(0, 10**9),
    tolerance=st.integers(0, 1000),
    curve=st.lists(st.tuples(st.integers(1, 999), st.integers(0, 1000)), max_size=4),
)
@settings(max_examples=200, deadline=None)
def test_rounding_is_below_the_number_of_lines(
    power: list[int], energy: list[int], price: int, penalty: int, tolerance: int, curve: list[tuple[int, int]]
) -> None:
    corners = sorted(dict(curve).items())
    heights = sorted(y for _, y in corners)
    points = [(0, 0), *zip((x for x, _ in corners), heights, strict=True), (1000, 1000)]
    document = Product.model_validate(
        product(
            tolerance_permille=tolerance,
            payout_curve=[{"delivered_permille": x, "paid_permille": y} for x, y in points],
        )
    )
    order = {
        "direction": "withdrawal",
        "price_nano_eur_per_wh": price,
        "penalty_nano_eur_per_wh": penalty,
        "isps": [
            {"isp": 1 + i, "disposition": "available" if i == 2 else "requested", "power_w": p, "room_w": abs(p)}
            for i, p in enumerate(power)
        ],
    }
    metered = [Metered(1 + i, e, 3, "") for i, e in enumerate(energy)]
    lines, totals = settle_order(document, order, [7, -3, 100], 900, metered)
    assert 0 <= totals.rounding_micro_eur < len(lines)
    assert totals.provider_micro_eur == sum(line["net_micro_eur"] for line in lines)


def test_every_transaction_of_the_market_runs_twice(replay: Replay) -> None:
    """`MemoryLedger.run` executes everything twice and compares the write sets; here it is shown that all of it ran."""
    market = replay.again()
    made = option(1, [1_000, 0, 0], a1=[1_000, 0, 0])
    market.offer(market.agg_a, made)
    market.net.call(market.agg_a, "congestion.revoke", auction=AUCTION, offer_id="offer-a")
    story = {
        "a": [option(100_000, [10_000, 10_000, 0], a1=[10_000, 10_000, 0])],
        "b": None, "swap": False, "energy": [0] * 12, "later": None, "dispute": "wins",
    }  # fmt: skip
    (order,) = play(market, story)
    market.net.call(market.agg_a, "congestion.activation", order_id=order["order_id"], stage="commanded", hash="0" * 64)
    market.net.call(market.net.operator, "accounts.withdraw", account=f"actor:{market.dso.did}", micro_eur=1)
    market.net.call(market.net.operator, "accounts.compact", account="external")
    parts: list[dict[str, int]] = []
    market.net.call(
        market.dso, "portfolio.limit", connection="a1", direction="feed_in", date=DATE, parts=parts, reason="works"
    )  # fmt: skip
    market.net.call(market.net.operator, "products.retire", product="congestion-day-ahead")
    sealed = Market.start(sealed=True)
    sealed.order()
    market.net.ledger.used |= sealed.net.ledger.used
    prefixes = ("products.", "accounts.", "portfolio.", "congestion.", "settlement.", "dispute.")
    assert {name for name in TRANSACTIONS if name.startswith(prefixes)} <= market.net.ledger.used
