"""Documents of the congestion market: a DSO's request from its need, an aggregator's offer from its fleet.

Pure functions from plans to the arguments of `congestion.request`, `congestion.offer`, `congestion.open_offer` and
`congestion.prognosis`.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from flexrelay.market.fleet import Fleet, spread
from flexrelay_contracts.market.offer import Contents, encoded
from flexrelay_contracts.market.options import Option, OptionConnection, OptionIsp
from flexrelay_contracts.market.request import RequestedIsp
from flexrelay_schemas.product import Product


@dataclass(frozen=True, slots=True)
class Ask:
    """How an aggregator offers: at most `permille` of the need, at a price, from a smallest activation on."""

    option_id: str
    permille: int
    price_nano_eur_per_wh: int
    min_activation_percent: int


def requested_isps(need_w: Sequence[int], room_w: Mapping[int, int]) -> tuple[RequestedIsp, ...]:
    """The ISP list of a request for more withdrawal: `need_w` per ISP of the day, and feed-in room for the rebound
    (positive watts by ISP) where nothing is needed."""
    isps = []
    for isp, need in enumerate(need_w, 1):
        if need > 0:
            isps.append(RequestedIsp(isp=isp, disposition="requested", min_w=0, max_w=need))
        elif room_w.get(isp, 0) > 0:
            isps.append(RequestedIsp(isp=isp, disposition="available", min_w=-room_w[isp], max_w=0))
    return tuple(isps)


def option(ask: Ask, fleet: Fleet, request: Sequence[RequestedIsp], product: Product, isp_seconds: int) -> Option:
    """The fleet's option for a request: charging in proportion to the need, discharging evenly in the rebound room.

    Rebound is limited to what was charged and to the room; what does not fit stays in the batteries.
    """
    granule = product.granularity_w
    wanted = [item.max_w if item.disposition == "requested" else 0 for item in request]
    charge = fleet.share_of(wanted, ask.permille, isp_seconds, granule)
    charge = tuple(power if power >= product.min_quantity_w else 0 for power in charge)
    available = [index for index, item in enumerate(request) if item.disposition == "available"]
    back = spread(sum(charge) * isp_seconds, available, isp_seconds)
    powers = [
        -_granules(min(back[index], -request[index].min_w, fleet.rated_w), granule) if index in back else power
        for index, power in enumerate(charge)
    ]
    shares = [fleet.split(power) for power in powers]
    return Option(
        option_id=ask.option_id,
        price_nano_eur_per_wh=ask.price_nano_eur_per_wh,
        min_activation_percent=ask.min_activation_percent,
        isps=tuple(OptionIsp(isp=item.isp, power_w=power) for item, power in zip(request, powers, strict=True)),
        connections=tuple(
            OptionConnection(connection=unit.connection, power_w=tuple(share[place] for share in shares))
            for place, unit in enumerate(fleet.units)
        ),
    )


def _granules(power: int, granule: int) -> int:
    return power // granule * granule


def sealed_offer(options: Sequence[Option]) -> tuple[str, bytes]:
    """(contents hash, transient input `offer`) of a sealed offer; the salt is fresh.

    Nobody needs to keep it: `congestion.offer_contents` gives salt and options to the parties, see `opening`.
    """
    contents = Contents(salt=secrets.token_hex(32), options=tuple(options))
    data = encoded(contents)
    return sha256(data).hexdigest(), data


def opening(auction: str, offer_id: str, contents: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `congestion.open_offer` from what `congestion.offer_contents` gives."""
    return {"auction": auction, "offer_id": offer_id, "salt": contents["salt"], "options": contents["options"]}


def updated_prognosis(baseline_w: Sequence[int], order: Mapping[str, Any]) -> tuple[int, ...]:
    """The D-prognosis revision that contains an order: the referenced baseline plus the ordered power."""
    powers = list(baseline_w)
    for item in order["isps"]:
        powers[item["isp"] - 1] += item["power_w"]
    return tuple(powers)
