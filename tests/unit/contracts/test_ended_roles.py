"""Who has lost a role makes no new business, but what stands between two parties stays theirs: otherwise whoever issued
the credential (often the buyer) could propose what it likes and revoke the one who would dispute it."""

from collections.abc import Callable

import pytest
from support.contracts import Party
from support.market import AUCTION, ISP_S, Market, option

from flexrelay_contracts.refusal import Refused

START = 1_000_000_000


def refused(code: str, field: str, action: Callable[[], object]) -> None:
    with pytest.raises(Refused) as caught:
        action()
    assert (caught.value.code, caught.value.field) == (code, field)


def end_role(market: Market, party: Party, role: str) -> None:
    market.net.call(market.net.operator, "grants.revoke", subject=party.did, role=role)


def test_an_aggregator_whose_role_was_revoked_still_disputes_and_wins() -> None:
    market = Market.start()
    order, _ = market.order()
    market.deliver(order)
    market.net.to(market.day.end)
    proofs = market.meter_proofs("agg-a", "a1", 49, 10_000 * ISP_S)
    market.net.to(market.net.market_ms + 1000)
    settlement = market.propose(order, a1={49: 0})
    end_role(market, market.agg_a, "aggregator")
    market.open(market.agg_a, settlement, 49, "a1", 10_000 * ISP_S)
    market.show(market.agg_a, proofs)
    market.net.to(market.net.market_ms + 172_800_000)
    assert market.resolve(market.agg_a)["verdict"] == "challenger"
    market.net.call(market.agg_a, "settlement.accept", settlement=settlement)
    market.net.call(market.agg_a, "settlement.finalise", settlement=settlement)
    assert market.money(market.agg_a) == START + 500_000 + 5_000_000  # the order's price, and the bond's cost


def test_it_tells_what_it_activated_and_proposes_when_the_buyer_does_not() -> None:
    market = Market.start()
    order, _ = market.order()
    market.deliver(order)
    end_role(market, market.agg_a, "aggregator")
    named = {"order_id": order["order_id"], "stage": "commanded", "hash": "ab" * 32}
    market.net.call(market.agg_a, "congestion.activation", **named)
    end_role(market, market.dso, "dso")
    market.settle(order)
    assert market.money(market.agg_a) == START + 500_000


def test_a_lapsed_offer_is_revoked_without_the_role() -> None:
    market = Market.start()
    market.nominate(market.agg_a)
    market.request()
    market.offer(market.agg_a, option(100_000, [10_000, 10_000, 0], a1=[10_000, 10_000, 0]))
    market.close()
    end_role(market, market.agg_a, "aggregator")
    market.net.to(market.day.bounds(49)[0])
    market.net.call(market.agg_a, "congestion.revoke", auction=AUCTION, offer_id="offer-a")
    assert market.money(market.agg_a) == START and market.held() == {}


def test_new_business_takes_the_role() -> None:
    market = Market.start()
    market.request()
    end_role(market, market.agg_a, "aggregator")
    refused("role", "actor", lambda: market.nominate(market.agg_a))
    market.close()
    end_role(market, market.dso, "dso")
    refused("role", "actor", lambda: market.net.call(market.dso, "congestion.clear", auction=AUCTION))
