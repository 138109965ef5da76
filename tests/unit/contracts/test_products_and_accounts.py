"""The product registry, accounts and postings, qualification and reservations."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from support.contracts import MemoryContext, MemoryLedger, Party
from support.market import DATE, PRODUCT, Market, MarketNetwork, available, option, product, requested

from flexrelay_contracts.context import Creator
from flexrelay_contracts.market.accounts import Postings
from flexrelay_contracts.market.reservations import Reservations
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.state import key, save
from flexrelay_schemas.intervals import CalendarDay
from flexrelay_schemas.product import Product
from flexrelay_schemas.products import INDEX, load, load_all


def refused(code: str, field: str, action: Callable[[], object]) -> None:
    with pytest.raises(Refused) as caught:
        action()
    assert (caught.value.code, caught.value.field) == (code, field)


# -- products


def test_the_shipped_products_are_good_documents() -> None:
    assert [item.product for item in load_all()] == list(INDEX)
    with pytest.raises(KeyError):
        load("../secrets")


CONTRADICTIONS: list[tuple[str, dict[str, Any]]] = [
    ("gate_closure", {"gate_closure": {"relative_to": "delivery_date", "offset_s": -86_400}}),
    ("gate_closure", {"gate_closure": {"relative_to": "isp", "offset_s": -900}}),
    ("gate_closure", {"gate_closure": {"relative_to": "delivery_date", "offset_s": -899}}),
    ("mtu_s", {"mtu_s": 7 * 3600}),
    ("min_quantity_w", {"min_quantity_w": 1_050}),
    ("max_quantity_w", {"max_quantity_w": 900}),
    ("max_quantity_w", {"max_quantity_w": 1_000_050}),
    ("max_quantity_w", {"min_quantity_w": 0, "max_quantity_w": 0}),
    ("max_price_nano_eur_per_wh", {"max_price_nano_eur_per_wh": -1}),
    ("clearing", {"min_price_nano_eur_per_wh": -1}),
    ("pricing", {"pricing": "uniform"}),
    ("pricing", {"clearing": "uniform_double_auction"}),
    ("baseline", {"baseline": "none"}),
    ("penalty_nano_eur_per_wh", {"clearing": "uniform_double_auction", "pricing": "uniform", "baseline": "none"}),
    ("payout_curve", {"payout_curve": []}),
    ("payout_curve", {"payout_curve": [{"delivered_permille": 0, "paid_permille": 0}]}),
    (
        "payout_curve",
        {
            "payout_curve": [
                {"delivered_permille": 0, "paid_permille": 500},
                {"delivered_permille": 1000, "paid_permille": 400},
            ]
        },
    ),
    ("rebound.penalty_nano_eur_per_wh", {"rebound": {"rule": "ignored", "penalty_nano_eur_per_wh": 1}}),
    ("rebound.penalty_nano_eur_per_wh", {"rebound": {"rule": "penalised", "penalty_nano_eur_per_wh": 0}}),
    ("provider_roles", {"provider_roles": []}),
    ("provider_roles", {"provider_roles": ["aggregator", "aggregator"]}),
    ("settlement_runs", {"settlement_runs": ["a", "a"]}),
    ("bond_micro_eur", {"bond_micro_eur": 0}),
    ("bond_micro_eur", {"dispute_window_s": 0}),
    ("currency", {"currency": "USD"}),
    ("granularity_w", {"granularity_w": 0}),
    ("sealed", {"sealed": 1}),
    ("penalty_nano_eur_per_wh", {"max_quantity_w": 10**10, "penalty_nano_eur_per_wh": 10**9}),
    ("rebound", {"max_quantity_w": 10**10, "rebound": {"rule": "penalised", "penalty_nano_eur_per_wh": 10**9}}),
    ("max_quantity_w", {"max_quantity_w": 10**10 + 100}),
    ("colour", {"colour": "blue"}),
]


@pytest.mark.parametrize(("field", "changes"), CONTRADICTIONS)
def test_a_contradictory_product_is_refused_by_its_field(field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Product.model_validate(product(**changes))
    errors = caught.value.errors()
    assert ".".join(str(part) for part in errors[0]["loc"]) == field


def test_products_are_published_in_versions_and_retired() -> None:
    net = MarketNetwork.start()
    stranger = net.actor("dso", org="dso")
    refused("role", "actor", lambda: net.call(stranger, "products.publish", document=product()))
    refused("unknown_version", "document.v", lambda: net.call(net.operator, "products.publish", document=product(v=2)))
    wrong = product(pricing="uniform")
    refused("invalid_product", "document.pricing", lambda: net.call(net.operator, "products.publish", document=wrong))
    second = product(version=2)
    refused("version", "document.version", lambda: net.call(net.operator, "products.publish", document=second))
    net.call(net.operator, "products.publish", document=product())
    refused("version", "document.version", lambda: net.call(net.operator, "products.publish", document=product()))
    net.call(net.operator, "products.publish", document=product(version=2, title="Second"))
    assert net.ask("products.all") == [{"product": PRODUCT, "version": 2, "status": "active"}]
    assert net.ask("products.one", product=PRODUCT)["document"]["title"] == "Second"
    assert net.ask("products.one", product=PRODUCT, version=1)["status"] == "superseded"
    refused("unknown_product", "version", lambda: net.ask("products.one", product=PRODUCT, version=3))
    net.call(net.operator, "products.retire", product=PRODUCT)
    refused("product_retired", "product", lambda: net.call(net.operator, "products.retire", product=PRODUCT))
    assert net.ask("products.one", product=PRODUCT)["status"] == "retired"


def test_an_auction_keeps_the_version_it_was_opened_under() -> None:
    market = Market.start()
    market.nominate(market.agg_a)
    market.request()
    market.net.call(market.net.operator, "products.publish", document=product(version=2, max_price_nano_eur_per_wh=1))
    market.offer(market.agg_a, option(100_000, [1_000, 0, 0], a1=[1_000, 0, 0]))
    market.net.call(market.net.operator, "products.retire", product=PRODUCT)
    market.close()
    assert market.clear()[0]["version"] == 1


# -- accounts


def test_money_comes_in_and_goes_out_by_the_operator() -> None:
    net = MarketNetwork.start()
    party = net.actor("aggregator", org="agg-a")
    account = f"actor:{party.did}"
    refused("role", "actor", lambda: net.call(party, "accounts.fund", account=account, micro_eur=5))
    for amount in (5, 7):
        net.call(net.operator, "accounts.fund", account=account, micro_eur=amount)
    assert net.ask("accounts.balance", account=account) == {"account": account, "micro_eur": 12}
    refused("funds", "account", lambda: net.call(net.operator, "accounts.withdraw", account=account, micro_eur=13))
    net.call(net.operator, "accounts.withdraw", account=account, micro_eur=12)
    assert net.ask("accounts.balances") == {
        "accounts": [{"account": "external", "micro_eur": 0}],
        "sum_micro_eur": 0,
    }
    for bad in ("external", f"escrow:{party.did}:x", f"bond:{party.did}:x"):
        with pytest.raises(Refused, match="account_kind"):
            net.call(net.operator, "accounts.fund", account=bad, micro_eur=1)
    refused("invalid_argument", "account", lambda: net.call(net.operator, "accounts.fund", account="x", micro_eur=1))
    refused(
        "invalid_argument", "micro_eur", lambda: net.call(net.operator, "accounts.fund", account=account, micro_eur=0)
    )  # fmt: skip


def test_compacting_changes_no_balance() -> None:
    net = MarketNetwork.start()
    for _ in range(3):
        net.call(net.operator, "accounts.fund", account="rounding", micro_eur=2)
    before = net.ask("accounts.balances")
    for account in ("external", "rounding", f"actor:{net.operator.did}"):
        net.call(net.operator, "accounts.compact", account=account)
    assert net.ask("accounts.balances") == before
    assert len([name for name in net.ledger.state if name.startswith(key("balance", "external"))]) == 1


def context(ledger: MemoryLedger) -> MemoryContext:
    ledger.count += 1
    return MemoryContext(ledger, f"{ledger.count:064x}", 0, Creator("org", ""), {})


def apply(ledger: MemoryLedger, ctx: MemoryContext) -> None:
    for name, value in ctx.writes.items():
        if value is None:
            ledger.state.pop(name, None)
        else:
            ledger.state[name] = value
    ledger.events.extend(ctx.events)


def test_credits_are_blind_and_spending_reads() -> None:
    """Two credits of one account share no key; spending reads and deletes what it spends."""
    ledger = MemoryLedger()
    ctx = context(ledger)
    postings = Postings()
    postings.transfer("external", "actor:a", 10, "fund")
    postings.commit(ctx)
    assert len(ctx.writes) == 2 and all(ctx.tx_id in name for name in ctx.writes)


ACCOUNTS = ["actor:a", "actor:b", "escrow:a:x", "bond:b:y", "brp:c", "rounding", "external", "imbalance:t", "losses:d"]
transfers = st.lists(
    st.lists(
        st.tuples(st.sampled_from(ACCOUNTS), st.sampled_from(ACCOUNTS), st.integers(-50, 200)), min_size=1, max_size=6
    ),
    max_size=12,
)


@given(transfers)
@settings(max_examples=200, deadline=None)
def test_postings_balance_to_zero_and_stay_above_it(rounds: list[list[tuple[str, str, int]]]) -> None:
    """Against a plain dictionary: the same balances, refused exactly when one would fall below zero."""
    ledger = MemoryLedger()
    model: dict[str, int] = {}
    journal: dict[str, int] = {}
    for batch in rounds:
        postings, after = Postings("p"), dict(model)
        for debit, credit, amount in batch:
            postings.transfer(debit, credit, amount, "test")
            after[debit] = after.get(debit, 0) - amount
            after[credit] = after.get(credit, 0) + amount
        assert sum(postings.net().values()) == 0
        guarded = {n for n in after if n.startswith(("actor", "escrow", "bond"))}
        ctx = context(ledger)
        if any(after[name] < 0 for name in guarded):
            with pytest.raises(Refused, match="funds"):
                postings.commit(ctx)
            continue
        postings.commit(ctx)
        apply(ledger, ctx)
        model = after
        for _, payload in ctx.events:
            for line in json.loads(payload)["lines"]:
                assert line["micro_eur"] > 0
                journal[line["debit"]] = journal.get(line["debit"], 0) - line["micro_eur"]
                journal[line["credit"]] = journal.get(line["credit"], 0) + line["micro_eur"]
        found = ledger.ask("accounts.balances")
        assert found["sum_micro_eur"] == 0
        balances = {item["account"]: item["micro_eur"] for item in found["accounts"] if item["micro_eur"]}
        assert balances == {name: value for name, value in model.items() if value}
        assert balances == {name: value for name, value in journal.items() if value}


# -- portfolio


def test_only_the_connections_operator_qualifies_and_limits() -> None:
    market = Market.start()
    other = market.net.actor("dso", org="dso")
    good: dict[str, Any] = {"connection": "a1", "direction": "withdrawal", "max_w": 1, "valid_from": "2016-05-18"}
    limit: dict[str, Any] = {"connection": "a1", "direction": "withdrawal", "date": DATE, "parts": []}

    def qualify(party: Party, **changes: Any) -> object:
        return market.net.call(party, "portfolio.qualify", **{**good, **changes})

    def restrict(*parts: dict[str, int], **changes: Any) -> object:
        return market.net.call(market.dso, "portfolio.limit", **{**limit, "parts": list(parts), **changes})

    refused("role", "actor", lambda: qualify(market.agg_a))
    refused("not_dso", "connection", lambda: qualify(other))
    refused("unknown_connection", "connection", lambda: qualify(market.dso, connection="z"))
    refused("dates", "valid_to", lambda: qualify(market.dso, valid_to="2016-05-18"))
    refused("invalid_argument", "valid_from", lambda: qualify(market.dso, valid_from="2016-13-01"))
    refused("invalid_argument", "direction", lambda: qualify(market.dso, direction="both"))
    refused("isp", "parts.0.isp_to", lambda: restrict({"isp_from": 1, "isp_to": 97, "max_w": 1}))
    refused("calendar", "date", lambda: restrict(date="2030-01-01"))
    qualify(market.dso, max_w=3_000, valid_to="2016-05-21")
    restrict({"isp_from": 49, "isp_to": 50, "max_w": 1_000}, {"isp_from": 50, "isp_to": 50, "max_w": 2_000})
    asked = {"connection": "a1", "direction": "withdrawal"}
    watts = market.net.ask("portfolio.reserved", **asked, date=DATE)["qualified_w"]
    assert (watts[47], watts[48], watts[49], watts[50]) == (3_000, 1_000, 1_000, 3_000)
    assert set(market.net.ask("portfolio.reserved", **asked, date="2016-05-21")["qualified_w"]) == {0}
    assert set(market.net.ask("portfolio.reserved", **asked, date="2016-05-17")["qualified_w"]) == {20_000}


def test_the_same_kilowatt_is_not_sold_twice() -> None:
    market = Market.start()
    market.nominate(market.agg_a)
    market.request([requested(49, 0, 20_000), available(80, -20_000, 0)])
    market.net.call(market.net.operator, "products.publish", document=product(product="congestion-second"))
    named = {"product": "congestion-second", "congestion_point": "cp-1", "date": DATE}
    market.nominate(market.agg_a, product="congestion-second")
    isps = [requested(49, 0, 20_000), available(80, -20_000, 0)]
    market.net.call(market.dso, "congestion.request", **named, direction="withdrawal", isps=isps)
    market.offer(market.agg_a, option(1, [15_000, -9_000], isps=(49, 80), a1=[15_000, -9_000]))
    second = f"congestion-second.cp-1.{DATE}"

    def sell(watts: int, rebound: int, connection: str = "a1") -> Callable[[], object]:
        made = option(1, [watts, rebound], isps=(49, 80), **{connection: [watts, rebound]})
        return lambda: market.offer(market.agg_a, made, offer_id="second", auction=second)

    refused("double_sale", "connection", sell(5_100, 0))
    refused("double_sale", "connection", sell(1_000, -11_100))
    market.net.call(
        market.dso, "portfolio.limit", connection="a1", direction="withdrawal", date=DATE,
        parts=[{"isp_from": 49, "isp_to": 49, "max_w": 16_000}],
    )  # fmt: skip
    refused("double_sale", "connection", sell(5_000, 0))
    market.net.call(
        market.dso, "portfolio.qualify", connection="a2", direction="withdrawal", max_w=0, valid_from="2016-05-20"
    )
    refused("not_qualified", "connection", sell(1_000, 0, "a2"))
    sell(1_000, 0)()
    reserved = market.net.ask("portfolio.reserved", connection="a1", direction="withdrawal", date=DATE)
    assert reserved["reserved_w"][48] == 16_000 and len(reserved["holds"]) == 2


DAY = CalendarDay(date="2016-05-20", start=0, isps=2, isp_seconds=900, working=True)
SLOT = ("c", "withdrawal")


def fresh() -> MemoryLedger:
    ledger = MemoryLedger()
    ctx = context(ledger)
    save(ctx, key("qualification", "c", "withdrawal", "2016-01-01"), {"max_w": 100, "valid_to": "", "dso": ""})
    apply(ledger, ctx)
    return ledger


def change(ledger: MemoryLedger, action: Callable[[Reservations], None]) -> None:
    ctx = context(ledger)
    reservations = Reservations(ctx, DAY)
    action(reservations)
    reservations.commit()
    apply(ledger, ctx)


def hold(name: str, watts: Sequence[int], parent: str = "") -> Callable[[Reservations], None]:
    return lambda r: r.reserve(SLOT, name, watts, product="p", buyer="b", parent=parent)


def test_called_availability_is_a_child_and_no_second_sale() -> None:
    ledger = fresh()
    change(ledger, hold("availability", [80, 80]))
    refused("double_sale", "connection", lambda: change(ledger, hold("other", [30, 0])))
    change(ledger, hold("call-1", [50, 80], "availability"))
    refused("double_sale", "connection", lambda: change(ledger, hold("call-2", [31, 0], "availability")))
    refused("parent", "parent", lambda: change(ledger, hold("call-3", [1, 0], "nothing")))
    refused("parent", "parent", lambda: change(ledger, hold("call-4", [1, 0], "call-1")))
    refused("reserved", "connection", lambda: change(ledger, hold("call-1", [1, 0])))
    refused("not_reserved", "connection", lambda: change(ledger, lambda r: r.release(SLOT, "unknown")))
    refused("reserved", "connection", lambda: change(ledger, lambda r: r.release(SLOT, "call-1", [51, 0])))
    change(ledger, lambda r: r.release(SLOT, "call-1"))
    change(ledger, hold("call-2", [80, 80], "availability"))
    change(ledger, hold("free", [20, 20]))


def test_the_last_watt_is_sold_and_no_more() -> None:
    ledger = fresh()
    change(ledger, hold("one", [60, 0]))
    refused("double_sale", "connection", lambda: change(ledger, hold("two", [41, 0])))
    change(ledger, hold("two", [40, 100]))


steps = st.lists(
    st.tuples(st.sampled_from("abcd"), st.tuples(st.integers(0, 70), st.integers(0, 70)), st.booleans()), max_size=20
)


@given(steps)
@settings(max_examples=150, deadline=None)
def test_reserved_never_exceeds_qualified(actions: list[tuple[str, tuple[int, int], bool]]) -> None:
    ledger = fresh()
    model: dict[str, tuple[int, int]] = {}
    for name, watts, wants in actions:
        try:
            if wants:
                change(ledger, hold(name, watts))
                assert name not in model
                model[name] = watts
            else:
                change(ledger, lambda r, n=name, w=watts: r.release(SLOT, n, w))  # type: ignore[misc]
                model[name] = watts
                if not any(watts):
                    del model[name]
        except Refused as refusal:
            if wants and name not in model:
                assert refusal.code == "double_sale"
                assert any(sum(w[i] for w in model.values()) + watts[i] > 100 for i in (0, 1))
        stored = ledger.state.get(key("reservation", *SLOT, DAY.date))
        total = json.loads(stored)["reserved_w"] if stored else [0, 0]
        assert total == [sum(w[i] for w in model.values()) for i in (0, 1)]
        assert all(value <= 100 for value in total)
