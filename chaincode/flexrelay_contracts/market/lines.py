"""The lines of a settlement, computed from the order, the baseline and the metered energy: pure, and the same for all.

A requested ISP pays for delivery and charges for deficiency; an available ISP charges for a rebound beyond its room,
together at most as much energy as was ordered. Each line is exact and floored once; the buyer's total is the floor of
the exact sum, so that what is left for the rounding account is between zero and the number of lines less one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Any

from flexrelay_contracts.rules import settlement
from flexrelay_contracts.state import Record
from flexrelay_schemas.product import Product


@dataclass(frozen=True, slots=True)
class Metered:
    """What was metered in one ISP of the order. `no_delivery`: an unresolved dispute took the delivery away."""

    isp: int
    actual_j: int
    quality: int
    windows_hash: str
    no_delivery: bool = False


@dataclass(frozen=True, slots=True)
class Totals:
    """buyer_micro_eur = provider_micro_eur + rounding_micro_eur; positive = from the buyer to the provider."""

    buyer_micro_eur: int
    provider_micro_eur: int

    @property
    def rounding_micro_eur(self) -> int:
        return self.buyer_micro_eur - self.provider_micro_eur


def settle_order(
    product: Product, order: Record, baseline_w: Sequence[int], isp_seconds: int, metered: Sequence[Metered]
) -> tuple[list[dict[str, Any]], Totals]:
    """(lines, totals). `baseline_w` is the whole day's D-prognosis, `metered` follows the order's ISP list."""
    sign = 1 if order["direction"] == "withdrawal" else -1
    left_j = sum(abs(i["power_w"]) for i in order["isps"] if i["disposition"] == "requested") * isp_seconds
    rebound_price = product.rebound.penalty_nano_eur_per_wh
    curve = [(point.delivered_permille, point.paid_permille) for point in product.payout_curve]
    lines: list[dict[str, Any]] = []
    fraction = Fraction(0)
    for item, value in zip(order["isps"], metered, strict=True):
        baseline_j = baseline_w[item["isp"] - 1] * isp_seconds
        ordered_j = item["power_w"] * isp_seconds
        actual_j = baseline_j if value.no_delivery else value.actual_j
        if item["disposition"] == "requested":
            line = settlement.settle(
                ordered_j, baseline_j, actual_j, order["price_nano_eur_per_wh"], order["penalty_nano_eur_per_wh"],
                curve=curve, tolerance_permille=product.tolerance_permille,
            )  # fmt: skip
        else:
            room_j = item["room_w"] * isp_seconds
            line = settlement.rebound(-sign, room_j, baseline_j, actual_j, rebound_price)
            charged_j = min(line.deficiency_j, left_j)
            left_j -= charged_j
            if charged_j < line.deficiency_j:
                line = settlement.rebound(-sign, 0, 0, -sign * charged_j, rebound_price)
        fraction += Fraction(line.remainder, line.denominator)
        lines.append(
            {
                "isp": item["isp"],
                "disposition": item["disposition"],
                "ordered_j": ordered_j,
                "baseline_j": baseline_j,
                "actual_j": value.actual_j,
                "quality": value.quality,
                "windows_hash": value.windows_hash,
                "no_delivery": value.no_delivery,
                "delivered_j": line.delivered_j,
                "deficiency_j": line.deficiency_j,
                "net_micro_eur": line.net_micro_eur,
            }
        )
    provider = sum(line["net_micro_eur"] for line in lines)
    return lines, Totals(provider + floor(fraction), provider)


def metered_of(lines: Sequence[Record]) -> list[Metered]:
    """The metered input of stored lines."""
    return [
        Metered(line["isp"], line["actual_j"], line["quality"], line["windows_hash"], line["no_delivery"])
        for line in lines
    ]
