"""What devices have told of themselves through their adapters, kept for people: nothing is decided by it.

A running gateway asks its adapters now and then, and once more when it stops.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Mapping
from typing import Final

from flexrelay.ingest import Registry
from flexrelay.store import Component, Migration, Store, StoreUnavailable
from flexrelay_sdk import Adapter, DeviceFacts, FactTeller
from flexrelay_sdk.facts import NO_FACTS, cleaned

log = logging.getLogger(__name__)

FACTS: Final = Component(
    "facts",
    (
        Migration(
            1,
            "what devices tell of themselves",
            (
                """CREATE TABLE device_facts (
                    tenant TEXT NOT NULL, did TEXT NOT NULL, manufacturer TEXT NOT NULL, model TEXT NOT NULL,
                    serial TEXT NOT NULL, firmware TEXT NOT NULL, battery_permille INTEGER, told_at INTEGER NOT NULL,
                    PRIMARY KEY (tenant, did)) STRICT, WITHOUT ROWID""",
            ),
        ),
    ),
)
FIRST_S: Final = 5.0
EVERY_S: Final = 30.0
_AT_ONCE: Final = 1_000
"""Devices looked at before others get their turn."""

# what is not told this time stays as it was told before; told_at is when something changed
_TEXTS: Final = ("manufacturer", "model", "serial", "firmware")
_KEPT: Final = ", ".join(
    [f"{name} = CASE WHEN excluded.{name} = '' THEN {name} ELSE excluded.{name} END" for name in _TEXTS]
    + ["battery_permille = coalesce(excluded.battery_permille, battery_permille)", "told_at = excluded.told_at"]
)
_NEWS: Final = " OR ".join(
    [f"(excluded.{name} <> '' AND excluded.{name} <> {name})" for name in _TEXTS]
    + ["(excluded.battery_permille IS NOT NULL AND excluded.battery_permille IS NOT battery_permille)"]
)
_WRITE: Final = (
    "INSERT INTO device_facts (tenant, did, manufacturer, model, serial, firmware, battery_permille, told_at) "  # noqa: S608 - constants
    f"VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, did) DO UPDATE SET {_KEPT} WHERE {_NEWS}"
)
_READ: Final = (
    "SELECT manufacturer, model, serial, firmware, battery_permille FROM device_facts WHERE tenant = ? AND did = ?"
)


class Facts:
    """One tenant's, in a store with the component FACTS."""

    def __init__(self, store: Store, tenant: str, registry: Registry) -> None:
        self._store = store
        self._tenant = tenant
        self._registry = registry
        self._told: dict[tuple[str, str], tuple[str, DeviceFacts]] = {}
        """By adapter and credential, whose and what is on disk already; only of credentials that a device is bound
        to."""

    async def of(self, did: str) -> DeviceFacts:
        """What the device has told last."""
        row = await self._store.read(lambda connection: connection.execute(_READ, (self._tenant, did)).fetchone())
        return NO_FACTS if row is None else DeviceFacts(*row)

    async def sweep(self, adapters: Mapping[str, Adapter], now_ms: int) -> int:
        """Ask every adapter that tells facts and keep the news of enrolled devices; how many there were. One adapter
        that fails stops no other. Raises StoreUnavailable."""
        count = 0
        for name, adapter in adapters.items():
            if isinstance(adapter, FactTeller):
                count += await self._take(name, adapter.protocol, adapter, now_ms)
        return count

    async def _take(self, name: str, protocol: str, teller: FactTeller, now_ms: int) -> int:
        news: dict[tuple[str, str], tuple[str, DeviceFacts]] = {}
        rows = []
        try:
            for number, (credential, given) in enumerate(list(teller.facts()), 1):
                if number % _AT_ONCE == 0:
                    await asyncio.sleep(0)
                device = self._registry.identify(protocol, credential)
                if (
                    device is None
                    or device.refusal is not None
                    or self._told.get((name, credential))
                    == (
                        device.did,
                        given,
                    )
                ):
                    continue
                facts = cleaned(given)
                news[name, credential] = (device.did, given)
                if facts != NO_FACTS:
                    rows.append((self._tenant, device.did, *facts, now_ms))
        except Exception:  # somebody else's code, in the outermost loop of a side matter
            log.exception("adapter %s failed to tell facts of its devices", name)
            return 0

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany(_WRITE, rows)

        if rows:
            await self._store.write(write)
        self._told |= news
        return len(rows)


async def keep_learning(facts: Facts, adapters: Mapping[str, Adapter], clock: Callable[[], int]) -> None:
    """For ever, at first soon and then now and again."""
    if not any(isinstance(adapter, FactTeller) for adapter in adapters.values()):
        return
    pause = FIRST_S
    while True:
        await asyncio.sleep(pause)
        pause = EVERY_S
        await learn(facts, adapters, clock)


async def learn(facts: Facts, adapters: Mapping[str, Adapter], clock: Callable[[], int]) -> None:
    """Once; what cannot be kept now is told again."""
    try:
        await facts.sweep(adapters, clock())
    except StoreUnavailable as error:
        log.warning("what devices tell of themselves cannot be kept now: %s", error)
