"""What the story's market must be, from the ledger's blocks and the journals: need, orders, lines, verdicts, trades."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from itertools import product as combinations
from math import ceil, floor
from typing import Any

from acceptance.independent.blocks import Chain
from acceptance.independent.journals import Holder

J_PER_WH = 3600
NANO_PER_MICRO = 1000


def micro_eur(energy_j: int | Fraction, nano_eur_per_wh: int) -> Fraction:
    """energy × price, exactly."""
    return Fraction(energy_j) / J_PER_WH * nano_eur_per_wh / NANO_PER_MICRO


@dataclass
class Market:
    """The ledger's market documents, indexed."""

    chain: Chain
    holders: Mapping[str, Holder]

    def __post_init__(self) -> None:
        chain = self.chain
        self.days = {day["date"]: day for call in chain.calls("calendar.publish") for day in call.args["days"]}
        self.products = {
            call.args["document"]["product"]: call.args["document"] for call in chain.calls("products.publish")
        }
        records = [call.args for call in chain.calls("masterdata.record")]
        self.meter = {r["connection"]: r["data"]["device"] for r in records if r["kind"] == "meter"}
        self.control = {r["connection"]: r["data"]["device"] for r in records if r["kind"] == "device"}
        self.brp = {r["connection"]: r["data"]["brp"] for r in records if r["kind"] == "brp"}
        self.aggregator = {r["connection"]: r["data"]["aggregator"] for r in records if r["kind"] == "mandate"}
        self.orders = {order["order_id"]: order for order in chain.events("congestion.ordered")}
        self.request = chain.calls("congestion.request")[0].args
        self.date = self.request["date"]

    def bounds(self, isp: int, date: str = "") -> tuple[int, int]:
        day = self.days[date or self.date]
        return day["start"] + (isp - 1) * day["isp_seconds"] * 1000, day["start"] + isp * day["isp_seconds"] * 1000

    @property
    def isps(self) -> range:
        return range(1, self.days[self.date]["isps"] + 1)

    def portfolio(self, aggregator: str) -> list[str]:
        return sorted(name for name, found in self.aggregator.items() if found == aggregator)

    def true_j(self, meter: str, isp: int, date: str = "") -> int:
        """Withdrawal in an ISP by what any organisation holds that the meter signed."""
        found = {holder.net_j(meter, *self.bounds(isp, date)) for holder in self.holders.values()} - {None}
        if found:
            (energy,) = found
            assert energy is not None
            return energy
        ends = [self._register(meter, instant) for instant in self.bounds(isp, date)]
        return ends[1] - ends[0]

    def _register(self, meter: str, instant: int) -> int:
        nets = {
            registers["import_j"] - registers["export_j"]
            for holder in self.holders.values()
            if (registers := holder.registers.get((meter, instant))) is not None
        }
        (net,) = nets
        return net

    def estimated_j(self, holder: Holder, meter: str, isp: int) -> tuple[int, int]:
        """(withdrawal, rank): as one holder can know it; a missing end is interpolated and makes it an estimate."""
        ends, rank = [], 3
        for instant in self.bounds(isp):
            registers = holder.registers.get((meter, instant))
            if registers is None:
                rank = 1
                known = holder.instants(meter)
                before, after = max(t for t in known if t < instant), min(t for t in known if t > instant)
                low, high = holder.registers[meter, before], holder.registers[meter, after]
                share = Fraction(instant - before, after - before)
                registers = {name: low[name] + floor((high[name] - low[name]) * share) for name in low}
            ends.append(registers["import_j"] - registers["export_j"])
        return ends[1] - ends[0], rank


def lines_of(market: Market, order: Mapping[str, Any], actual: Mapping[int, int]) -> list[tuple[int, int, Fraction]]:
    """(delivered, deficiency, exact net µ€) per ISP of the order; `actual` by ISP."""
    terms = market.products[order["product"]]
    direction = 1 if order["direction"] == "withdrawal" else -1
    seconds = market.days[order["date"]]["isp_seconds"]
    baseline = _baseline(market, order)
    rebound_left = sum(abs(i["power_w"]) * seconds for i in order["isps"] if i["disposition"] == "requested")
    result = []
    for item in order["isps"]:
        moved = actual[item["isp"]] - baseline[item["isp"] - 1] * seconds
        if item["disposition"] == "requested":
            asked = abs(item["power_w"]) * seconds
            response = moved if item["power_w"] > 0 else -moved
            delivered, deficiency = sorted((0, response, asked))[1], max(asked - response, 0)
            share = Fraction(delivered, asked) * 1000
            net = micro_eur(asked, order["price_nano_eur_per_wh"]) * _paid(terms["payout_curve"], share) / 1000
            if Fraction(deficiency, asked) > Fraction(terms["tolerance_permille"], 1000):
                net -= micro_eur(deficiency, order["penalty_nano_eur_per_wh"])
            result.append((delivered, deficiency, net))
        else:
            beyond = max(-direction * moved - item["room_w"] * seconds, 0)
            beyond = min(beyond, rebound_left)
            rebound_left -= beyond
            result.append((0, beyond, -micro_eur(beyond, terms["rebound"]["penalty_nano_eur_per_wh"])))
    return result


def _paid(curve: Iterable[Mapping[str, int]], share: Fraction) -> Fraction:
    """‰ of the price for ‰ of the delivery."""
    corners = [(point["delivered_permille"], point["paid_permille"]) for point in curve]
    for (x0, y0), (x1, y1) in pairwise(corners):
        if x0 <= share <= x1:
            return y0 + (y1 - y0) * (share - x0) / (x1 - x0)
    raise AssertionError(f"{share} ‰ is not on the curve")


def _baseline(market: Market, order: Mapping[str, Any]) -> list[int]:
    """The D-prognosis that the order refers to; it must not contain the order itself."""
    for call in market.chain.calls("congestion.prognosis"):
        if call.actor == order["aggregator"] and call.args["revision"] == order["prognosis_revision"]:
            assert order["order_id"] not in call.args["orders"]
            return list(call.args["power_w"])
    raise AssertionError(f"no prognosis for {order['order_id']}")


def forecast_of(market: Market, meter: str) -> list[int]:
    """The prudent forecast: per ISP the lowest mean power of the complete working days before the auction's."""
    eve = market.days[market.date]["start"] - 86_400_000
    known = [day for day in market.days.values() if day["working"] and day["start"] < eve]
    return [
        min(floor(Fraction(market.true_j(meter, isp, day["date"]), day["isp_seconds"])) for day in known)
        for isp in market.isps
    ]


def best_selection(need: list[int], offers: Mapping[str, list[Mapping[str, Any]]], wanted: list[int]) -> Any:
    """(uncovered W·%, cost) of the best choice of one activation an offer, by trying all of them."""
    choices = []
    for options in offers.values():
        found: list[tuple[list[int], int]] = [([0] * len(wanted), 0)]
        for option in options:
            power = {item["isp"]: abs(item["power_w"]) for item in option["isps"]}
            whole = [power[isp] for isp in wanted]
            for percent in range(option["min_activation_percent"], 101):
                cost = option["price_nano_eur_per_wh"] * sum(whole) * percent
                found.append(([value * percent for value in whole], cost))
        choices.append(found)
    return min(
        (
            sum(
                max(asked * 100 - sum(column), 0) for asked, *column in zip(need, *(c[0] for c in chosen), strict=True)
            ),
            sum(c[1] for c in chosen),
        )
        for chosen in combinations(*choices)
    )


@dataclass(frozen=True)
class Trade:
    """A cleared local auction: joules, n€/Wh, fills by order id."""

    volume: int
    price: int | None
    fills: dict[str, int]


def double_auction(orders: Mapping[str, Mapping[str, Any]], cap_j: int) -> Trade:
    """The largest volume at one price: a step search over all prices instead of a merge of two queues.

    The demo's books have no two orders of one side at one price, so nobody shares the margin.
    """
    asks = sorted((o["price_nano_eur_per_wh"], name) for name, o in orders.items() if o["side"] == "sell")
    bids = sorted((-o["price_nano_eur_per_wh"], name) for name, o in orders.items() if o["side"] == "buy")
    for side in (asks, bids):
        assert len({price for price, _ in side}) == len(side)

    def total(side: str, price: int) -> int:
        return sum(
            o["energy_j"]
            for o in orders.values()
            if o["side"] == side
            and (o["price_nano_eur_per_wh"] <= price if side == "sell" else o["price_nano_eur_per_wh"] >= price)
        )

    prices = {o["price_nano_eur_per_wh"] for o in orders.values()}
    volume = min(cap_j, max((min(total("sell", p), total("buy", p)) for p in prices), default=0))
    if not volume:
        return Trade(0, None, {})
    fills: dict[str, int] = {}
    edges = []
    for queue, sign in ((asks, 1), (bids, -1)):
        left, last, following = volume, 0, None
        for price, name in queue:
            taken = min(left, orders[name]["energy_j"])
            if taken:
                fills[name], last = taken, sign * price
            if taken < orders[name]["energy_j"] and following is None:
                following = sign * price
            left -= taken
        edges.append((last, following))
    (ask, next_ask), (bid, next_bid) = edges
    low = ask if next_bid is None else max(ask, next_bid)
    high = bid if next_ask is None else min(bid, next_ask)
    return Trade(volume, (low + high) // 2, fills)


def need_of(forecast: list[int], limit_w: int, granule: int) -> list[int]:
    """W of withdrawal per ISP that bring the forecast within the limit, in whole granules."""
    return [ceil(Fraction(max(-power - limit_w, 0), granule)) * granule for power in forecast]
