"""Local energy auctions: a golden scenario, refusals, and what must always hold for any set of orders."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.local_market import DATE, FUNDS, ISP, PRODUCT, Street
from support.refusals import refused

from flexrelay_contracts.rules import whatif


@pytest.fixture(scope="module")
def shared() -> Street:
    return Street.start()


@pytest.fixture
def street(shared: Street) -> Any:
    with shared.scratch():
        yield shared


def test_golden_auction_from_opening_to_settlement(street: Street) -> None:
    """800 Wh of 1000 Wh offered trade: d1 and d2 buy 500 and 300 Wh, the marginal ask of c2 is cut."""
    auction = street.open(fee=7_000)
    assert auction == f"{PRODUCT}.cp-1.{DATE}.{ISP}-{ISP}"
    street.order(auction, "s1", "sell", "c1", 600, 40_001)
    street.order(auction, "s2", "sell", "c2", 400, 60_000)
    assert street.order(auction, "d1", "buy", "c3", 500, 100_000)["escrow_micro_eur"] == 50_000 + 3_500
    street.order(auction, "d2", "buy", "c4", 300, 90_001)
    street.order(auction, "d3", "buy", "c4", 100, 20_000)
    assert street.balances()[f"escrow:{street.owners['c3'].did}:{auction}"] == 53_500
    street.close(auction)
    cleared = street.net.call(street.dso, "local_energy.clear", auction=auction)
    assert (cleared["volume_j"], cleared["price_nano_eur_per_wh"]) == (800 * 3600, 60_000)
    assert cleared["fills"] == {"s1": 600 * 3600, "s2": 200 * 3600, "d1": 500 * 3600, "d2": 300 * 3600}
    reserved = street.net.ask("portfolio.reserved", connection="c2", direction="feed_in", date=DATE)
    assert reserved["reserved_w"][ISP - 1] == 800  # 200 Wh in a quarter of an hour
    assert sum(reserved["reserved_w"]) == 800
    street.net.call(street.dso, "local_energy.settle", auction=auction)
    balances = street.balances()
    actor = {name: balances[f"actor:{party.did}"] - FUNDS for name, party in street.owners.items()}
    assert actor == {"c1": 36_000, "c2": 12_000, "c3": -30_000 - 3_500, "c4": -18_000 - 2_100}
    assert balances[f"fees:{street.dso.did}"] == 5_600
    assert not any(name.startswith("escrow:") for name in balances)
    position = street.net.ask("imbalance.position", date=DATE, brp=street.brps["north"].did)
    assert position["corrections"] == {auction: [[ISP, (500 - 600) * 3600]]}
    with refused("auction_status"):
        street.net.call(street.dso, "local_energy.settle", auction=auction)


def test_rounding_goes_to_its_account(street: Street) -> None:
    """1 Wh at 1,500.5 n€: the buyer pays 2 µ€, the seller gets 1 µ€."""
    auction = street.open()
    street.order(auction, "s", "sell", "c1", 1, 1_500)
    assert street.order(auction, "d", "buy", "c3", 1, 1_501)["escrow_micro_eur"] == 2
    assert street.order(auction, "x", "sell", "c2", 1, -1_501)["escrow_micro_eur"] == 2
    street.net.call(street.owners["c2"], "local_energy.cancel", auction=auction, order_id="x")
    street.close(auction)
    street.net.call(street.dso, "local_energy.clear", auction=auction)
    settled = street.net.call(street.dso, "local_energy.settle", auction=auction)
    assert settled["rounding_micro_eur"] == 1
    assert street.balances()["rounding"] == 1


def test_a_block_spans_isps() -> None:
    street = Street.start(mtu_s=3600)
    auction = street.open(isp=49, isp_to=52, headroom_w=1000)
    with refused("granularity", "energy_j"):
        street.net.call(
            street.owners["c1"],
            "local_energy.order",
            auction=auction,
            order_id="odd",
            side="sell",
            connection="c1",
            energy_j=3601,
            price_nano_eur_per_wh=1,
        )
    street.order(auction, "s", "sell", "c1", 3000, 10)
    street.order(auction, "d", "buy", "c4", 2000, 30)
    street.close(auction, 49)
    cleared = street.net.call(street.dso, "local_energy.clear", auction=auction)
    assert (cleared["volume_j"], cleared["cap_j"]) == (1000 * 3600, 1000 * 3600)
    assert cleared["price_range"] == [10, 30]
    position = street.net.ask("imbalance.position", date=DATE, brp=street.brps["south"].did)
    assert position["corrections"] == {auction: [[isp, 900_000] for isp in (49, 50, 51, 52)]}


def test_a_cancelled_order_gives_everything_back(street: Street) -> None:
    auction = street.open()
    street.order(auction, "s", "sell", "c1", 600, -10_000)
    street.order(auction, "d", "buy", "c3", 600, 10_000)
    for order, connection in (("s", "c1"), ("d", "c3")):
        with refused("not_yours"):
            street.net.call(street.owners["c4"], "local_energy.cancel", auction=auction, order_id=order)
        street.net.call(street.owners[connection], "local_energy.cancel", auction=auction, order_id=order)
    assert street.net.ask("local_energy.orders", auction=auction) == {}
    assert all(street.balances()[f"actor:{party.did}"] == FUNDS for party in street.owners.values())
    reserved = street.net.ask("portfolio.reserved", connection="c1", direction="feed_in", date=DATE)
    assert not any(reserved["reserved_w"])
    street.order(auction, "s", "sell", "c1", 600, 0)


def test_orders_are_refused_with_the_offending_field(street: Street) -> None:
    auction = street.open()
    with refused("price_limit", "price_nano_eur_per_wh"):
        street.order(auction, "o", "buy", "c3", 10, 500_001)
    with refused("quantity", "energy_j"):
        street.order(auction, "o", "buy", "c3", 250_001, 1)
    with refused("role", "side"):
        street.order(auction, "o", "sell", "c3", 10, 1)
    with refused("unknown_auction", "auction"):
        street.order("nowhere", "o", "buy", "c3", 10, 1)
    with refused("funds"):
        street.order(auction, "o", "buy", "c3", 250_000, 500_000)
    street.order(auction, "o", "buy", "c3", 10, 1)
    with refused("order_id", "order_id"):
        street.order(auction, "o", "sell", "c1", 10, 1)
    street.owners["c9"] = street.owners["c1"]
    with refused("unknown_connection", "connection"):
        street.order(auction, "p", "sell", "c9", 10, 1)
    street.owners["c2"], before = street.owners["c1"], street.owners["c2"]
    with refused("not_yours", "connection"):
        street.order(auction, "p", "sell", "c2", 10, 1)
    street.owners["c2"] = before
    del street.owners["c9"]


def test_a_mandated_aggregator_orders_for_a_connection_of_this_point_only(street: Street) -> None:
    net = street.net
    mandated, other = net.actor("aggregator", org="agg-a"), net.actor("aggregator", org="agg-b")
    owner = street.owners["c1"]
    brp = street.brps["north"]
    net.connection("here", dso=street.dso, owner=owner, brp=brp, aggregator=mandated)
    net.connection("there", dso=street.dso, owner=owner, brp=brp, aggregator=mandated, congestion_point="cp-2")
    net.connection("unbalanced", dso=street.dso, owner=owner)
    auction = street.open()
    for name, party in (("here", mandated), ("there", mandated), ("unbalanced", owner)):
        street.owners[name] = party
    try:
        street.order(auction, "o1", "buy", "here", 10, 0)
        with refused("congestion_point", "connection"):
            street.order(auction, "o2", "buy", "there", 10, 0)
        with refused("no_brp", "connection"):
            street.order(auction, "o2", "buy", "unbalanced", 10, 0)
        street.owners["here"] = other
        with refused("not_yours", "connection"):
            street.order(auction, "o2", "buy", "here", 10, 0)
    finally:
        for name in ("here", "there", "unbalanced"):
            del street.owners[name]
    assert list(net.ask("local_energy.orders", auction=auction)) == ["o1"]


def test_only_who_opened_it_or_runs_the_market_clears_and_settles(street: Street) -> None:
    auction = street.open()
    street.close(auction)
    other = street.net.actor("dso", org="dso")
    with refused("role"):
        street.net.call(other, "local_energy.clear", auction=auction)
    street.net.call(street.net.operator, "local_energy.clear", auction=auction)
    with refused("role"):
        street.net.call(other, "local_energy.settle", auction=auction)
    street.net.call(street.net.operator, "local_energy.settle", auction=auction)
    assert street.net.ask("local_energy.auction", auction=auction)["status"] == "settled"


def test_a_market_without_a_cap_is_the_market_operators() -> None:
    street = Street.start(volume_cap="none")
    arguments = {"product": PRODUCT, "congestion_point": "cp-1", "date": DATE, "isp_from": ISP, "isp_to": ISP}
    with refused("headroom", "headroom_w"):
        street.open(headroom_w=5)
    with refused("role"):  # a fee for the grid is its operator's to take
        street.net.call(street.net.operator, "local_energy.open", **arguments, grid_fee_nano_eur_per_wh=1)
    with refused("not_dso"):
        street.net.call(street.net.actor("dso"), "local_energy.open", **arguments)
    auction = str(street.net.call(street.net.operator, "local_energy.open", **arguments)["auction"])
    street.net.to(street.net.day(DATE).bounds(ISP)[0] - 3_600_000)
    street.order(auction, "s", "sell", "c1", 100, 5)
    street.order(auction, "d", "buy", "c3", 90, 5)
    street.close(auction)
    cleared = street.net.call(street.net.operator, "local_energy.clear", auction=auction)
    assert (cleared["volume_j"], cleared["cap_j"]) == (90 * 3600, None)


def test_the_same_kilowatt_is_not_sold_twice(street: Street) -> None:
    auction = street.open()
    street.qualify(street.net, street.dso, "c1", 4_000)
    street.order(auction, "s1", "sell", "c1", 600, 1)
    street.order(auction, "s2", "sell", "c1", 400, 1)
    with refused("double_sale", "connection"):
        street.order(auction, "s3", "sell", "c1", 1, 1)


def test_the_gate_is_kept_by_market_time_and_by_status(street: Street) -> None:
    auction = street.open()
    with refused("gate_open"):
        street.net.call(street.dso, "local_energy.close_gate", auction=auction)
    with refused("auction_status"):
        street.net.call(street.dso, "local_energy.clear", auction=auction)
    start = street.net.day(DATE).bounds(ISP)[0]
    street.net.to(start - 86_400_001)
    with refused("gate_not_open", "auction"):
        street.order(auction, "early", "buy", "c3", 10, 1)
    street.net.to(start - 900_001)
    street.order(auction, "in-time", "buy", "c3", 10, 1)
    street.net.to(start - 900_000)
    with refused("gate_closed", "auction"):
        street.order(auction, "late", "buy", "c3", 10, 1)
    with refused("gate_closed", "isp_from"):
        street.open()
    street.net.call(street.owners["c3"], "local_energy.close_gate", auction=auction)
    with refused("gate_closed", "auction"):
        street.order(auction, "late", "buy", "c3", 10, 1)
    with refused("gate_closed", "auction"):
        street.net.call(street.owners["c3"], "local_energy.cancel", auction=auction, order_id="in-time")
    with refused("role"):
        street.net.call(street.owners["c3"], "local_energy.clear", auction=auction)
    cleared = street.net.call(street.net.operator, "local_energy.clear", auction=auction)
    assert (cleared["volume_j"], cleared["price_nano_eur_per_wh"], cleared["fills"]) == (0, None, {})
    street.net.call(street.dso, "local_energy.settle", auction=auction)
    assert street.balances()[f"actor:{street.owners['c3'].did}"] == FUNDS


def test_an_order_reads_the_status_key_that_closing_writes(street: Street) -> None:
    """So an order that was endorsed before the gate and held back dies of a version conflict."""
    auction = street.open()
    state = street.net.ledger.state
    read: list[str] = []

    class Watched(dict[str, bytes]):
        def get(self, name: str, default: Any = None) -> Any:
            read.append(name)
            return super().get(name, default)

    street.net.ledger.state = Watched(state)
    street.order(auction, "d", "buy", "c3", 10, 1)
    before = dict(street.net.ledger.state)
    street.close(auction)
    after = street.net.ledger.state
    changed = {name for name in after if before.get(name) != after[name]}
    assert any("local_auction" in name for name in changed & set(read))


def test_opening_is_the_dsos(street: Street) -> None:
    other = street.net.actor("dso", org="dso")
    arguments = {
        "product": PRODUCT,
        "congestion_point": "cp-1",
        "date": DATE,
        "isp_from": ISP,
        "isp_to": ISP,
    }
    with refused("not_dso"):
        street.net.call(other, "local_energy.open", **arguments, headroom_w=1)
    with refused("role"):
        street.net.call(street.net.operator, "local_energy.open", **arguments, headroom_w=1)
    with refused("headroom", "headroom_w"):
        street.open(headroom_w=None)
    with refused("mtu", "isp_to"):
        street.open(isp_to=ISP + 1)
    with refused("isp", "isp_to"):
        street.open(isp=97)
    street.open()
    with refused("auction_exists"):
        street.open()


orders = st.lists(
    st.tuples(
        st.sampled_from(("sell", "buy")),
        st.sampled_from(("c1", "c2", "c3", "c4")),
        st.integers(1, 40),
        st.integers(-60_007, 60_007) | st.sampled_from((-1_000, 0, 1_000)),
    ),
    max_size=6,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(orders, st.integers(0, 300), st.sampled_from((0, 3_333)))
def test_any_auction_keeps_its_promises(
    shared: Street, drawn: list[tuple[str, str, int, int]], headroom_w: int, fee: int
) -> None:
    with shared.scratch():
        _check_auction(shared, drawn, headroom_w, fee)


def _check_auction(street: Street, drawn: list[tuple[str, str, int, int]], headroom_w: int, fee: int) -> None:
    auction = street.open(headroom_w=headroom_w, fee=fee)
    placed = {}
    for index, (side, connection, wh, price) in enumerate(drawn):
        if side == "sell" and connection in ("c3", "c4"):
            continue
        street.order(auction, f"o{index}", side, connection, wh, price)
        placed[f"o{index}"] = (side, connection, wh, price)
    before = street.balances()
    assert all(amount >= 0 for name, amount in before.items() if name.startswith(("escrow", "actor")))
    street.close(auction)
    cleared = street.net.call(street.dso, "local_energy.clear", auction=auction)
    fills = cleared["fills"]
    sold = sum(energy for order, energy in fills.items() if placed[order][0] == "sell")
    bought = sum(energy for order, energy in fills.items() if placed[order][0] == "buy")
    assert sold == bought == cleared["volume_j"] <= headroom_w * 900
    street.net.call(street.dso, "local_energy.settle", auction=auction)
    balances = street.balances()
    assert not any(name.startswith("escrow") for name in balances)
    settlement = street.net.ask("local_energy.settlement", auction=auction)
    lines = settlement["lines"]
    assert 0 <= balances.get("rounding", 0) == settlement["rounding_micro_eur"] <= max(len(lines) - 1, 0)
    change: dict[str, int] = dict.fromkeys(street.owners, 0)
    for order, energy in fills.items():
        side, connection, wh, limit = placed[order]
        price = cleared["price_nano_eur_per_wh"]
        assert 0 < energy <= wh * 3600
        assert price <= limit if side == "buy" else price >= limit
        if side == "buy":  # independent of the contract: what a buyer pays is rounded up, what a seller gets down
            change[connection] -= -(-energy * price // 3_600_000) + energy * fee // 3_600_000
        else:
            change[connection] += energy * price // 3_600_000
    for connection, party in street.owners.items():
        assert balances[f"actor:{party.did}"] - FUNDS == change[connection]
    if headroom_w * 900 >= sum(wh * 3600 for _, _, wh, _ in placed.values()):
        document = {
            "rule": "uniform_double_auction",
            "auction_id": auction,
            "asks": [_document(o, placed[o]) for o in placed if placed[o][0] == "sell"],
            "bids": [_document(o, placed[o]) for o in placed if placed[o][0] == "buy"],
        }
        same = whatif.clear(document)
        assert same["price"] == cleared["price_nano_eur_per_wh"]
        assert {fill["id"]: fill["quantity"] for fill in same["fills"]} == fills
    corrections = [
        street.net.ask("imbalance.position", date=DATE, brp=brp.did)["corrected_j"][ISP - 1]
        for brp in street.brps.values()
    ]
    assert sum(corrections) == 0


def _document(order_id: str, order: tuple[str, str, int, int]) -> dict[str, Any]:
    return {"id": order_id, "quantity": order[2] * 3600, "price": order[3]}
