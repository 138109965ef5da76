"""What a running gateway's adapters are asked to do for devices: read what was kept of them, set their clocks.

Needs `Level.SERVING`: the adapters must be connected.
"""

import asyncio
import time
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

from flexrelay.app import Gateway, Site
from flexrelay.commissioning.actors import gateway_of
from flexrelay.commissioning.devices import find_device
from flexrelay.commissioning.errors import CommissioningError
from flexrelay.devices import DeviceRecord, Filled, HistoryRefused, Stretch, credentials_at, fill
from flexrelay_sdk import Adapter, Backfiller, TimeSetter

_LOOK_S: Final = 0.2
_CLOCK_S: Final = 30.0
"""What setting a clock once may take."""


class Asked(NamedTuple):
    """Of whom: one device (name or DID), or all of one adapter; `org` where more than one gateway has it."""

    device: str = ""
    adapter: str = ""
    org: str = ""


@dataclass(frozen=True, slots=True)
class Backfilled:
    """What one adapter's history has brought, of [from_ms, until_ms) of market time."""

    org: str
    adapter: str
    from_ms: int
    until_ms: int
    filled: Filled

    def to_json(self) -> dict[str, Any]:
        named = {"org": self.org, "adapter": self.adapter, "from_ms": self.from_ms, "until_ms": self.until_ms}
        return {**named, **self.filled.to_json()}


@dataclass(frozen=True, slots=True)
class ClockTold:
    """`offset_ms`: device − gateway before anything was set, None when the device does not tell its time."""

    org: str
    adapter: str
    credential: str
    offset_ms: int | None
    set: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


async def back_fill(site: Site, asked: Asked, from_ms: int, until_ms: int | None, wait_s: float) -> list[Backfilled]:
    """Read the history of [from_ms, until_ms) (market time; until now without an end) through the ingest path.

    Waits `wait_s` for each adapter's connection. Raises CommissioningError, ConnectionError, SinkUnavailable; what came
    before stays.
    """
    done = []
    for gateway, name, adapter, history, credentials in _histories(site, asked):
        now = gateway.market_now()
        until = now if until_ms is None else until_ms
        if not 0 <= from_ms < until:
            raise CommissioningError(f"nothing lies from {from_ms} until {until} (market time, UTC ms)")
        if from_ms < now - gateway.ingest.limits.stale_ms:
            days = gateway.ingest.limits.stale_ms // 86_400_000
            raise CommissioningError(
                f"readings of more than {days} days ago are refused as stale: begin later, or set "
                "ingest.stale_after_days of the gateway's configuration"
            )
        await _connected(name, adapter, wait_s)
        try:
            filled = await fill(history, gateway.ingest, gateway.journal, Stretch(from_ms, until, credentials))
        except HistoryRefused as why:
            raise CommissioningError(str(why)) from None
        done.append(Backfilled(gateway.org, name, from_ms, until, filled))
    return done


async def set_clock(site: Site, device: str, org: str, wait_s: float) -> ClockTold:
    """Set the device's clock to UTC and tell what it was. A device that sleeps or has not come yet is waited for.

    Raises CommissioningError, and ConnectionError when it was not reached within `wait_s`.
    """
    gateway, record = find_device(site, device, org)
    ways = [
        (name, adapter, credential)
        for name, adapter in sorted(gateway.adapters.items())
        if isinstance(adapter, TimeSetter)
        for credential in credentials_at(adapter, record)
    ]
    if not ways:
        raise CommissioningError(_no_way(gateway, record, "sets clocks"))
    until = time.monotonic() + wait_s
    while True:
        for name, adapter, credential in ways:
            try:
                async with asyncio.timeout(_CLOCK_S):
                    state = await adapter.sync_time(credential)
                return ClockTold(gateway.org, name, credential, state.offset_ms, state.set)
            except (ConnectionError, TimeoutError, ValueError) as error:
                why = f"{name}: {error or 'no answer'}"
        if time.monotonic() >= until:
            raise ConnectionError(f"{record.name} was not reached within {wait_s:g} s; {why}")
        await asyncio.sleep(_LOOK_S)


_Way = tuple[Gateway, str, Adapter, Backfiller, tuple[str, ...]]
"""Gateway, the adapter's name, itself twice (mypy knows no intersections), the credentials that are meant."""


def _histories(site: Site, asked: Asked) -> list[_Way]:
    """Raises CommissioningError when there is none."""
    if not (asked.device or asked.adapter):
        raise CommissioningError("name a device, or an adapter with --adapter")
    if asked.device:
        gateway, record = find_device(site, asked.device, asked.org)
        found = [
            (*way, credentials)
            for way in _backfillers(gateway, asked.adapter)
            if (credentials := credentials_at(way[2], record))
        ]
        if not found:
            raise CommissioningError(_no_way(gateway, record, "reads its history"))
        return found
    gateways = [gateway_of(site, asked.org)] if asked.org else [site.gateways[org] for org in sorted(site.gateways)]
    every = [(gateway, way) for gateway in gateways for way in _backfillers(gateway, asked.adapter)]
    if not every:
        raise CommissioningError(f"no adapter {asked.adapter!r} here reads histories; see flexrelay adapter list")
    found = [
        (*way, credentials)
        for gateway, way in every
        if (credentials := tuple(each for record in gateway.devices for each in credentials_at(way[2], record)))
    ]
    if not found:
        raise CommissioningError(f"no enrolled device is read by the adapter {asked.adapter}")
    return found


def _backfillers(gateway: Gateway, named: str) -> list[tuple[Gateway, str, Adapter, Backfiller]]:
    """Of this name; all when it is ""."""
    return [
        (gateway, name, adapter, adapter)
        for name, adapter in sorted(gateway.adapters.items())
        if named in ("", name) and isinstance(adapter, Backfiller)
    ]


def _no_way(gateway: Gateway, record: DeviceRecord, what: str) -> str:
    bound = ", ".join(f"{protocol}:{credential}" for protocol, credential in record.credentials) or "nothing"
    return f"no adapter of {gateway.org} that has a place for {record.name} {what}; it is bound to {bound}"


async def _connected(name: str, adapter: Adapter, wait_s: float) -> None:
    until = time.monotonic() + wait_s
    while not adapter.connected:
        if time.monotonic() >= until:
            raise ConnectionError(f"{name} was not connected to {adapter.endpoint} within {wait_s:g} s")
        await asyncio.sleep(_LOOK_S)
