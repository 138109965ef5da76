"""The congestion market on the embedded ledger: held-back offers, private data, a story to its end, and its proof."""

import asyncio
import hashlib
from pathlib import Path

import pytest
from support.embedded_market import LedgerInHand, market_network
from support.market import AUCTION, ISP_S, Market, option

from flexrelay.ledger.embedded import verify
from flexrelay.ledger.port import Prepared, Validation
from flexrelay_contracts.refusal import Refused
from flexrelay_schemas.canonical import canonical

KWH = 3_600_000
GOOD = option(100_000, [10_000, 10_000, 0], a1=[10_000, 10_000, 0])


def backend(market: Market) -> LedgerInHand:
    ledger = market.net.ledger
    assert isinstance(ledger, LedgerInHand)
    return ledger


def prepared_offer(market: Market, offer_id: str = "held-back") -> Prepared:
    """A sealed offer of A that is endorsed and not ordered."""
    contents = canonical({"v": 1, "salt": "ef" * 32, "options": [GOOD]})
    args = {
        "auction": AUCTION,
        "offer_id": offer_id,
        "prognosis_revision": 1,
        "contents_hash": hashlib.sha256(contents).hexdigest(),
    }
    intent = market.agg_a.intent("congestion.offer", args, deadline=backend(market).now + 600_000)
    return backend(market).prepare(intent, market.net.creators["agg-a"], {"offer": contents})


def test_an_offer_held_back_over_the_gate_dies(tmp_path: Path) -> None:
    with market_network(tmp_path) as net:
        market = Market.on(net, sealed=True)
        market.nominate(market.agg_a)
        market.request()
        net.to(market.closes - 1000)
        held = prepared_offer(market)
        market.close()
        assert backend(market).submit(held) is Validation.MVCC_READ_CONFLICT
        assert market.clear() == []
        assert market.held() == {} and market.money(market.agg_a) == 1_000_000_000


def test_an_offer_that_came_in_time_stays_in(tmp_path: Path) -> None:
    with market_network(tmp_path) as net:
        market = Market.on(net, sealed=True)
        market.nominate(market.agg_a)
        market.request()
        net.to(market.closes - 1000)
        assert backend(market).submit(prepared_offer(market)) is Validation.VALID
        second = prepared_offer_of_b(market)
        market.close()
        assert backend(market).submit(second) is Validation.MVCC_READ_CONFLICT
        assert [order["offer_id"] for order in market.clear()] == ["held-back"]


def prepared_offer_of_b(market: Market) -> Prepared:
    """B nominates late and holds its offer back."""
    market.nominate(market.agg_b)
    contents = canonical(
        {"v": 1, "salt": "ef" * 32, "options": [option(1, [10_000, 10_000, 0], b1=[10_000, 10_000, 0])]}
    )
    args = {
        "auction": AUCTION,
        "offer_id": "late",
        "prognosis_revision": 1,
        "contents_hash": hashlib.sha256(contents).hexdigest(),
    }
    intent = market.agg_b.intent("congestion.offer", args, deadline=backend(market).now + 600_000)
    return backend(market).prepare(intent, market.net.creators["agg-b"], {"offer": contents})


def test_two_offers_for_one_connection_conflict(tmp_path: Path) -> None:
    """Prepared on the same state, only the first of two offers of one aggregator is taken."""
    with market_network(tmp_path) as net:
        market = Market.on(net, sealed=True)
        market.nominate(market.agg_a)
        market.request()
        first, second = prepared_offer(market, "first"), prepared_offer(market, "second")
        assert backend(market).submit(first) is Validation.VALID
        assert backend(market).submit(second) is not Validation.VALID
        reserved = net.ask("portfolio.reserved", connection="a1", direction="withdrawal", date="2016-05-20")
        assert reserved["reserved_w"][48] == 10_000


def test_the_whole_story_with_both_disputes(tmp_path: Path) -> None:
    """B disputes with its gateway's word and loses, A disputes with the meter's signature and wins; then it is final."""
    with market_network(tmp_path) as net:
        market = Market.on(net, sealed=True)
        orders = market.order()
        with pytest.raises(Refused, match="private_not_member"):
            backend(market).ask_as("agg-b", "settlement.detail", settlement=propose_all(market, orders)[0])
        names = [f"{order['order_id']}.initial" for order in orders]
        proofs_a = PROOFS.pop("a")
        market.open(market.agg_a, names[0], 49, "a1", 10_000 * ISP_S, "a-disputes")
        market.show(market.agg_a, proofs_a, "a-disputes")
        market.open(market.agg_b, names[1], 49, "b1", 10_000 * ISP_S, "b-disputes")
        market.show(market.agg_b, PROOFS.pop("b"), "b-disputes")
        market.show(market.dso, PROOFS.pop("dso"), "b-disputes")
        assert market.resolve(market.agg_b, "b-disputes")["verdict"] == "respondent"
        net.to(market.net.market_ms + 172_800_000)
        assert market.resolve(market.agg_a, "a-disputes")["verdict"] == "challenger"
        for order, name, party in zip(orders, names, (market.agg_a, market.agg_b), strict=True):
            net.call(party, "settlement.accept", settlement=name)
            net.call(market.dso, "settlement.finalise", settlement=name)
            assert order["order_id"] in name
        bond = 5_000_000
        assert market.money(market.agg_a) == 1_000_000_000 + 500_000 + bond
        # 1000 of 2500 Wh in ISP 49: 120,000 less 225,000 µ€; ISP 50 in full; the bond is lost
        assert market.money(market.agg_b) == 1_000_000_000 - 105_000 + 300_000 - bond
        assert market.held() == {}
    report = asyncio.run(asyncio.to_thread(verify, tmp_path))
    assert not report.problems


PROOFS: dict[str, list[dict[str, object]]] = {}


def propose_all(market: Market, orders: list[dict[str, object]]) -> list[str]:
    """Deliver, anchor, and let the DSO propose 1 kWh for a1 and b1 in ISP 49."""
    market.deliver(*orders)
    market.net.to(market.day.end)
    PROOFS["a"] = market.meter_proofs("agg-a", "a1", 49, 10_000 * ISP_S)
    PROOFS["b"] = market.meter_proofs("agg-b", "b1", 49, 10_000 * ISP_S, attested=True)
    PROOFS["dso"] = market.meter_proofs("dso", "b1", 49, KWH)
    market.net.to(market.day.end + 60_000)
    return [market.propose(orders[0], a1={49: KWH, 80: -KWH}), market.propose(orders[1], b1={49: KWH})]
