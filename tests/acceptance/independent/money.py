"""Every account twice: as the sum of all postings on the ledger, and from what was metered, ordered and traded."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import floor

from acceptance.independent.blocks import Chain
from acceptance.independent.market import Market, Trade, double_auction, lines_of, micro_eur


@dataclass
class Books:
    """Balances in µ€ by account, in all and by product."""

    accounts: dict[str, int]
    by_product: dict[str, dict[str, int]]


def posted(chain: Chain) -> Books:
    """All postings of valid transactions."""
    accounts: dict[str, int] = defaultdict(int)
    products: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for event in chain.events("accounts.posted"):
        for line in event["lines"]:
            assert line["micro_eur"] > 0, line
            for account, sign in ((line["debit"], -1), (line["credit"], 1)):
                accounts[account] += sign * line["micro_eur"]
                products[event["product"]][account] += sign * line["micro_eur"]
    return Books(dict(accounts), {name: dict(found) for name, found in products.items()})


@dataclass
class Verdict:
    """A dispute as the auditor decides it from the journals."""

    dispute_id: str
    order_id: str
    isp: int
    connection: str
    claimed_j: int
    defended_j: int
    winner: str
    challenger: str
    respondent: str
    bond: int


def verdicts(market: Market) -> list[Verdict]:
    """Meter-signed registers at both ends beat everything; a claim that the meter contradicts loses."""
    result = []
    for event in market.chain.events("dispute.opened"):
        order_id = event["settlement"].rsplit(".", 1)[0]
        order = market.orders[order_id]
        meter = market.meter[event["connection"]]
        bounds = market.bounds(event["isp"])
        holders = market.holders
        buyer = holders[order["buyer_org"]]
        defended, _ = market.estimated_j(buyer, meter, event["isp"])
        own = holders[order["aggregator_org"]].net_j(meter, *bounds)
        theirs = buyer.net_j(meter, *bounds)
        claim_proven = own is not None and own == event["claimed_j"]
        defence_proven = theirs is not None and theirs == defended
        assert claim_proven != defence_proven, "the story's disputes have one side that the meter backs"
        respondent = order["buyer"] if event["challenger"] == order["aggregator"] else order["aggregator"]
        result.append(
            Verdict(
                event["dispute_id"],
                order_id,
                event["isp"],
                event["connection"],
                event["claimed_j"],
                defended,
                "challenger" if claim_proven else "respondent",
                event["challenger"],
                respondent,
                market.products[order["product"]]["bond_micro_eur"],
            )
        )
    return result


@dataclass
class Settlement:
    """One order, settled by the auditor: lines, what the provider gets, what the buyer pays."""

    order_id: str
    actual: dict[int, int]
    ranks: dict[int, int]
    lines: list[tuple[int, int, Fraction]]

    @property
    def provider(self) -> int:
        return sum(floor(net) for _, _, net in self.lines)

    @property
    def buyer(self) -> int:
        return floor(sum(net for _, _, net in self.lines))


def settlements(market: Market, *, judged: bool) -> dict[str, Settlement]:
    """Per order; `judged`: with the verdicts, otherwise as the DSO has to propose them."""
    won = [verdict for verdict in verdicts(market) if verdict.winner == "challenger"] if judged else []
    result = {}
    for order_id, order in market.orders.items():
        isps = [item["isp"] for item in order["isps"]]
        buyer = market.holders[order["buyer_org"]]
        portfolio = market.portfolio(order["aggregator"])
        known = {(name, isp): market.estimated_j(buyer, market.meter[name], isp) for name in portfolio for isp in isps}
        for verdict in won:
            if verdict.order_id == order_id:
                _correct(known, verdict)
        actual = {isp: sum(known[name, isp][0] for name in portfolio) for isp in isps}
        ranks = {isp: min(known[name, isp][1] for name in portfolio) for isp in isps}
        result[order_id] = Settlement(order_id, actual, ranks, lines_of(market, order, actual))
    return result


def _correct(known: dict[tuple[str, int], tuple[int, int]], won: Verdict) -> None:
    """Signed registers replace the estimate; the only other estimate next to it had the same register missing, and
    what both add up to was right."""
    name, isp = won.connection, won.isp
    before, rank = known[name, isp]
    known[name, isp] = won.claimed_j, 3
    beside = [other for other in (isp - 1, isp + 1) if known.get((name, other), (0, 3))[1] == 1]
    if rank == 1 and len(beside) == 1:
        energy, _ = known[name, beside[0]]
        known[name, beside[0]] = energy - (won.claimed_j - before), 1


def local_books(market: Market) -> dict[str, dict[str, dict[str, object]]]:
    """Auction → order id → the standing order with its actor."""
    books: dict[str, dict[str, dict[str, object]]] = defaultdict(dict)
    for call in market.chain.calls("local_energy.order"):
        books[call.args["auction"]][call.args["order_id"]] = {**call.args, "actor": call.actor}
    return dict(books)


def local_trades(market: Market) -> dict[str, Trade]:
    """Every local auction cleared again under its headroom."""
    opened = {event["auction"]: event for event in market.chain.events("local_energy.opened")}
    seconds = market.days[market.date]["isp_seconds"]
    return {
        auction: double_auction(orders, opened[auction]["headroom_w"] * seconds)
        for auction, orders in local_books(market).items()
    }


@dataclass
class Imbalance:
    """Joules per BRP and ISP, and what each owes exactly, in µ€."""

    energy_j: dict[str, list[int]]
    owed: dict[str, Fraction]


def imbalance(market: Market, meter_of_point: str, losses_brp: str) -> Imbalance:
    """Allocated − position, with allocations from the journals' registers and positions from nominations and trades."""
    settle = market.chain.calls("imbalance.settle")[0].args
    brps = sorted(set(market.brp.values()))
    energy = {brp: [0] * len(market.isps) for brp in brps}
    for isp in market.isps:
        drawn = 0
        for connection, brp in market.brp.items():
            taken = market.true_j(market.meter[connection], isp)
            energy[brp][isp - 1] += taken
            drawn += taken
        energy[losses_brp][isp - 1] += market.true_j(meter_of_point, isp) - drawn
    planned: dict[str, list[int]] = {}
    for call in market.chain.calls("imbalance.nominate"):
        planned[call.actor] = call.args["energy_j"]
    for brp, position in planned.items():
        energy[brp] = [a - p for a, p in zip(energy[brp], position, strict=True)]
    books = local_books(market)
    opened = {event["auction"]: event for event in market.chain.events("local_energy.opened")}
    for auction, trade in local_trades(market).items():
        place = opened[auction]["isp_from"] - 1
        for order_id, volume in trade.fills.items():
            order = books[auction][order_id]
            energy[market.brp[str(order["connection"])]][place] -= volume if order["side"] == "buy" else -volume
    prices = settle["price_nano_eur_per_wh"]
    owed = {brp: sum((micro_eur(e, p) for e, p in zip(energy[brp], prices, strict=True)), Fraction()) for brp in brps}
    return Imbalance(energy, owed)


def first_principles(market: Market, imbalances: Imbalance, tso: str) -> dict[str, int]:
    """Every account's balance without looking at a single posting; accounts at zero are left out."""
    balance: dict[str, int] = defaultdict(int)
    for call in market.chain.calls("accounts.fund"):
        balance[call.args["account"]] += call.args["micro_eur"]
        balance["external"] -= call.args["micro_eur"]
    for order_id, settled in settlements(market, judged=True).items():
        order = market.orders[order_id]
        balance[f"actor:{order['buyer']}"] -= settled.buyer
        balance[f"actor:{order['aggregator']}"] += settled.provider
        balance["rounding"] += settled.buyer - settled.provider
    for verdict in verdicts(market):
        won = verdict.winner == "challenger"
        winner, loser = (verdict.challenger, verdict.respondent) if won else (verdict.respondent, verdict.challenger)
        balance[f"actor:{winner}"] += verdict.bond
        balance[f"actor:{loser}"] -= verdict.bond
    _local(market, balance)
    for brp, owed in imbalances.owed.items():
        balance[f"brp:{brp}"] += floor(-owed)
        balance["rounding"] -= floor(-owed)
    operator = floor(sum(imbalances.owed.values()))
    balance[f"imbalance:{tso}"] += operator
    balance["rounding"] -= operator
    return {account: amount for account, amount in balance.items() if amount}


def _local(market: Market, balance: dict[str, int]) -> None:
    books: Mapping[str, Mapping[str, Mapping[str, object]]] = local_books(market)
    opened = {event["auction"]: event for event in market.chain.events("local_energy.opened")}
    for auction, trade in local_trades(market).items():
        for order_id, volume in trade.fills.items():
            order = books[auction][order_id]
            assert trade.price is not None
            buys = order["side"] == "buy"
            cash = floor(micro_eur(-volume if buys else volume, trade.price))
            fee = floor(micro_eur(volume, opened[auction]["grid_fee_nano_eur_per_wh"])) if buys else 0
            balance[f"actor:{order['actor']}"] += cash - fee
            balance[f"fees:{opened[auction]['operator']}"] += fee
            balance["rounding"] -= cash
