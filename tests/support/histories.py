"""Random histories of every transaction type, with conflicts, refusals and private data, for the tests' network.

They are the contracts' own stories, with chance in what they can choose, and storms: calls that were prepared on one
state and come in any order.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from unit.contracts.test_disputes import Case
from unit.contracts.test_imbalance import test_golden_day_with_a_local_trade as imbalance_story
from unit.contracts.test_market_properties import play
from unit.contracts.test_mutated_calls import calls
from unit.contracts.test_positions import with_brps

from flexrelay.ledger.port import LedgerError
from flexrelay_contracts.refusal import Refused
from support.contracts import Party
from support.local_market import Street
from support.market import DATE, ISP_S, POINT, PRODUCT, Market, available, option, requested
from support.network import Network, plain_days
from support.two_ledgers import Both, TwoLedgers

Good = tuple[Party, str, Mapping[str, Any]]
"""Who calls what with which arguments."""


def two_of(net: Network) -> TwoLedgers:
    ledger: Any = net.ledger
    assert isinstance(ledger, TwoLedgers)
    return ledger


def storm(net: Network, chance: random.Random, made: Sequence[Good], *, shuffled: bool = True) -> None:
    """Prepare all on one state, submit them in any order."""
    ledger = two_of(net)
    ready: list[Both] = []
    for party, function, args in made:
        creator = net.creators[net.home[party.did]]
        with suppress(Refused, LedgerError):
            ready.append(ledger.prepare(party.intent(function, args, deadline=ledger.now + 60_000), creator))
    if shuffled:
        chance.shuffle(ready)
    if ready:
        ledger.submit(ready)


def core(net: Network, chance: random.Random, rounds: int = 1) -> None:
    """Every transaction of the network's core: some alone, the others at once, then what was not taken once more."""
    good: list[Good] = [(party, function, args) for function, (party, args) in calls(net).items()]
    *good, last = sorted(good, key=lambda item: item[1] == "gateways.withdraw")  # after it its owner is not carried
    alone = [item for item in good if item[1] == "identity.deactivate" or chance.random() < 0.3]
    for party, function, args in alone:
        net.call(party, function, **args)
    storm(net, chance, [*(item for item in good if item not in alone), *chance.sample(good, 4)])
    for party, function, args in [*good, last]:
        with suppress(Refused):  # those that were taken say no
            net.call(party, function, **args)
    account = {"account": f"actor:{net.operator.did}"}
    net.call(net.operator, "accounts.fund", **account, micro_eur=5)  # what is withdrawn is there
    for number in range(3):
        made = [
            (net.operator, "accounts.fund", account | {"micro_eur": 5}),
            (net.operator, "accounts.withdraw", account | {"micro_eur": 1}),
        ]
        storm(net, chance, made, shuffled=number > 0)
    for number in range(rounds):
        owner = net.actor()
        shared = [chance.choice(_OF_ALL)(net, owner, number, chance) for _ in range(chance.randrange(4, 9))]
        storm(net, chance, shared)


def _fund(net: Network, owner: Party, number: int, chance: random.Random) -> Good:
    account = f"actor:{chance.choice([owner, net.operator]).did}"
    return net.operator, "accounts.fund", {"account": account, "micro_eur": chance.randrange(1, 10**6)}


def _withdraw(net: Network, owner: Party, number: int, chance: random.Random) -> Good:
    return net.operator, "accounts.withdraw", {"account": f"actor:{net.operator.did}", "micro_eur": 1}


def _compact(net: Network, owner: Party, number: int, chance: random.Random) -> Good:
    return net.operator, "accounts.compact", {"account": chance.choice(["external", f"actor:{net.operator.did}"])}


def _publish(net: Network, owner: Party, number: int, chance: random.Random) -> Good:
    days = plain_days(f"2016-06-{2 + 2 * (number % 13):02}", chance.randrange(1, 3))
    return net.operator, "calendar.publish", {"days": [day.model_dump() for day in days]}


def _grant(net: Network, owner: Party, number: int, chance: random.Random) -> Good:
    gateway = net.gateways[chance.choice(sorted(net.gateways))].did
    return owner, chance.choice(["gateways.grant", "gateways.withdraw"]), {"gateway": gateway}


def _enrol(net: Network, owner: Party, number: int, chance: random.Random) -> Good:
    return owner, "grants.enrol", {"credential": net.credential(owner, chance.choice(["prosumer", "brp"]))}


def _anchor(net: Network, owner: Party, number: int, chance: random.Random) -> Good:
    org = chance.choice(sorted(net.gateways))
    args = {"anchor_id": f"storm-{number}-{chance.randrange(2)}", "root": "0" * 64, "windows": 1, "leaves": 1}
    return net.gateways[org], "evidence.anchor", args | {"first_ms": 1, "last_ms": 2}


_OF_ALL: tuple[Callable[[Network, Party, int, random.Random], Good], ...] = (
    _fund, _fund, _withdraw, _compact, _publish, _grant, _enrol, _anchor,
)  # fmt: skip


def congestion(net: Any, chance: random.Random) -> None:
    """A market of sealed offers from prognosis to settlement, with a dispute and corrected positions."""
    market = Market.on(net, sealed=True, balance_responsibility="buyer")
    brps = with_brps(market)
    for aggregator in (market.agg_a, market.agg_b):
        market.nominate(aggregator, 100 * chance.randrange(-20, 20))
    isps = [requested(49, 0, 20_000), requested(50, 0, 20_000), available(80, -8_000, 0)]
    request = {"product": PRODUCT, "congestion_point": POINT, "date": DATE, "direction": "withdrawal", "isps": isps}
    # The award gets its policy here: in one block the second one fails of that, in the next of what it has read.
    storm(net, chance, [(market.dso, "congestion.request", request)] * 2)
    market.offer(market.agg_a, option(1, [1_000, 0, 0], a1=[1_000, 0, 0]), offer_id="taken-back")
    net.call(market.agg_a, "congestion.revoke", auction="congestion-day-ahead.cp-1.2016-05-20", offer_id="taken-back")
    story = {
        "a": _offers(chance, "a1", "a2"),
        "b": _offers(chance, "b1", "b2"),
        "swap": chance.random() < 0.5,
        "energy": [chance.randrange(-30_000, 30_000) * ISP_S for _ in range(12)],
        "later": chance.choice([None, chance.randrange(-30_000, 30_000) * ISP_S]),
        "dispute": chance.choice(["wins", "wins", "loses", "entrusted", "stranger", "counter"]),
    }
    orders = play(market, story)
    for order in orders:
        _delivered(market, order, brps["grid"])
    _tidy(market)
    core(net, chance, 1)


def _delivered(market: Market, order: Mapping[str, Any], brp: Party) -> None:
    party = market.agg_a if order["aggregator"] == market.agg_a.did else market.agg_b
    market.net.call(party, "congestion.activation", order_id=order["order_id"], stage="commanded", hash="0" * 64)
    market.net.call(market.dso, "imbalance.correct", order_id=order["order_id"], buyer_brp=brp.did)


def _tidy(market: Market) -> None:
    net, parts = market.net, list[dict[str, int]]()
    net.call(net.operator, "accounts.withdraw", account=f"actor:{market.dso.did}", micro_eur=1)
    net.call(net.operator, "accounts.compact", account="external")
    net.call(
        market.dso, "portfolio.limit", connection="a1", direction="feed_in", date=DATE, parts=parts, reason="works"
    )  # fmt: skip
    net.call(net.operator, "products.retire", product="congestion-day-ahead")


def _offers(chance: random.Random, first: str, second: str) -> list[dict[str, Any]]:
    """One to three options over two connections, with and without rebound."""
    made = []
    for index in range(chance.randrange(1, 4)):
        rebound = -100 * chance.randrange(0, 80)
        one, two = 100 * chance.randrange(10, 200), chance.choice([0, 1_000, 5_000, 20_000])
        share = 100 * chance.randrange(0, one // 100 + 1)
        shares = {first: [share, two, rebound], second: [one - share, 0, 0]}
        price, least = chance.randrange(0, 3_000_000), chance.choice([1, 25, 50, 100])
        made.append(option(price, [one, two, rebound], option_id=f"o{index}", min_percent=least, **shares))
    return made


def equivocation(chance: random.Random) -> None:
    """Open offers; a meter is found to have signed two values for one instant, suspended and taken back."""
    case = Case(balance_responsibility="buyer")
    brps = with_brps(case.market)
    ours, theirs = case.proofs("agg-b", case.claimed), case.proofs("dso", case.proposed)
    case.propose()
    assert case.codes(case.decide(ours, theirs)) == ("equivocation", "equivocation", "equivocation")
    case.finish()
    market = case.market
    connection = market.connections["b1"]
    meter = connection.meter
    assert meter is not None
    _delivered(market, case.order, brps["grid"])
    market.net.rotate(meter, carrier=connection.owner)
    market.net.call(market.net.operator, "identity.reinstate", did=meter.did)
    storm(market.net, chance, [_fund(market.net, market.agg_a, number, chance) for number in range(4)])


def local_energy(chance: random.Random) -> None:
    """Trade between neighbours, an order that is taken back, and the imbalance settlement of the day."""
    street = Street.start()
    early = street.open(isp=70)
    street.order(early, "gone", "buy", "c3", chance.randrange(1, 900), chance.randrange(1, 10_000))
    street.net.call(street.owners["c3"], "local_energy.cancel", auction=early, order_id="gone")
    storm(street.net, chance, [_local_order(street, early, number, chance) for number in range(6)])
    imbalance_story(street)
    for auction in (early, f"local-energy-auction.cp-1.{DATE}.50-50"):
        for function in ("close_gate", "clear", "settle"):
            with suppress(Refused):
                street.net.call(street.dso, f"local_energy.{function}", auction=auction)


def _local_order(street: Street, auction: str, number: int, chance: random.Random) -> Good:
    connection = chance.choice(["c3", "c4"])
    args = {
        "auction": auction, "order_id": f"o{chance.randrange(4)}", "side": "buy", "connection": connection,
        "energy_j": 3600 * chance.randrange(1, 500), "price_nano_eur_per_wh": chance.randrange(1, 100_000),
    }  # fmt: skip
    return street.owners[connection], "local_energy.order", args
