"""The contract of the benchmarks: everything that the real one has, and three transactions of known size.

Their signed intents take the whole way: the runtime's checks of actor, gateway, signature and first use.
"""

from typing import Annotated

from pydantic import Field

from flexrelay_contracts.catalogue import QUERIES as QUERIES
from flexrelay_contracts.catalogue import TRANSACTIONS as _TRANSACTIONS
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Caller, Result, Transaction
from flexrelay_contracts.state import key, load_many, save
from flexrelay_schemas.model import Model

Count = Annotated[int, Field(ge=1, le=100_000)]


class Put(Model):
    name: str
    value: str


class Positions(Model):
    """The positions of one market interval: `count` keys."""

    interval: str
    count: Count


def _keys(args: Positions) -> list[str]:
    return [key("bench", "position", args.interval, f"{number:06d}") for number in range(args.count)]


def put(ctx: ContractContext, caller: Caller, args: Put) -> Result:
    save(ctx, key("bench", args.name), {"value": args.value})
    return {}


def open_positions(ctx: ContractContext, caller: Caller, args: Positions) -> Result:
    for number, name in enumerate(_keys(args)):
        save(ctx, name, {"energy_j": number, "cash_uct": number if number % 2 else -(number + 1), "status": "open"})
    return {}


def settle(ctx: ContractContext, caller: Caller, args: Positions) -> Result:
    """Read every position of the interval, check that cash adds up, write each as settled."""
    names = _keys(args)
    total = 0
    for name, record in zip(names, load_many(ctx, names), strict=True):
        if record is None or record["status"] != "open":
            raise Refused("position", f"{name} is not an open position")
        total += record["cash_uct"]
        save(ctx, name, {**record, "status": "settled"})
    if total:
        raise Refused("cash", f"the interval's cash is {total} and not 0")
    return {"settled": len(names)}


TRANSACTIONS = {
    **_TRANSACTIONS,
    "bench.put": Transaction("bench.put", Put, put),
    "bench.open": Transaction("bench.open", Positions, open_positions),
    "bench.settle": Transaction("bench.settle", Positions, settle),
}
