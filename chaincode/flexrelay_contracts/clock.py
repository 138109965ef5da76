"""The market clock: an integer map from wall time to market time, fixed by the network's genesis."""

from dataclasses import dataclass

from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.state import Record, key, need


@dataclass(frozen=True, slots=True)
class Now:
    """The transaction's time on both clocks, in UTC milliseconds."""

    wall_ms: int
    market_ms: int


def market_of(network: Record, wall_ms: int) -> int:
    """Market time (UTC ms) at the wall time, by the clock in a network record."""
    clock = network["clock"]
    elapsed: int = (wall_ms - clock["wall_ms"]) * clock["rate_num"] // clock["rate_den"]
    return int(clock["market_ms"]) + elapsed


def market_time(ctx: ContractContext) -> int:
    """The transaction's market time in UTC ms. Refused('no_network') before the genesis."""
    return market_of(network_record(ctx), ctx.tx_time)


def now(ctx: ContractContext) -> Now:
    """The transaction's time on both clocks."""
    return Now(ctx.tx_time, market_time(ctx))


def network_record(ctx: ContractContext) -> Record:
    """The network's genesis. Refused('no_network') when there is none."""
    return need(ctx, key("network"), "no_network", "the network has no genesis yet")
