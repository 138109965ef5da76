"""What adapters have found and nobody has enrolled: credentials that wait for somebody's approval.

A running gateway asks its adapters that can discover, and keeps what no device is bound to. Nothing of such a
credential is let in by that.
"""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from flexrelay.ingest import Registry
from flexrelay.store import Component, Migration, Store, StoreUnavailable
from flexrelay_sdk import Adapter, Discoverer

log = logging.getLogger(__name__)

DISCOVERED: Final = Component(
    "discovered",
    (
        Migration(
            1,
            "credentials that wait for approval",
            (
                """CREATE TABLE discovered (
                    tenant TEXT NOT NULL, protocol TEXT NOT NULL, credential TEXT NOT NULL, adapter TEXT NOT NULL,
                    first_seen INTEGER NOT NULL, last_seen INTEGER NOT NULL, dismissed INTEGER NOT NULL DEFAULT 0,
                    PRIMARY KEY (tenant, protocol, credential)) STRICT, WITHOUT ROWID""",
            ),
        ),
    ),
)
MOST: Final = 10_000
"""Credentials kept at a gateway; beyond it new ones are passed over (and found again once there is room)."""

MAX_CREDENTIAL: Final = 512
FIRST_S: Final = 2.0
EVERY_S: Final = 300.0
"""Pauses between two looks around: each is twice the one before, so that who sets a gateway up need not wait."""

PATIENCE_S: Final = 60.0
"""What one adapter may take to look around."""

_AGAIN: Final = "UPDATE discovered SET last_seen = ?, adapter = ? WHERE tenant = ? AND protocol = ? AND credential = ?"
_FIRST: Final = (
    "INSERT INTO discovered (last_seen, adapter, tenant, protocol, credential, first_seen) VALUES (?, ?, ?, ?, ?, ?)"
)


@dataclass(frozen=True, slots=True)
class Found:
    """`first_seen` and `last_seen` are wall-clock UTC ms; a dismissed one is not shown unless asked for."""

    protocol: str
    credential: str
    adapter: str
    first_seen: int
    last_seen: int
    dismissed: bool


class Discovered:
    """One tenant's findings, in a store with the component DISCOVERED."""

    def __init__(self, store: Store, tenant: str, registry: Registry) -> None:
        self._store = store
        self._tenant = tenant
        self._registry = registry

    async def waiting(self, *, dismissed: bool = False) -> list[Found]:
        """What no device is bound to, by protocol and credential."""
        query = (
            "SELECT protocol, credential, adapter, first_seen, last_seen, dismissed FROM discovered "
            "WHERE tenant = ? ORDER BY protocol, credential"
        )
        rows = await self._store.read(lambda connection: connection.execute(query, (self._tenant,)).fetchall())
        found = [
            Found(protocol, credential, adapter, first, last, bool(gone))
            for protocol, credential, adapter, first, last, gone in rows
        ]
        return [
            each
            for each in found
            if (dismissed or not each.dismissed) and self._registry.identify(each.protocol, each.credential) is None
        ]

    async def dismiss(self, protocol: str, credential: str) -> bool:
        """Do not show it again; False when it was never found."""
        return await self._change("UPDATE discovered SET dismissed = 1 WHERE", protocol, credential)

    async def forget(self, protocol: str, credential: str) -> bool:
        """As if it had never been found."""
        return await self._change("DELETE FROM discovered WHERE", protocol, credential)

    async def sweep(self, adapters: Mapping[str, Adapter], now_ms: int) -> int:
        """Ask every adapter that can discover, keep what is not bound; how many were told. One adapter that fails or
        takes too long stops no other. Raises StoreUnavailable."""
        told = 0
        for name, adapter in adapters.items():
            if not isinstance(adapter, Discoverer):
                continue
            credentials = await _told(name, adapter.discover())
            unbound = [each for each in credentials if self._registry.identify(adapter.protocol, each) is None]
            told += len(unbound)
            await self._see(adapter.protocol, name, unbound, now_ms)
        return told

    async def _see(self, protocol: str, adapter: str, credentials: Iterable[str], now_ms: int) -> None:
        rows = [(now_ms, adapter, self._tenant, protocol, credential) for credential in credentials]

        def write(connection: sqlite3.Connection) -> None:
            # counted once: others wait for this transaction
            query = "SELECT count(*) FROM discovered WHERE tenant = ?"
            room = MOST - int(connection.execute(query, (self._tenant,)).fetchone()[0])
            for row in rows:
                if connection.execute(_AGAIN, row).rowcount == 0 and room > 0:
                    connection.execute(_FIRST, (*row, now_ms))
                    room -= 1

        if rows:
            await self._store.write(write)

    async def _change(self, statement: str, protocol: str, credential: str) -> bool:
        where = f"{statement} tenant = ? AND protocol = ? AND credential = ?"
        values = (self._tenant, protocol, credential)
        return bool(await self._store.write(lambda connection: connection.execute(where, values).rowcount))


async def keep_discovering(discovered: Discovered, adapters: Mapping[str, Adapter], clock: Callable[[], int]) -> None:
    """For ever, at first often and then now and again."""
    if not any(isinstance(adapter, Discoverer) for adapter in adapters.values()):
        return
    pause = FIRST_S
    while True:
        await asyncio.sleep(pause)
        pause = min(EVERY_S, 2 * pause)
        try:
            await discovered.sweep(adapters, clock())
        except StoreUnavailable as error:
            log.warning("what adapters found cannot be kept now: %s", error)


async def _told(name: str, credentials: AsyncIterator[str]) -> list[str]:
    found: list[str] = []
    try:
        async with asyncio.timeout(PATIENCE_S):
            async for credential in credentials:
                if 0 < len(credential) <= MAX_CREDENTIAL and credential.isprintable():
                    found.append(credential)
                if len(found) >= MOST:
                    break
    except TimeoutError:
        log.info("adapter %s did not end its discovery within %s s; it told %s", name, PATIENCE_S, len(found))
    except OSError as error:  # the other side is away: the adapter itself says so too
        log.info("adapter %s cannot look around now: %s", name, error)
    except Exception:  # somebody else's code, in the outermost loop of a side matter
        log.exception("adapter %s failed to discover", name)
    return found
