"""The day before: forecast, request, D-prognoses, sealed offers, gate, clearing, orders, nominations, local auction."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flexrelay.demo.barrier import PATIENCE_S, StoryStuck, journals_hold, market_reaches, still_before
from flexrelay.demo.cast import CONGESTION, DSO, LOCAL, POINT, SELLERS, A, B, Cast, Progress
from flexrelay.demo.grid import DATES
from flexrelay.market.congestion import Ask, option, requested_isps, sealed_offer, updated_prognosis
from flexrelay.market.forecast import feed_in_room, greatest_feed_in, withdrawal_need
from flexrelay.market.metering import metered, metered_all
from flexrelay_contracts.market.options import Option
from flexrelay_contracts.market.request import RequestedIsp
from flexrelay_contracts.refusal import Refused
from flexrelay_schemas.products import load

DELIVERY, EVE = DATES[-1], DATES[-2]
HOUR_MS = 3_600_000
ASKS: Mapping[str, tuple[Ask, ...]] = {
    A: (Ask("a-some", 450, 95_000, 40), Ask("a-more", 700, 118_000, 50)),
    B: (Ask("b-some", 300, 104_000, 30), Ask("b-more", 480, 131_000, 60)),
}
"""Alternatives of each aggregator: shares of the need, n€/Wh, smallest activation."""
REBOUND_ISPS = range(73, 93)
"""18:00 to 23:00: where the DSO has room for what the batteries give back."""
LOCAL_ISPS = range(65, 69)
"""16:00 to 17:00: the local auction's hour."""
LOCAL_ASKS = {"bus01": (3_000, 62_000), "bus05": (3_000, 66_000), "bus11": (2_000, 71_000)}
"""Sellers: Wh per ISP and n€/Wh."""
LOCAL_BIDS = {A: ("s1", 5_000, 84_000), B: ("s5", 5_000, 64_000)}
"""Buyers with the capacity that is left (s1 has room for 21 kWh after its order): battery, Wh per ISP and n€/Wh."""


@dataclass
class DayAhead:
    """What the day before has brought. Powers in W per ISP of the delivery day."""

    forecast_w: tuple[int, ...]
    limit_w: int
    need_w: tuple[int, ...]
    auction: str = ""
    options: dict[str, tuple[Option, ...]] = field(default_factory=dict)
    orders: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """By aggregator's organisation."""
    local_auctions: list[str] = field(default_factory=list)


async def tell(cast: Cast, limit_w: int, progress: Progress) -> DayAhead:
    """Everything before the delivery day; ends with the gates' results on the ledger."""
    eve, delivery = cast.days[EVE], cast.days[DELIVERY]
    gate = load(CONGESTION).closes_at(delivery)
    await market_reaches(cast, eve.start + 2 * HOUR_MS)
    await journals_hold(cast, eve.start, before=gate - 2 * HOUR_MS)
    await still_before(cast, gate - 2 * HOUR_MS, "the readings of the past days")
    progress("the DSO's forecast")
    told = await _forecast(cast, limit_w)
    progress(f"request: up to {max(told.need_w) / 1000:.0f} kW more withdrawal")
    request = requested_isps(told.need_w, _room(told))
    told.auction = await _request(cast, request)
    progress("D-prognoses and sealed offers")
    try:
        await asyncio.gather(*(_offer(cast, told, org, request) for org in (A, B)))
    except Refused:
        await still_before(cast, gate, "the offers")
        raise
    progress("waiting for the gate closure, D-1 09:00")
    await market_reaches(cast, gate)
    await _clear(cast, told)
    progress(f"{len(told.orders)} orders, updated D-prognoses, nominations")
    await asyncio.gather(*(_updated(cast, told, org) for org in told.orders))
    await _nominate_supply(cast)
    await market_reaches(cast, delivery.bounds(LOCAL_ISPS[-1])[0] - 24 * HOUR_MS + 1000)
    progress("local energy auctions open under the headroom")
    await _local_orders(cast, told)
    return told


async def _forecast(cast: Cast, limit_w: int) -> DayAhead:
    """From the complete working days that the transformer's meter has shown: the greatest feed-in of each interval."""
    twin = cast.site.gateways[DSO].twin
    history = [day for date, day in sorted(cast.days.items()) if date < EVE and day.working]
    measured = [await metered(twin, cast.meters[POINT], day, range(1, day.isps + 1)) for day in history]
    powers = [
        [energy // day.isp_seconds for energy in found.energy_j] for day, found in zip(history, measured, strict=True)
    ]
    forecast = greatest_feed_in(powers)
    return DayAhead(forecast, limit_w, withdrawal_need(forecast, limit_w, load(CONGESTION).granularity_w))


def _room(told: DayAhead) -> dict[int, int]:
    room = feed_in_room(told.forecast_w, told.limit_w)
    granularity = load(CONGESTION).granularity_w
    return {isp: room[isp - 1] // granularity * granularity for isp in REBOUND_ISPS}


async def _request(cast: Cast, request: tuple[RequestedIsp, ...]) -> str:
    done = await cast.desk(DSO, "dso").do(
        "congestion.request",
        {
            "product": CONGESTION,
            "congestion_point": POINT,
            "date": DELIVERY,
            "direction": "withdrawal",
            "isps": [item.model_dump() for item in request],
        },
    )
    return str(done.result["auction"])


async def _offer(cast: Cast, told: DayAhead, org: str, request: tuple[RequestedIsp, ...]) -> None:
    """The batteries idle unless they are ordered: that is the baseline that A and B nominate."""
    desk, product, day = cast.desk(org, "aggregator"), load(CONGESTION), cast.days[DELIVERY]
    fleet = cast.fleet(org)
    told.options[org] = tuple(option(ask, fleet, request, product, day.isp_seconds) for ask in ASKS[org])
    await desk.do("congestion.prognosis", _prognosis(1, [0] * day.isps, []))
    contents_hash, contents = sealed_offer(told.options[org])
    await desk.do(
        "congestion.offer",
        {
            "auction": told.auction,
            "offer_id": _offer_id(org),
            "prognosis_revision": 1,
            "options": [],
            "contents_hash": contents_hash,
        },
        transient={"offer": contents},
        gate=cast.site.clock.wall(product.closes_at(day)),
    )


def _offer_id(org: str) -> str:
    return f"offer-{org}"


def _prognosis(revision: int, power_w: list[int], orders: list[str]) -> dict[str, Any]:
    return {
        "product": CONGESTION,
        "congestion_point": POINT,
        "date": DELIVERY,
        "revision": revision,
        "power_w": power_w,
        "orders": orders,
    }


async def _clear(cast: Cast, told: DayAhead) -> None:
    dso = cast.desk(DSO, "dso")
    await dso.do("congestion.close_gate", {"auction": told.auction})
    await _opened(cast, told)
    done = await dso.do("congestion.clear", {"auction": told.auction})
    org_of = {cast.desk(org, "aggregator").did: org for org in (A, B)}
    for order_id in done.result["orders"]:
        order = await cast.site.gateways[DSO].ledger.evaluate("congestion.order", {"order_id": order_id})
        told.orders[org_of[order["aggregator"]]] = order


async def _opened(cast: Cast, told: DayAhead) -> None:
    """Wait until the aggregators' gateways have opened their offers, which they do by themselves."""
    views = cast.site.gateways[DSO].views
    deadline = time.monotonic() + PATIENCE_S
    while len(await views.events("congestion.opened")) < len(told.options):
        if time.monotonic() > deadline:
            raise StoryStuck(f"the offers of {told.auction} are not opened")
        await asyncio.sleep(0.05)


async def _updated(cast: Cast, told: DayAhead, org: str) -> None:
    """The D-prognosis that contains the order; the provider's BRP renominates with it."""
    day, order = cast.days[DELIVERY], told.orders[org]
    powers = list(updated_prognosis([0] * day.isps, order))
    await cast.desk(org, "aggregator").do("congestion.prognosis", _prognosis(2, powers, [order["order_id"]]))
    position = [power * day.isp_seconds for power in powers]
    await cast.desk(org, "brp").do("imbalance.nominate", {"date": DELIVERY, "energy_j": position})


async def _nominate_supply(cast: Cast) -> None:
    """The supplier's BRP plans the mean of the working days that it knows, for all connections without a battery."""
    twin, day = cast.site.gateways[DSO].twin, cast.days[DELIVERY]
    supply = cast.desk(DSO, "brp-supply")
    meters = {name: cast.meters[name] for name, brp in cast.brps.items() if brp == supply.did}
    history = [known for date, known in sorted(cast.days.items()) if date < EVE and known.working]
    totals = [0] * day.isps
    for known in history:
        for found in (await metered_all(twin, meters, known, range(1, known.isps + 1))).values():
            totals = [total + energy for total, energy in zip(totals, found.energy_j, strict=True)]
    position = [total // len(history) for total in totals]
    await supply.do("imbalance.nominate", {"date": DELIVERY, "energy_j": position})


async def _local_orders(cast: Cast, told: DayAhead) -> None:
    """One auction an ISP, capped by what the congestion point has left after forecast and orders."""
    room = feed_in_room(told.forecast_w, told.limit_w)
    dso = cast.desk(DSO, "dso")
    for isp in LOCAL_ISPS:
        args = {"product": LOCAL, "congestion_point": POINT, "date": DELIVERY, "isp_from": isp, "isp_to": isp}
        done = await dso.do(
            "local_energy.open", {**args, "headroom_w": room[isp - 1], "grid_fee_nano_eur_per_wh": 5_000}
        )
        told.local_auctions.append(done.result["auction"])
    orders = []
    for auction in told.local_auctions:
        for name in SELLERS:
            energy, price = LOCAL_ASKS[name]
            desk = cast.desk(DSO, f"customer-{name}")
            orders.append(desk.do("local_energy.order", _local(auction, f"sell-{name}", "sell", name, energy, price)))
        for org, (name, energy, price) in LOCAL_BIDS.items():
            desk = cast.desk(org, "aggregator")
            orders.append(desk.do("local_energy.order", _local(auction, f"buy-{org}", "buy", name, energy, price)))
    await asyncio.gather(*orders)


def _local(auction: str, order_id: str, side: str, connection: str, energy_wh: int, price: int) -> dict[str, Any]:
    return {
        "auction": auction,
        "order_id": order_id,
        "side": side,
        "connection": connection,
        "energy_j": energy_wh * 3600,
        "price_nano_eur_per_wh": price,
    }
