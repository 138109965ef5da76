"""What a gateway itself decides about devices, kept in its store; identity and status are the ledger's.

Enrolments are read at start into the ingest registry; a change takes effect in both at once.
"""

import json
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Self

from flexrelay.ingest import Enrolment, Registry
from flexrelay.store import Component, Migration, Store, StoreUnavailable
from flexrelay_schemas.entities import DeviceInfo

ENROLMENTS: Final = Component(
    "enrolments",
    (
        Migration(
            1,
            "devices",
            (
                """CREATE TABLE device (
                    tenant TEXT NOT NULL, did TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL,
                    credentials TEXT NOT NULL, orgs TEXT NOT NULL, unsigned INTEGER NOT NULL,
                    PRIMARY KEY (tenant, did), UNIQUE (tenant, name)) STRICT, WITHOUT ROWID""",
            ),
        ),
    ),
)
_COLUMNS: Final = "did, name, kind, credentials, orgs, unsigned"
_WRITE: Final = f"INSERT OR REPLACE INTO device (tenant, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """`kind` chooses the smart data model (meter, pv, battery, ev). `credentials` are (protocol, credential) pairs
    besides the DID's scid. `orgs`: the organisations that may receive it (empty: every one)."""

    did: str
    name: str
    kind: str
    credentials: tuple[tuple[str, str], ...] = ()
    orgs: tuple[str, ...] = ()
    unsigned: bool = False

    def enrolment(self) -> Enrolment:
        return Enrolment(self.did, self.credentials, self.orgs, self.unsigned)


class Enrolments:
    """One tenant's enrolled devices. Make it with `open`."""

    def __init__(self, store: Store, tenant: str, registry: Registry) -> None:
        self._store = store
        self._tenant = tenant
        self._registry = registry
        self._records: dict[str, DeviceRecord] = {}
        self._by_name: dict[str, DeviceRecord] = {}

    @classmethod
    async def open(cls, store: Store, tenant: str, registry: Registry) -> Self:
        """Read what is stored and give it to the registry."""
        enrolments = cls(store, tenant, registry)
        query = f"SELECT {_COLUMNS} FROM device WHERE tenant = ?"  # noqa: S608 - a constant
        for row in await store.read(lambda connection: connection.execute(query, (tenant,)).fetchall()):
            enrolments._take(_record(row))
        return enrolments

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[DeviceRecord]:
        """By name."""
        return iter(sorted(self._records.values(), key=lambda record: record.name))

    def get(self, did: str) -> DeviceRecord | None:
        return self._records.get(did)

    def named(self, name: str) -> DeviceRecord | None:
        return self._by_name.get(name)

    def credentials(self, did: str) -> tuple[tuple[str, str], ...]:
        """The (protocol, credential) pairs that it is bound to besides its scid; none for an unknown device."""
        record = self._records.get(did)
        return () if record is None else record.credentials

    def describe(self, did: str) -> DeviceInfo | None:
        """For the twin's mapping."""
        record = self._records.get(did)
        return None if record is None else DeviceInfo(did, record.kind)

    async def add(self, *records: DeviceRecord) -> None:
        """Enrol devices, or change what is enrolled. Raises ValueError when a name or a credential is another's,
        StoreUnavailable where nothing can be written; then all is as it was, here and in the registry."""
        for record in records:
            holder = self.named(record.name)
            if holder is not None and holder.did != record.did:
                raise ValueError(f"the name {record.name!r} belongs to {holder.did}")
        rows = [
            (
                self._tenant,
                record.did,
                record.name,
                record.kind,
                json.dumps(record.credentials),
                json.dumps(record.orgs),
                int(record.unsigned),
            )
            for record in records
        ]

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany(_WRITE, rows)

        before = [(record.did, self._registry.enrolment(record.did)) for record in records]
        try:
            for record in records:
                self._registry.enrol(record.enrolment())
            await self._store.write(write)
        except (ValueError, StoreUnavailable):
            for did, _ in before:
                self._registry.withdraw(did)
            for _, enrolment in before:
                if enrolment is not None:
                    self._registry.enrol(enrolment)
            raise
        for record in records:
            self._remember(record)

    def _take(self, record: DeviceRecord) -> None:
        self._registry.enrol(record.enrolment())
        self._remember(record)

    def _remember(self, record: DeviceRecord) -> None:
        before = self._records.get(record.did)
        if before is not None:
            del self._by_name[before.name]
        self._records[record.did] = self._by_name[record.name] = record


def _record(row: tuple[Any, ...]) -> DeviceRecord:
    did, name, kind, credentials, orgs, unsigned = row
    pairs = tuple((sys.intern(protocol), credential) for protocol, credential in json.loads(credentials))
    names = tuple(sys.intern(org) for org in json.loads(orgs))
    return DeviceRecord(did, name, sys.intern(kind), pairs, names, bool(unsigned))
