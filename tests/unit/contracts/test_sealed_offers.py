"""Sealed offers: private until the gate, opened after it by either party, void or left out without harm to anybody."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.contracts import MemoryContext
from support.market import AUCTION, DATE, Market, option

from flexrelay_contracts.market.auctions import OPENING_MS, opening_ends_at
from flexrelay_contracts.market.offer import MAX_CONTENTS_BYTES, parse_contents
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.state import key
from flexrelay_schemas.canonical import canonical, digest

START = 1_000_000_000
OF_A = option(100_000, [10_000, 10_000, -4_000], a1=[6_000, 6_000, -4_000], a2=[4_000, 4_000, 0])
OF_B = option(120_000, [10_000, 10_000, 0], b1=[10_000, 10_000, 0])


def refused(code: str, field: str, action: Callable[[], object]) -> None:
    with pytest.raises(Refused) as caught:
        action()
    assert (caught.value.code, caught.value.field) == (code, field)
    assert caught.value.message


def offered(**changes: Any) -> Market:
    """Both have a sealed offer, the gate is open."""
    market = Market.start(**{"sealed": True, **changes})
    market.nominate(market.agg_a)
    market.nominate(market.agg_b)
    market.request()
    market.offer(market.agg_a, OF_A)
    market.offer(market.agg_b, OF_B)
    return market


def closed(**changes: Any) -> Market:
    market = offered(**changes)
    market.close()
    return market


def offer(market: Market, offer_id: str) -> dict[str, Any]:
    found = market.net.ask("congestion.offers", auction=AUCTION)
    return next(item for item in found if item["offer_id"] == offer_id)


def clear(market: Market) -> Any:
    """The transaction alone: nothing is opened for it."""
    return market.net.call(market.dso, "congestion.clear", auction=AUCTION)


def open_by(market: Market, party: Any, offer_id: str, **changes: Any) -> Any:
    return market.net.call(party, "congestion.open_offer", **{**market.sealed_contents(offer_id), **changes})


def reserved(market: Market, connection: str, direction: str = "withdrawal") -> dict[str, Any]:
    found: dict[str, Any] = market.net.ask(
        "portfolio.reserved", connection=connection, direction=direction, date=DATE
    )  # fmt: skip
    return found


def announced(market: Market, name: str) -> list[dict[str, Any]]:
    return [json.loads(payload) for event, payload in market.net.ledger.events if event == name]


def test_a_sealed_offer_is_private_until_it_is_opened() -> None:
    market = offered()
    public = json.dumps([market.net.ask("congestion.offers", auction=AUCTION), announced(market, "congestion.offered")])
    assert "price_nano_eur_per_wh" not in public and "salt" not in public
    assert {offer(market, name)["collection"] for name in ("offer-a", "offer-b")} == {"dso--agg-a", "dso--agg-b"}
    market.close()
    contents = market.sealed_contents("offer-a")
    assert open_by(market, market.agg_a, "offer-a")["status"] == "open"
    record = offer(market, "offer-a")
    assert (record["status"], record["options"], record["salt"]) == ("open", [OF_A], contents["salt"])
    assert digest({"v": 1, "salt": record["salt"], "options": record["options"]}) == record["contents_hash"]
    assert list(market.net.ledger.private) == [("dso--agg-b", key("offer_contents", AUCTION, "offer-b"))]
    (event,) = announced(market, "congestion.opened")
    assert (event["offer_id"], event["status"], event["options"]) == ("offer-a", "open", [OF_A])
    assert event["opened_by"] == market.agg_a.did
    assert market.sealed_contents("offer-a") == contents, "after the opening for everybody"


def test_the_result_is_that_of_open_offers() -> None:
    plain, sealed = Market.start(), Market.start(sealed=True)
    for first, second in zip(plain.order(), sealed.order(), strict=True):
        for name in ("offer_id", "option_id", "activation_percent", "isps", "buyer_escrow_micro_eur"):
            assert first[name] == second[name]
    assert sorted(plain.held().values()) == sorted(sealed.held().values())
    assert not sealed.net.ledger.private


def test_the_clearing_reads_no_private_data() -> None:
    market = closed()
    market.unseal()
    original = MemoryContext.get_private

    def never(self: MemoryContext, collection: str, name: str) -> bytes | None:
        raise AssertionError(f"{name} was read in {collection}")

    MemoryContext.get_private = never  # type: ignore[method-assign]
    try:
        assert len(clear(market)["orders"]) == 2
    finally:
        MemoryContext.get_private = original  # type: ignore[method-assign]


def test_either_party_opens_and_nobody_else() -> None:
    market = closed()
    refused("not_party", "actor", lambda: open_by(market, market.agg_b, "offer-a"))
    other = market.net.actor("dso", org="dso")
    refused("not_party", "actor", lambda: open_by(market, other, "offer-a"))
    outsider = market.net.actor("prosumer", org="agg-a")
    refused("role", "actor", lambda: open_by(market, outsider, "offer-a"))
    assert open_by(market, market.dso, "offer-a")["status"] == "open"
    assert open_by(market, market.agg_b, "offer-b")["status"] == "open"
    assert len(clear(market)["orders"]) == 2


def test_an_offer_is_opened_once_and_after_the_gate() -> None:
    market = offered()
    refused("gate_open", "auction", lambda: open_by(market, market.agg_a, "offer-a"))
    market.net.to(market.closes)
    refused("gate_open", "auction", lambda: open_by(market, market.agg_a, "offer-a"))
    market.close()
    contents = market.sealed_contents("offer-b")
    refused(
        "unknown_offer", "offer_id",
        lambda: market.net.call(market.agg_a, "congestion.open_offer", **{**contents, "offer_id": "none"}),
    )  # fmt: skip
    refused(
        "unknown_auction", "auction",
        lambda: market.net.call(market.agg_a, "congestion.open_offer", **{**contents, "auction": "none"}),
    )  # fmt: skip
    open_by(market, market.agg_a, "offer-a")
    refused("offer_status", "offer_id", lambda: open_by(market, market.agg_a, "offer-a"))
    open_by(market, market.agg_b, "offer-b")
    clear(market)
    refused("auction_status", "auction", lambda: open_by(market, market.agg_b, "offer-b"))


def test_only_what_was_sealed_opens_an_offer() -> None:
    market = closed()
    contents = market.sealed_contents("offer-a")
    cheaper = [{**contents["options"][0], "price_nano_eur_per_wh": 1}]
    for changes in ({"salt": "0" * 64}, {"options": cheaper}, {"options": []}, {"options": [OF_A, OF_B]}):
        refused("contents_hash", "options", lambda given=changes: open_by(market, market.agg_a, "offer-a", **given))
        refused("contents_hash", "options", lambda given=changes: open_by(market, market.dso, "offer-a", **given))
    assert offer(market, "offer-a")["status"] == "sealed"


def test_an_offer_that_never_was_sealed_is_open() -> None:
    market = closed(sealed=False)
    assert [item["status"] for item in market.net.ask("congestion.offers", auction=AUCTION)] == ["open", "open"]
    refused("not_sealed", "offer_id", lambda: market.sealed_contents("offer-a"))
    args = {"auction": AUCTION, "offer_id": "offer-a", "salt": "0" * 64, "options": [OF_A]}
    refused("offer_status", "offer_id", lambda: market.net.call(market.agg_a, "congestion.open_offer", **args))
    assert len(clear(market)["orders"]) == 2


# -- what is not opened


def test_a_clearing_waits_for_what_is_sealed_and_no_longer() -> None:
    market = closed()
    open_by(market, market.agg_b, "offer-b")
    with pytest.raises(Refused, match="offer offer-a is sealed") as caught:
        clear(market)
    assert (caught.value.code, caught.value.field) == ("offer_sealed", "auction")
    market.net.to(market.closes + OPENING_MS - 1)
    refused("offer_sealed", "auction", lambda: clear(market))
    market.net.to(market.closes + OPENING_MS)
    (order_id,) = clear(market)["orders"]
    order = market.net.ask("congestion.order", order_id=order_id)
    assert order["aggregator"] == market.agg_b.did
    assert market.money(market.agg_a) == START, "the buyer could have opened it: nothing is forfeited"
    assert reserved(market, "a1")["holds"] == {} and not any(reserved(market, "a1")["reserved_w"])
    assert not market.net.ledger.private
    left = offer(market, "offer-a")
    assert (left["status"], left["options"]) == ("unopened", [])
    clearing = market.net.ask("congestion.clearing", auction=AUCTION)
    assert (clearing["unopened"], sorted(clearing["options"])) == (["offer-a"], ["offer-b"])
    refused("offer_unavailable", "offer_id", lambda: market.sealed_contents("offer-a"))


def test_a_late_opening_counts_until_the_clearing() -> None:
    market = closed()
    market.net.to(market.closes + 3 * OPENING_MS)
    open_by(market, market.agg_a, "offer-a")
    open_by(market, market.dso, "offer-b")
    assert len(clear(market)["orders"]) == 2


def test_nothing_opened_is_a_clearing_without_orders() -> None:
    market = closed()
    market.net.to(market.closes + OPENING_MS)
    assert clear(market)["orders"] == []
    assert market.held() == {} and market.money(market.agg_a) == market.money(market.agg_b) == START


def test_the_wait_leaves_half_of_the_time_to_the_clearing() -> None:
    auction = {"closed_ms": 1_000_000}
    assert opening_ends_at(auction, 1_000_000 + 10 * OPENING_MS) == 1_000_000 + OPENING_MS
    assert opening_ends_at(auction, 1_000_000 + 600_000) == 1_000_000 + 300_000
    assert opening_ends_at(auction, 500_000) == 1_000_000


def test_a_gate_that_is_closed_late_gives_the_same_time() -> None:
    market = offered()
    market.net.to(market.closes + 2 * OPENING_MS)
    market.net.call(market.agg_a, "congestion.close_gate", auction=AUCTION)
    refused("offer_sealed", "auction", lambda: clear(market))
    market.net.to(market.closes + 3 * OPENING_MS)
    assert clear(market)["orders"] == []


def test_a_lapsed_auction_gives_back_what_is_sealed_or_open_and_opens_nothing() -> None:
    market = closed()
    open_by(market, market.agg_a, "offer-a")
    contents = market.sealed_contents("offer-b")
    market.net.to(market.day.bounds(49)[0] - 900_000)
    refused("lapsed", "auction", lambda: market.net.call(market.agg_b, "congestion.open_offer", **contents))
    refused("lapsed", "auction", lambda: clear(market))
    for party, name in ((market.agg_a, "offer-a"), (market.agg_b, "offer-b")):
        market.net.call(party, "congestion.revoke", auction=AUCTION, offer_id=name)
    assert market.held() == {} and market.money(market.agg_a) == market.money(market.agg_b) == START
    assert not market.net.ledger.private


# -- what does not hold any more


def without_mandate(market: Market, connection: str) -> None:
    """The owner gives its connection to the other aggregator, from the delivery day on."""
    other = market.agg_b if market.of[connection] is market.agg_a else market.agg_a
    market.net.call(
        market.connections[connection].owner, "masterdata.record", kind="mandate", connection=connection,
        valid_from=DATE, valid_to="", data={"aggregator": other.did},
    )  # fmt: skip


def test_an_offer_whose_mandate_ended_is_void_and_holds_nothing() -> None:
    market = closed()
    without_mandate(market, "a2")
    result = open_by(market, market.dso, "offer-a")
    assert result["status"] == "void"
    assert result["invalid"]["code"] == "mandate"
    assert result["invalid"]["field"] == "options.0.connections.1.connection"
    assert market.money(market.agg_a) == START
    assert market.held() == {f"escrow:{market.agg_b.did}:{AUCTION}": 1_000_001}
    for connection, direction in (("a1", "withdrawal"), ("a1", "feed_in"), ("a2", "withdrawal")):
        found = reserved(market, connection, direction)
        assert found["holds"] == {} and not any(found["reserved_w"])
    assert [key("offer_contents", AUCTION, "offer-b")] == [name for _, name in market.net.ledger.private]
    refused("offer_status", "offer_id", lambda: open_by(market, market.agg_a, "offer-a"))
    open_by(market, market.agg_b, "offer-b")
    (order_id,) = clear(market)["orders"]
    assert market.net.ask("congestion.order", order_id=order_id)["offer_id"] == "offer-b"
    assert offer(market, "offer-a")["status"] == "void"
    assert market.net.ask("congestion.clearing", auction=AUCTION)["unopened"] == []


def test_a_void_offer_cannot_be_revoked_for_a_second_collateral() -> None:
    market = closed()
    without_mandate(market, "a1")
    open_by(market, market.agg_a, "offer-a")
    market.net.to(market.day.bounds(49)[0] - 900_000)
    revoke = {"auction": AUCTION, "offer_id": "offer-a"}
    refused("offer_status", "offer_id", lambda: market.net.call(market.agg_a, "congestion.revoke", **revoke))
    assert market.money(market.agg_a) == START


def test_what_is_opened_stays_open_whatever_the_mandate_does() -> None:
    market = closed()
    market.unseal()
    without_mandate(market, "a1")
    assert len(clear(market)["orders"]) == 2


def tampered(market: Market, **changes: Any) -> None:
    """The offer's record as dishonest endorsers would have written it."""
    name = key("offer", AUCTION, "offer-a")
    record = json.loads(market.net.ledger.state[name])
    market.net.ledger.state[name] = canonical({**record, **changes})


@pytest.mark.parametrize("code", ["slots", "collateral"])
def test_an_offer_whose_record_is_not_what_it_needs_is_void(code: str) -> None:
    market = closed()
    if code == "slots":
        tampered(market, slots=[["a1", "withdrawal"]])
    else:
        tampered(market, collateral_micro_eur=1)
    result = open_by(market, market.dso, "offer-a")
    assert (result["status"], result["invalid"]["code"]) == ("void", code)


@pytest.mark.parametrize("contents", ["forbidden", "no_options"])
def test_an_offer_that_was_never_within_the_rules_is_void(contents: str) -> None:
    """Endorsers that did not look at what they endorsed do not get it into a clearing."""
    market = closed()
    salt = "ab" * 32
    options = [] if contents == "no_options" else [{**OF_A, "price_nano_eur_per_wh": 3_000_001}]
    tampered(market, contents_hash=digest({"v": 1, "salt": salt, "options": options}))
    args = {"auction": AUCTION, "offer_id": "offer-a", "salt": salt, "options": options}
    result = market.net.call(market.agg_a, "congestion.open_offer", **args)
    assert result["status"] == "void"
    assert result["invalid"]["code"] == ("no_options" if contents == "no_options" else "price_limit")
    assert market.money(market.agg_a) == START


# -- what may be sealed


def test_sealed_contents_and_hash_belong_together() -> None:
    market = Market.start(sealed=True)
    market.nominate(market.agg_a)
    market.request()
    refused("contents_hash", "contents_hash", lambda: market.offer(market.agg_a, OF_A, contents_hash="0" * 64))
    refused("sealed", "options", lambda: market.offer(market.agg_a, OF_A, options=[OF_A]))
    refused("price_limit", "options.0.price_nano_eur_per_wh",
            lambda: market.offer(market.agg_a, {**OF_A, "price_nano_eur_per_wh": 3_000_001}))  # fmt: skip
    market.sealed = False
    refused("sealed", "contents_hash", lambda: market.offer(market.agg_a, options=[]))
    refused("transient_missing", "offer", lambda: market.offer(market.agg_a, options=[], contents_hash="0" * 64))


def hashed(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("code", "data"),
    [
        ("invalid_argument", canonical({"salt": "ab" * 32, "options": [OF_A]})),  # without v: no form to open it in
        ("invalid_argument", canonical({"v": 2, "salt": "ab" * 32, "options": [OF_A]})),
        ("invalid_argument", canonical({"v": 1, "salt": "ab" * 32, "options": [OF_A], "more": 1})),
        ("invalid_argument", b" " + canonical({"v": 1, "salt": "ab" * 32, "options": [OF_A]})),
        ("invalid_argument", b"\xff"),
        ("too_large", b" " * (MAX_CONTENTS_BYTES + 1)),
    ],
)
def test_contents_that_could_not_be_opened_are_not_sealed(code: str, data: bytes) -> None:
    with pytest.raises(Refused) as caught:
        parse_contents(data, hashed(data))
    assert (caught.value.code, caught.value.field.split(".")[0]) == (code, "offer")


# -- whatever they do


class Replay:
    """A market with two sealed offers after the gate; every example starts from the same ledger."""

    def __init__(self) -> None:
        self.market = closed()
        ledger = self.market.net.ledger
        self._kept = dict(ledger.state), dict(ledger.private), list(ledger.events), ledger.now, ledger.count

    def again(self) -> Market:
        ledger = self.market.net.ledger
        state, private, events, ledger.now, ledger.count = self._kept
        ledger.state, ledger.private, ledger.events = dict(state), dict(private), list(events)
        return self.market


@pytest.fixture(scope="module")
def replay() -> Replay:
    return Replay()


steps = st.lists(
    st.tuples(
        st.sampled_from(["open", "wrong", "mandate", "clear", "revoke", "wait", "lapse"]), st.booleans(), st.booleans()
    ),
    max_size=8,
)  # fmt: skip


@given(story=steps)
@settings(max_examples=150, deadline=None)
def test_whatever_is_done_money_and_reservations_add_up(story: list[Any], replay: Replay) -> None:
    market = replay.again()
    for step, first, by_buyer in story:
        take(market, step, first, by_buyer)
        check(market)


def take(market: Market, step: str, first: bool, by_buyer: bool) -> None:
    name, aggregator = ("offer-a", market.agg_a) if first else ("offer-b", market.agg_b)
    try:
        if step in ("open", "wrong"):
            changes = {"salt": "0" * 64} if step == "wrong" else {}
            open_by(market, market.dso if by_buyer else aggregator, name, **changes)
        elif step == "mandate":
            without_mandate(market, "a1" if first else "b1")
        elif step == "clear":
            clear(market)
        elif step == "revoke":
            market.net.call(aggregator, "congestion.revoke", auction=AUCTION, offer_id=name)
        else:
            lapses = market.day.bounds(49)[0] - 900_000
            market.net.to(max(market.net.market_ms, lapses if step == "lapse" else market.closes + OPENING_MS))
    except Refused as refusal:
        assert refusal.code != "contract_failure"


def check(market: Market) -> None:
    offers = {item["offer_id"]: item for item in market.net.ask("congestion.offers", auction=AUCTION)}
    auction = market.net.ask("congestion.auction", auction=AUCTION)
    balances = market.balances()
    assert all(value >= 0 for name, value in balances.items() if name.startswith(("actor", "escrow")))
    orders = []
    if auction["status"] == "cleared":
        clearing = market.net.ask("congestion.clearing", auction=AUCTION)
        orders = [market.net.ask("congestion.order", order_id=name) for name in clearing["orders"]]
        assert {order["offer_id"] for order in orders} <= {n for n, o in offers.items() if o["status"] == "open"}
        assert not market.net.ledger.private
    for name, aggregator in (("offer-a", market.agg_a), ("offer-b", market.agg_b)):
        ordered = sum(order["collateral_micro_eur"] for order in orders if order["offer_id"] == name)
        standing = name in offers and offers[name]["status"] in ("sealed", "open") and auction["status"] != "cleared"
        held = offers[name]["collateral_micro_eur"] if standing else ordered
        assert balances.get(f"escrow:{aggregator.did}:{AUCTION}", 0) == held
        assert market.money(aggregator) == START - held
        connection = "a1" if name == "offer-a" else "b1"
        assert bool(reserved(market, connection)["holds"]) == bool(held)
        sealed = name in offers and offers[name]["status"] == "sealed"
        assert sealed == any(place.endswith(f"{name}\x00") for _, place in market.net.ledger.private)
