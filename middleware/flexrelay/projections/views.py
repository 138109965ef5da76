"""Asking the projections: for the CLI, an API, the custody record."""

import json
import sqlite3
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from flexrelay.projections.projector import Event
from flexrelay.store import Store
from flexrelay_schemas.canonical import parse

_PAGE = 10_000
_IDENTITIES = "SELECT did, kind, controller, org, version, key, status FROM identity WHERE tenant = ?"
_DOCUMENT = "kind, id, status, body, first_block, first_tx, block, tx_id"


@dataclass(frozen=True, slots=True)
class Document:
    """`first_block` and `first_tx`: where it came from; `block` and `tx_id`: what changed it last."""

    kind: str
    id: str
    status: str
    body: Mapping[str, Any]
    first_block: int
    first_tx: str
    block: int
    tx_id: str


@dataclass(frozen=True, slots=True)
class Identity:
    did: str
    kind: str
    controller: str
    org: str
    version: int
    key: str
    status: str


@dataclass(frozen=True, slots=True)
class Posting:
    """One line of money, in µ€; `sequence` is its event's."""

    sequence: int
    product: str
    debit: str
    credit: str
    micro_eur: int
    reason: str
    ref: str


class Views:
    """Reads of one tenant's projections."""

    def __init__(self, store: Store, tenant: str) -> None:
        self._store = store
        self._tenant = tenant

    async def document(self, kind: str, identifier: str) -> Document | None:
        found = await self._documents("kind = ? AND id = ?", kind, identifier)
        return found[0] if found else None

    async def documents(self, kind: str, status: str = "") -> list[Document]:
        """In the order of their ids; `status` "" = all."""
        return await self._documents("kind = ? AND (? = '' OR status = ?)", kind, status, status)

    async def under(self, kind: str, first: str) -> list[Document]:
        """Those whose id is `first`, "/" and more, in the order of their ids; the others are not read."""
        return await self._documents(
            "kind = ? AND id > ? AND id < ?", kind, f"{first}/", f"{first}0"
        )  # "0" follows "/"

    async def identity(self, did: str) -> Identity | None:
        rows = await self._rows(f"{_IDENTITIES} AND did = ?", did)
        return Identity(*rows[0]) if rows else None

    async def identities(self, kind: str = "") -> list[Identity]:
        rows = await self._rows(f"{_IDENTITIES} AND (? = '' OR kind = ?) ORDER BY did", kind, kind)
        return [Identity(*row) for row in rows]

    async def balances(self) -> dict[str, int]:
        """µ€ by account; they sum to zero."""
        rows = await self._rows("SELECT account, micro_eur FROM balance WHERE tenant = ? ORDER BY account")
        return dict(rows)

    async def postings(self, ref: str = "") -> list[Posting]:
        """In the chain's order; `ref` "" = all."""
        rows = await self._rows(
            "SELECT sequence, product, debit, credit, micro_eur, reason, ref FROM posting "
            "WHERE tenant = ? AND (? = '' OR ref = ?) ORDER BY sequence, line",
            ref,
            ref,
        )
        return [Posting(*row) for row in rows]

    async def events(self, prefix: str = "", tx_id: str = "", after: int = 0, limit: int = 10_000) -> list[Event]:
        """Events whose name begins with `prefix`, in the chain's order."""
        rows = await self._rows(
            "SELECT sequence, block, tx_id, at, name, payload FROM event WHERE tenant = ? AND sequence > ? "
            "AND substr(name, 1, length(?)) = ? AND (? = '' OR tx_id = ?) ORDER BY sequence LIMIT ?",
            after,
            prefix,
            prefix,
            tx_id,
            tx_id,
            limit,
        )
        return [_event(row) for row in rows]

    async def every(self, prefix: str) -> AsyncIterator[Event]:
        """All events whose name begins with `prefix`, in the chain's order, page by page."""
        after = 0
        while events := await self.events(prefix, after=after, limit=_PAGE):
            for event in events:
                yield event
            after = events[-1].sequence

    async def named(self, name: str, after: int = 0) -> AsyncIterator[Event]:
        """All events of this name beyond sequence `after`, in the chain's order; the others are not read."""
        query = (
            "SELECT sequence, block, tx_id, at, name, payload FROM event WHERE tenant = ? AND name = ? "
            "AND sequence > ? ORDER BY sequence LIMIT ?"
        )
        while rows := await self._rows(query, name, after, _PAGE):
            for row in rows:
                yield _event(row)
            after = rows[-1][0]

    async def _documents(self, where: str, *values: Any) -> list[Document]:
        query = f"SELECT {_DOCUMENT} FROM document WHERE tenant = ? AND {where} ORDER BY kind, id"  # noqa: S608
        rows = await self._rows(query, *values)
        return [Document(row[0], row[1], row[2], json.loads(row[3]), row[4], row[5], row[6], row[7]) for row in rows]

    async def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        def work(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
            return connection.execute(query, (self._tenant, *values)).fetchall()

        return await self._store.read(work)


def _event(row: tuple[Any, ...]) -> Event:
    return Event(row[0], row[1], row[2], row[3], row[4], parse(row[5]))
