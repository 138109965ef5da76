"""The congestion market on the embedded ledger: held-back offers, private data, endorsement, a story and its proof."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from support.contracts import Party
from support.embedded_market import LedgerInHand, market_network
from support.market import AUCTION, ISP_S, Market, MarketNetwork, option

from flexrelay.ledger.embedded import verify
from flexrelay.ledger.port import LedgerError, Prepared, Validation
from flexrelay_contracts.market.auctions import OPENING_MS
from flexrelay_contracts.refusal import Refused
from flexrelay_schemas.canonical import canonical

KWH = 3_600_000
GOOD = option(100_000, [10_000, 10_000, 0], a1=[10_000, 10_000, 0])


def backend(market: Market) -> LedgerInHand:
    ledger = market.net.ledger
    assert isinstance(ledger, LedgerInHand)
    return ledger


def prepared_offer(market: Market, offer_id: str = "held-back", *, by_b: bool = False) -> Prepared:
    """A sealed offer of A (or B) that is endorsed and not ordered."""
    party, org = (market.agg_b, "agg-b") if by_b else (market.agg_a, "agg-a")
    made = option(1, [10_000, 10_000, 0], b1=[10_000, 10_000, 0]) if by_b else GOOD
    contents = canonical({"v": 1, "salt": "ef" * 32, "options": [made]})
    args = {
        "auction": AUCTION,
        "offer_id": offer_id,
        "prognosis_revision": 1,
        "contents_hash": hashlib.sha256(contents).hexdigest(),
    }
    intent = party.intent("congestion.offer", args, deadline=backend(market).now + 600_000)
    return backend(market).prepare(intent, market.net.creators[org], {"offer": contents})


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
        market.nominate(market.agg_b)
        second = prepared_offer(market, "late", by_b=True)
        market.close()
        assert backend(market).submit(second) is Validation.MVCC_READ_CONFLICT
        assert [order["offer_id"] for order in market.clear()] == ["held-back"]


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
    """B disputes with its gateway's word and loses, A disputes with the meter's signature and wins; all is final."""
    bond = 5_000_000
    with market_network(tmp_path) as net:
        market = Market.on(net, sealed=True)
        orders = market.order()
        market.deliver(*orders)
        net.to(market.day.end)
        of_a = market.meter_proofs("agg-a", "a1", 49, 10_000 * ISP_S)
        of_b = market.meter_proofs("agg-b", "b1", 49, 10_000 * ISP_S, attested=True)
        of_dso = market.meter_proofs("dso", "b1", 49, KWH)
        net.to(market.day.end + 60_000)
        said = {49: KWH}  # what the DSO says that a1 and b1 drew
        names = [market.propose(orders[0], a1=said), market.propose(orders[1], b1=said)]
        with pytest.raises(Refused, match="private_not_member"):
            backend(market).ask_as("agg-b", "settlement.detail", settlement=names[0])
        market.open(market.agg_a, names[0], 49, "a1", 10_000 * ISP_S, "a-disputes")
        market.show(market.agg_a, of_a, "a-disputes")
        market.open(market.agg_b, names[1], 49, "b1", 10_000 * ISP_S, "b-disputes")
        market.show(market.agg_b, of_b, "b-disputes")
        market.show(market.dso, of_dso, "b-disputes")
        assert market.resolve(market.agg_b, "b-disputes")["verdict"] == "respondent"
        net.to(net.market_ms + 172_800_000)
        assert market.resolve(market.agg_a, "a-disputes")["verdict"] == "challenger"
        for name, party in zip(names, (market.agg_a, market.agg_b), strict=True):
            net.call(party, "settlement.accept", settlement=name)
            net.call(market.dso, "settlement.finalise", settlement=name)
        assert market.money(market.agg_a) == 1_000_000_000 + 500_000 + bond
        # 1000 of 2500 Wh in ISP 49: 120,000 less 225,000 µ€; ISP 50 in full; the bond is lost
        assert market.money(market.agg_b) == 1_000_000_000 - 105_000 + 300_000 - bond
        assert market.held() == {}
    assert not verify(tmp_path).problems


PAIRS = (("agg-a", "dso"), ("agg-b", "dso"), ("agg-a", "agg-b"))


def sealed_and_closed(net: MarketNetwork) -> Market:
    market = Market.on(net, sealed=True)
    market.nominate(market.agg_a)
    market.nominate(market.agg_b)
    market.request()
    market.offer(market.agg_a, GOOD)
    market.offer(market.agg_b, option(120_000, [10_000, 10_000, 0], b1=[10_000, 10_000, 0]))
    market.close()
    return market


def endorsed(market: Market, party: Party, endorsing: tuple[str, ...], function: str, **args: Any) -> Prepared:
    intent = party.intent(function, args, deadline=backend(market).now + 60_000)
    return backend(market).prepare(intent, market.net.creators[market.net.home[party.did]], endorsing=endorsing)


@pytest.mark.parametrize("pair", PAIRS)
def test_any_two_organisations_endorse_openings_and_the_buyers_with_another_the_award(
    tmp_path: Path, pair: tuple[str, str]
) -> None:
    with market_network(tmp_path) as net:
        market = sealed_and_closed(net)
        for party, name in ((market.agg_a, "offer-a"), (market.dso, "offer-b")):
            opening = endorsed(market, party, pair, "congestion.open_offer", **market.sealed_contents(name))
            assert backend(market).submit(opening) is Validation.VALID
        alone = endorsed(market, market.dso, ("dso",), "congestion.clear", auction=AUCTION)
        clearing = endorsed(market, market.dso, pair, "congestion.clear", auction=AUCTION)
        assert backend(market).submit(alone) is Validation.ENDORSEMENT_POLICY_FAILURE
        met = "dso" in pair
        assert backend(market).submit(clearing) is (Validation.VALID if met else Validation.ENDORSEMENT_POLICY_FAILURE)
        assert len(clearing.result["orders"]) == 2
    assert not verify(tmp_path).problems


def test_an_organisation_alone_is_no_majority(tmp_path: Path) -> None:
    """B is the DSO's here: nobody else may see what the two seal, so nobody else can endorse it."""
    with market_network(tmp_path, ("dso", "agg-a")) as net:
        market = Market.on(net, sealed=True)
        market.nominate(market.agg_a)
        market.nominate(market.agg_b)
        market.request()
        with pytest.raises(LedgerError, match="no set of organisations"):
            market.offer(market.agg_b, option(1, [10_000, 10_000, 0], b1=[10_000, 10_000, 0]))
        market.offer(market.agg_a, GOOD)
        market.close()
        assert len(market.clear()) == 1


@pytest.mark.parametrize("orgs", [("dso",), ("dso", "agg-a", "agg-b", "tso", "operator")], ids=["one", "five"])
def test_sealed_products_are_traded_and_settled_on_networks_of_any_size(tmp_path: Path, orgs: tuple[str, ...]) -> None:
    """One organisation that is buyer and aggregators; a large network, where two parties are no majority."""
    with market_network(tmp_path, orgs) as net:
        market = Market.on(net, sealed=True)
        orders = market.order()
        market.deliver(*orders)
        for order in orders:
            market.settle(order)
        assert market.money(market.agg_a) == 1_000_000_000 + 500_000
        assert market.held() == {}
    assert not verify(tmp_path).problems


def test_a_sealed_offer_is_shown_to_its_two_organisations_only(tmp_path: Path) -> None:
    with market_network(tmp_path) as net:
        market = sealed_and_closed(net)
        named = {"auction": AUCTION, "offer_id": "offer-a"}
        ours, theirs = (backend(market).ask_as(org, "congestion.offer_contents", **named) for org in ("agg-a", "dso"))
        assert ours == theirs and ours["options"] == [GOOD]
        with pytest.raises(Refused, match="private_not_member"):
            backend(market).ask_as("agg-b", "congestion.offer_contents", **named)
        market.unseal()
        assert backend(market).ask_as("agg-b", "congestion.offer_contents", **named) == ours


def test_an_opening_held_back_over_the_clearing_dies(tmp_path: Path) -> None:
    """The buyer has waited long enough: what comes after its clearing changes nothing, and nothing was seen in part."""
    with market_network(tmp_path) as net:
        market = sealed_and_closed(net)
        contents = market.sealed_contents("offer-a")
        net.call(market.dso, "congestion.open_offer", **market.sealed_contents("offer-b"))
        net.to(market.closes + OPENING_MS)
        held = endorsed(market, market.agg_a, (), "congestion.open_offer", **contents)
        early = endorsed(market, market.dso, (), "congestion.clear", auction=AUCTION)
        assert backend(market).submit(early) is Validation.VALID
        assert backend(market).submit(held) is Validation.MVCC_READ_CONFLICT
        (order_id,) = early.result["orders"]
        assert net.ask("congestion.order", order_id=order_id)["offer_id"] == "offer-b"
        assert market.money(market.agg_a) == 1_000_000_000


def test_a_clearing_that_an_opening_overtakes_is_made_again(tmp_path: Path) -> None:
    with market_network(tmp_path) as net:
        market = sealed_and_closed(net)
        contents = market.sealed_contents("offer-a")
        net.call(market.dso, "congestion.open_offer", **market.sealed_contents("offer-b"))
        net.to(market.closes + OPENING_MS)
        without = endorsed(market, market.dso, (), "congestion.clear", auction=AUCTION)
        net.call(market.agg_a, "congestion.open_offer", **contents)
        assert backend(market).submit(without) is not Validation.VALID
        assert len(market.clear()) == 2


def test_both_parties_open_at_once(tmp_path: Path) -> None:
    with market_network(tmp_path) as net:
        market = sealed_and_closed(net)
        contents = market.sealed_contents("offer-a")
        first = endorsed(market, market.agg_a, (), "congestion.open_offer", **contents)
        second = endorsed(market, market.dso, (), "congestion.open_offer", **contents)
        assert backend(market).submit(first) is Validation.VALID
        assert backend(market).submit(second) is Validation.MVCC_READ_CONFLICT
        assert len(market.clear()) == 2
