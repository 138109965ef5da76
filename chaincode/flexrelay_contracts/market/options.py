"""Offers' options: one price and one minimum activation over all ISPs of the request, and who would deliver them."""

from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import Field

from flexrelay_contracts.market.request import RequestedIsp
from flexrelay_contracts.market.reservations import Slot
from flexrelay_contracts.market.terms import MAX_ISPS, ConnectionId, LocalId, SignedPowerW
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.rules import settlement
from flexrelay_schemas.intervals import CalendarDay, IspIndex
from flexrelay_schemas.model import Items, Model
from flexrelay_schemas.product import PriceNanoEurPerWh, Product

MAX_OPTIONS: Final = 20
MAX_CONNECTIONS: Final = 500


class OptionIsp(Model):
    """Ordered change of power in one ISP, positive = more withdrawal."""

    isp: IspIndex
    power_w: SignedPowerW


class OptionConnection(Model):
    """A connection's share of the option: `power_w` follows the option's ISP list."""

    connection: ConnectionId
    power_w: Annotated[Items[SignedPowerW], Field(min_length=1, max_length=MAX_ISPS)]


class Option(Model):
    """`isps` copies the request's list; the connections' shares add up to it exactly."""

    option_id: LocalId
    price_nano_eur_per_wh: PriceNanoEurPerWh
    min_activation_percent: Annotated[int, Field(ge=1, le=100)]
    isps: Annotated[Items[OptionIsp], Field(min_length=1, max_length=MAX_ISPS)]
    connections: Annotated[Items[OptionConnection], Field(min_length=1, max_length=MAX_CONNECTIONS)]


Options = Annotated[Items[Option], Field(max_length=MAX_OPTIONS)]


def check_options(product: Product, request: Sequence[RequestedIsp], options: Sequence[Option]) -> None:
    """Refused with the offending field: ids, ISP list, direction, limits, granularity, price, shares."""
    if not options:
        raise Refused("no_options", "an offer has at least one option", "options")
    ids = [option.option_id for option in options]
    for index, option in enumerate(options):
        where = f"options.{index}"
        if ids.index(option.option_id) != index:
            raise Refused("option_id", f"option {option.option_id} stands twice", f"{where}.option_id")
        low, high = product.min_price_nano_eur_per_wh, product.max_price_nano_eur_per_wh
        if not low <= option.price_nano_eur_per_wh <= high:
            message = f"price {option.price_nano_eur_per_wh} n€/Wh is outside {low}..{high}"
            raise Refused("price_limit", message, f"{where}.price_nano_eur_per_wh")
        if [item.isp for item in option.isps] != [item.isp for item in request]:
            raise Refused("isp_list", "an option copies the request's ISP list", f"{where}.isps")
        for place, (asked, given) in enumerate(zip(request, option.isps, strict=True)):
            _check_power(product, asked, given.power_w, f"{where}.isps.{place}.power_w")
        if not any(
            item.power_w for item, asked in zip(option.isps, request, strict=True) if asked.disposition == "requested"
        ):
            raise Refused("power", "an option gives something in a requested ISP", f"{where}.isps")
        _check_shares(option, where)


def _check_power(product: Product, asked: RequestedIsp, power: int, where: str) -> None:
    if power % product.granularity_w:
        raise Refused("granularity", f"{power} W is no multiple of {product.granularity_w} W", where)
    low, high = min(asked.min_w, 0), max(asked.max_w, 0)
    if not low <= power <= high:
        raise Refused("power_limit", f"ISP {asked.isp} takes {low}..{high} W, not {power} W", where)
    if asked.disposition == "available" or not power:
        return
    least = max(product.min_quantity_w, min(abs(asked.min_w), abs(asked.max_w)))
    if not least <= abs(power) <= product.max_quantity_w:
        raise Refused("quantity", f"{abs(power)} W is outside {least}..{product.max_quantity_w} W", where)


def _check_shares(option: Option, where: str) -> None:
    names = [share.connection for share in option.connections]
    totals = [0] * len(option.isps)
    for index, share in enumerate(option.connections):
        place = f"{where}.connections.{index}"
        if names.index(share.connection) != index:
            raise Refused("connection", f"connection {share.connection} stands twice", f"{place}.connection")
        if len(share.power_w) != len(totals):
            raise Refused("isp_list", "a share has one power per ISP of the option", f"{place}.power_w")
        totals = [total + power for total, power in zip(totals, share.power_w, strict=True)]
    for item, total in zip(option.isps, totals, strict=True):
        if item.power_w != total:
            message = f"ISP {item.isp}: the shares add up to {total} W, the option says {item.power_w} W"
            raise Refused("shares", message, f"{where}.connections")


def needs(option: Option, day: CalendarDay, percent: int = 100) -> dict[Slot, list[int]]:
    """Watts per (connection, direction) and ISP of the day that the option uses at `percent`, rounded up."""
    result: dict[Slot, list[int]] = {}
    for share in option.connections:
        for item, power in zip(option.isps, share.power_w, strict=True):
            if power:
                slot = (share.connection, "withdrawal" if power > 0 else "feed_in")
                watts = result.setdefault(slot, [0] * day.isps)
                watts[item.isp - 1] = -(-abs(power) * percent // 100)
    return result


def most(options: Sequence[Option], day: CalendarDay) -> dict[Slot, list[int]]:
    """What the options need at most: they are alternatives, one of them is taken."""
    result: dict[Slot, list[int]] = {}
    for option in options:
        for slot, watts in needs(option, day).items():
            held = result.get(slot, [0] * day.isps)
            result[slot] = [max(a, b) for a, b in zip(held, watts, strict=True)]
    return result


def powers(option: Option, percent: int) -> list[int]:
    """The option's power per ISP at `percent`, towards zero."""
    return [_scaled(item.power_w, percent) for item in option.isps]


def _scaled(power: int, percent: int) -> int:
    return power * percent // 100 if power >= 0 else -(-power * percent // 100)


def price_micro_eur(price: int, energies_j: Sequence[int]) -> int:
    """What the buyer pays at most for these ordered energies (>= 0), line by line."""
    return sum(_ceil(settlement.value(energy, max(price, 0))) for energy in energies_j)


def collateral_micro_eur(product: Product, price: int, energies_j: Sequence[int], available: int) -> int:
    """What an order without delivery would owe: the penalty on everything ordered, and on a rebound as large as that.

    (A response in the wrong direction may owe more; settlement takes that from the provider's account.)
    `energies_j` >= 0 are the requested ISPs' ordered energies, `available` is the number of the other ISPs.
    """
    deficiency = product.penalty_nano_eur_per_wh + max(-price, 0)
    owed = sum(_ceil(settlement.value(energy, deficiency)) for energy in energies_j)
    if product.rebound.rule == "penalised":
        owed += _ceil(settlement.value(sum(energies_j), product.rebound.penalty_nano_eur_per_wh)) + available
    return owed


def _ceil(line: settlement.Line) -> int:
    return line.net_micro_eur + (1 if line.remainder else 0)
