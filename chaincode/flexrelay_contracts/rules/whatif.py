"""The documents of `flexrelay market clear` and `flexrelay market settle`: exactly the contracts' rules, for anyone.

Each function takes a parsed JSON object and returns one; what is wrong with it is a DocumentError that names the field.
"""

from collections.abc import Mapping
from typing import Any

from flexrelay_contracts.rules import merit_order, settlement, uniform_auction
from flexrelay_contracts.rules.orders import Fill, Order
from flexrelay_schemas.canonical import MAX_INTEGER
from flexrelay_schemas.quantities import JOULES_PER_WH

_SETTLE = ("ordered_wh", "baseline_wh", "actual_wh", "price_nano_eur_per_wh", "penalty_nano_eur_per_wh")
_MAX_TEXT = 200


class DocumentError(ValueError):
    """The document is wrong; `field` is the dotted path of the offending field (empty: the document as a whole)."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.message = message


def clear(document: Mapping[str, Any]) -> dict[str, Any]:
    """{"rule", "auction_id" (""), "asks", "bids" | "need"} → {"volume", "price", "price_range", "fills"}.

    Rules: uniform_double_auction (asks and bids) and pay_as_bid (divisible asks and the buyer's need). Quantities and
    prices are integers in any one unit; a quantity is not negative. Ids are unique across both sides. No trade, and
    always in pay_as_bid: price and price_range are null. Raises DocumentError.
    """
    _object(document, "")
    _known(document, "", ("rule", "auction_id", "asks", "bids", "need"))
    rule = _required(document, "rule", "")
    auction_id = _text(document.get("auction_id", ""), "auction_id")
    if rule == "uniform_double_auction":
        if "need" in document:
            raise DocumentError("need", "belongs to pay_as_bid, not to uniform_double_auction")
        asks, bids = (_orders(_required(document, side, ""), side) for side in ("asks", "bids"))
        _unique([("asks", asks), ("bids", bids)])
        result = uniform_auction.clear(auction_id, asks, bids)
        fills = sorted(result.sold + result.bought)
        price_range = None if result.price_range is None else list(result.price_range)
        return _cleared(result.volume, result.price, price_range, fills)
    if rule == "pay_as_bid":
        if document.get("bids"):
            raise DocumentError("bids", "pay_as_bid has one buyer, who names a need instead")
        need = _integer(_required(document, "need", ""), "need", least=0)
        asks = _orders(_required(document, "asks", ""), "asks")
        _unique([("asks", asks)])
        bought = merit_order.clear(auction_id, need, asks)
        return _cleared(bought.volume, None, None, list(bought.fills))
    raise DocumentError("rule", f"{_shown(rule)} is not a rule; known are uniform_double_auction, pay_as_bid")


def settle(document: Mapping[str, Any]) -> dict[str, Any]:
    """{ordered_wh, baseline_wh, actual_wh, price_nano_eur_per_wh, penalty_nano_eur_per_wh} → {"delivered_wh",
    "deficiency_wh", "net_micro_eur"}; positive energy = withdrawal, positive money = to the provider, floored once.

    The penalty is not negative. Raises DocumentError.
    """
    _object(document, "")
    _known(document, "", _SETTLE)
    values = {name: _integer(_required(document, name, ""), name) for name in _SETTLE}
    if values["penalty_nano_eur_per_wh"] < 0:
        raise DocumentError("penalty_nano_eur_per_wh", "is negative")
    ordered, baseline, actual = (values[name] * JOULES_PER_WH for name in _SETTLE[:3])
    line = settlement.settle(
        ordered, baseline, actual, values["price_nano_eur_per_wh"], values["penalty_nano_eur_per_wh"]
    )
    return {
        "delivered_wh": line.delivered_j // JOULES_PER_WH,
        "deficiency_wh": line.deficiency_j // JOULES_PER_WH,
        "net_micro_eur": line.net_micro_eur,
    }


def _cleared(volume: int, price: int | None, price_range: list[int] | None, fills: list[Fill]) -> dict[str, Any]:
    return {
        "volume": volume,
        "price": price,
        "price_range": price_range,
        "fills": [{"id": fill.id, "quantity": fill.quantity, "price": fill.price} for fill in fills],
    }


def _orders(value: Any, side: str) -> list[Order]:
    if not isinstance(value, list | tuple):
        raise DocumentError(side, f"is a list of orders, not {_shown(value)}")
    orders = []
    for index, item in enumerate(value):
        where = f"{side}.{index}"
        _object(item, where)
        _known(item, where, ("id", "quantity", "price"))
        identifier = _text(_required(item, "id", where), f"{where}.id")
        if not identifier:
            raise DocumentError(f"{where}.id", "is empty")
        quantity = _integer(_required(item, "quantity", where), f"{where}.quantity", least=0)
        price = _integer(_required(item, "price", where), f"{where}.price")
        orders.append(Order(identifier, quantity, price))
    return orders


def _unique(sides: list[tuple[str, list[Order]]]) -> None:
    seen: set[str] = set()
    for side, orders in sides:
        for index, order in enumerate(orders):
            if order.id in seen:
                raise DocumentError(f"{side}.{index}.id", f"{_shown(order.id)} stands twice")
            seen.add(order.id)


def _object(value: Any, where: str) -> None:
    if not isinstance(value, Mapping):
        raise DocumentError(where, f"is an object, not {_shown(value)}" if where else "the document is not an object")


def _known(value: Mapping[str, Any], where: str, names: tuple[str, ...]) -> None:
    for name in value:
        if name not in names:
            raise DocumentError(_path(where, str(name)), f"is not known; known are {', '.join(names)}")


def _required(value: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in value:
        raise DocumentError(_path(where, name), "is missing")
    return value[name]


def _integer(value: Any, where: str, *, least: int = -MAX_INTEGER) -> int:
    if type(value) is not int:
        raise DocumentError(where, f"is an integer, not {_shown(value)}")
    if value < least:
        raise DocumentError(where, f"{value} is below {least}" if least else f"{value} is negative")
    if value > MAX_INTEGER:
        raise DocumentError(where, "is beyond 2^53 - 1")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise DocumentError(where, f"is text, not {_shown(value)}")
    if len(value) > _MAX_TEXT:
        raise DocumentError(where, f"is longer than {_MAX_TEXT} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DocumentError(where, "holds a lone surrogate") from None
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _path(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
