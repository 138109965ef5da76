"""Market products as data: a product document says everything that the contracts need to know about a market.

A document whose fields contradict each other is refused, and the error's location is the field that offends. Times are
offsets in market time; powers are watts, prices nano-euro per Wh, money micro-euro. See markets.md for the catalogue.
"""

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationInfo, field_validator

from flexrelay_schemas.canonical import MAX_INTEGER
from flexrelay_schemas.intervals import CalendarDay
from flexrelay_schemas.model import Items, Model

ProductId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
Version = Annotated[int, Field(ge=1, le=1_000_000)]
Role = Literal["tso", "dso", "brp", "bsp", "aggregator", "prosumer", "consumer", "community"]
Seconds = Annotated[int, Field(ge=0, le=400 * 86_400)]
PowerW = Annotated[int, Field(ge=0, le=10**10)]
"""At most 10 GW: with any market time unit its energy stays below 2^53 J."""
PriceNanoEurPerWh = Annotated[int, Field(ge=-(10**9), le=10**9)]
"""±10^9 n€/Wh is ±1,000,000 €/MWh."""
Permille = Annotated[int, Field(ge=0, le=1000)]
MicroEur = Annotated[int, Field(ge=0, le=MAX_INTEGER)]

DAY_S = 86_400


class Gate(Model):
    """An instant relative to delivery: `offset_s` after the start of the delivery date, or of the ISP.

    D-1 09:00 is -54000 s from the delivery_date; T-15 min is -900 s from the isp.
    """

    relative_to: Literal["delivery_date", "isp"]
    offset_s: Annotated[int, Field(ge=-400 * DAY_S, le=DAY_S)]

    def instant(self, day: CalendarDay, isp: int = 1) -> int:
        """UTC ms in market time for delivery in `isp` of `day`."""
        start = day.start if self.relative_to == "delivery_date" else day.bounds(isp)[0]
        return start + self.offset_s * 1000


class PayoutPoint(Model):
    """One corner of the payout curve: of the ordered energy `delivered_permille` gives `paid_permille` of its price."""

    delivered_permille: Permille
    paid_permille: Permille


class Rebound(Model):
    """What energy beyond the available room in the other intervals costs the provider."""

    rule: Literal["ignored", "penalised"]
    penalty_nano_eur_per_wh: Annotated[int, Field(ge=0, le=10**9)]

    @field_validator("penalty_nano_eur_per_wh")
    @classmethod
    def _penalty(cls, value: int, info: ValidationInfo) -> int:
        rule = info.data.get("rule")
        if rule == "ignored" and value:
            raise ValueError("a rebound that is ignored has no penalty")
        if rule == "penalised" and not value:
            raise ValueError("a rebound that is penalised needs a penalty")
        return value


class Product(Model):
    """A market product. The order of the fields is the order of the checks: a field is compared with earlier ones."""

    v: Literal[1] = 1
    product: ProductId
    version: Version
    title: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    currency: Literal["EUR"]
    need: Literal["power", "energy", "voltage", "transfer_capacity", "balancing"]
    level: Literal["household", "community", "dso", "tso"]
    buyer_role: Role
    provider_roles: Items[Role]
    mtu_s: Annotated[int, Field(ge=4, le=DAY_S)]
    full_activation_time_s: Seconds
    gate_opening: Gate
    gate_closure: Gate
    granularity_w: Annotated[int, Field(ge=1, le=10**9)]
    min_quantity_w: PowerW
    max_quantity_w: PowerW
    min_price_nano_eur_per_wh: PriceNanoEurPerWh
    max_price_nano_eur_per_wh: PriceNanoEurPerWh
    clearing: Literal["uniform_double_auction", "pay_as_bid"]
    pricing: Literal["uniform", "pay_as_bid"]
    volume_cap: Literal["none", "headroom"]
    """headroom: the cleared volume stays within what the congestion point has left."""
    sealed: bool
    """Offers are private data until the gate has closed; only their hashes are public."""
    baseline: Literal["prognosis", "none"]
    balance_responsibility: Literal["provider", "buyer"]
    tolerance_permille: Permille
    """A deficiency up to this share of the ordered energy carries no penalty."""
    payout_curve: Items[PayoutPoint]
    penalty_nano_eur_per_wh: Annotated[int, Field(ge=0, le=10**9)]
    rebound: Rebound
    verification: Literal["meter_signed", "gateway_attested"]
    """The lowest rank of evidence that counts in a dispute."""
    settlement_runs: Items[Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,32}$")]]
    settlement_after_s: Seconds
    """Market time from the end of delivery in which holders anchor their readings; nothing is settled before."""
    dispute_window_s: Seconds
    """Market time from the proposal of a settlement to its finality without acceptance; also the evidence's time."""
    bond_micro_eur: MicroEur
    fallback: Literal["proposed", "no_delivery"]
    """What an unresolved dispute leaves: the proposed value, or no delivery in the disputed interval."""

    @field_validator("provider_roles")
    @classmethod
    def _providers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("at least one role, each once")
        return value

    @field_validator("mtu_s")
    @classmethod
    def _mtu(cls, value: int) -> int:
        if DAY_S % value:
            raise ValueError(f"market time units of {value} s do not fill a day")
        return value

    @field_validator("gate_closure")
    @classmethod
    def _gate(cls, value: Gate, info: ValidationInfo) -> Gate:
        opening, activation = info.data.get("gate_opening"), info.data.get("full_activation_time_s")
        if opening is not None:
            if opening.relative_to != value.relative_to:
                raise ValueError("gate opening and closure are relative to different instants")
            if opening.offset_s >= value.offset_s:
                raise ValueError("the gate closes before it opens")
        if activation is not None and value.offset_s > -activation:
            raise ValueError(f"the gate closes later than the full activation time of {activation} s before delivery")
        return value

    @field_validator("min_quantity_w")
    @classmethod
    def _min_quantity(cls, value: int, info: ValidationInfo) -> int:
        return _multiple(value, info.data)

    @field_validator("max_quantity_w")
    @classmethod
    def _max_quantity(cls, value: int, info: ValidationInfo) -> int:
        least = info.data.get("min_quantity_w")
        if value == 0 or (least is not None and value < least):
            raise ValueError(f"the largest quantity {value} W is below the smallest, {least} W")
        return _multiple(value, info.data)

    @field_validator("max_price_nano_eur_per_wh")
    @classmethod
    def _price(cls, value: int, info: ValidationInfo) -> int:
        least = info.data.get("min_price_nano_eur_per_wh")
        if least is not None and value < least:
            raise ValueError(f"the highest price {value} is below the lowest, {least}")
        return value

    @field_validator("clearing")
    @classmethod
    def _clearing(cls, value: str, info: ValidationInfo) -> str:
        if value == "pay_as_bid" and info.data.get("min_price_nano_eur_per_wh", 0) < 0:
            raise ValueError("the merit order of options takes no negative prices, the lowest price is negative")
        return value

    @field_validator("pricing")
    @classmethod
    def _pricing(cls, value: str, info: ValidationInfo) -> str:
        wanted = {"uniform_double_auction": "uniform", "pay_as_bid": "pay_as_bid"}.get(info.data.get("clearing", ""))
        if wanted is not None and value != wanted:
            raise ValueError(f"clearing {info.data['clearing']} is priced {wanted}, not {value}")
        return value

    @field_validator("baseline")
    @classmethod
    def _baseline(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("clearing") == "pay_as_bid" and value == "none":
            raise ValueError("an order for flexibility is measured against a baseline; none is named")
        return value

    @field_validator("payout_curve")
    @classmethod
    def _curve(cls, value: tuple[PayoutPoint, ...]) -> tuple[PayoutPoint, ...]:
        if len(value) < 2 or value[0].delivered_permille != 0 or value[-1].delivered_permille != 1000:
            raise ValueError("the payout curve reaches from 0 to 1000 permille delivered")
        for before, after in pairwise(value):
            if after.delivered_permille <= before.delivered_permille or after.paid_permille < before.paid_permille:
                raise ValueError(f"the payout curve does not rise at {after.delivered_permille} permille delivered")
        return value

    @field_validator("penalty_nano_eur_per_wh")
    @classmethod
    def _penalty(cls, value: int, info: ValidationInfo) -> int:
        if value and info.data.get("baseline") == "none":
            raise ValueError("a penalty on deficiency needs a baseline to measure it against")
        _check_value(value, info.data)
        return value

    @field_validator("rebound")
    @classmethod
    def _rebound(cls, value: Rebound, info: ValidationInfo) -> Rebound:
        _check_value(value.penalty_nano_eur_per_wh, info.data)
        return value

    @field_validator("settlement_runs")
    @classmethod
    def _runs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("at least one settlement run, each once")
        return value

    @field_validator("bond_micro_eur")
    @classmethod
    def _bond(cls, value: int, info: ValidationInfo) -> int:
        window = info.data.get("dispute_window_s")
        if window is not None and (window == 0) != (value == 0):
            raise ValueError("a dispute window and a bond go together: both or neither")
        return value

    def opens_at(self, day: CalendarDay, isp: int = 1) -> int:
        """UTC ms in market time from which offers are taken."""
        return self.gate_opening.instant(day, isp)

    def closes_at(self, day: CalendarDay, isp: int = 1) -> int:
        """UTC ms in market time from which offers are refused."""
        return self.gate_closure.instant(day, isp)


def _check_value(penalty: int, data: dict[str, Any]) -> None:
    """The largest order is worth less than 10^13 µ€ an interval, so that sums of orders stay below 2^53 µ€."""
    prices = [abs(data.get(f"{end}_price_nano_eur_per_wh", 0)) for end in ("min", "max")]
    energy = data.get("max_quantity_w", 0) * data.get("mtu_s", 0)
    if energy * max(penalty, *prices) // 3_600_000 > 10**13:
        raise ValueError("an order of the largest quantity at this penalty or the highest price is beyond 10^13 µ€")


def _multiple(value: int, data: dict[str, Any]) -> int:
    step = data.get("granularity_w")
    if step and value % step:
        raise ValueError(f"{value} W is not a multiple of the granularity, {step} W")
    return value
