"""What was provisioned: services (an API key each) and devices, in one SQLite file."""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

FILE: Final = "provisioned.db"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS service (
    service TEXT NOT NULL, path TEXT NOT NULL, apikey TEXT NOT NULL, resource TEXT NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (apikey, resource)
);
CREATE TABLE IF NOT EXISTS device (
    service TEXT NOT NULL, path TEXT NOT NULL, apikey TEXT NOT NULL, id TEXT NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (apikey, id)
);
CREATE INDEX IF NOT EXISTS device_of_service ON device (service, path, id);
"""
Document = dict[str, Any]


class Taken(ValueError):
    """It is there already."""


class Full(ValueError):
    """There is room for no more."""


class Provisioned:
    """Durable when a method returns. `names` gives what object ids mean, without reading the file again."""

    def __init__(self, folder: Path | None, *, max_devices: int) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(folder / FILE if folder is not None else ":memory:", check_same_thread=False)
        self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;" + _SCHEMA)
        self._max_devices = max_devices
        self._names: dict[str, dict[str, str]] = {}
        self._keys: set[str] = set()
        self._transports: dict[str, str] = {}
        self._load()

    def close(self) -> None:
        self._db.close()

    @property
    def apikeys(self) -> frozenset[str]:
        """Of services and devices."""
        return frozenset(self._keys)

    def names(self, credential: str) -> Mapping[str, str]:
        """object id → attribute name of `<api key>/<device>`, where they differ."""
        found = self._names.get(credential)
        return found if found is not None else self._names.get(credential.partition("/")[0], {})

    def transport(self, credential: str) -> str:
        """As provisioned, in capitals; "" when it is not."""
        return self._transports.get(credential, "")

    def credentials(self) -> Iterator[str]:
        for apikey, device in self._db.execute("SELECT apikey, id FROM device ORDER BY apikey, id").fetchall():
            yield f"{apikey}/{device}"

    # Services.

    def add_services(self, service: str, path: str, documents: list[Document]) -> None:
        """All or none. Raises Taken."""
        rows = [(service, path, each["apikey"], each["resource"], json.dumps(each)) for each in documents]
        try:
            with self._db:
                self._db.executemany("INSERT INTO service VALUES (?, ?, ?, ?, ?)", rows)
        except sqlite3.IntegrityError:
            raise Taken("a service with this API key and resource is there already") from None
        self._load()

    def services(self, service: str, path: str) -> list[Document]:
        where, values = _scope(service, path)
        rows = self._db.execute(f"SELECT document FROM service WHERE {where} ORDER BY apikey, resource", values)  # noqa: S608
        return [json.loads(row[0]) for row in rows]

    def change_service(self, service: str, path: str, apikey: str, resource: str, change: Document) -> bool:
        for each in self.services(service, path):
            if (each["apikey"], each["resource"]) == (apikey, resource):
                text = json.dumps({**each, **change, "apikey": apikey, "resource": resource})
                with self._db:
                    self._db.execute(
                        "UPDATE service SET document = ? WHERE apikey = ? AND resource = ?", (text, apikey, resource)
                    )
                self._load()
                return True
        return False

    def remove_service(self, service: str, path: str, apikey: str, resource: str) -> bool:
        with self._db:
            done = self._db.execute(
                "DELETE FROM service WHERE service = ? AND path = ? AND apikey = ? AND resource = ?",
                (service, path, apikey, resource),
            )
        self._load()
        return done.rowcount > 0

    # Devices.

    def add_devices(self, service: str, path: str, documents: list[Document]) -> None:
        """All or none; each has its `apikey`. Raises Taken, Full."""
        rows = [(service, path, each["apikey"], each["device_id"], json.dumps(each)) for each in documents]
        (count,) = self._db.execute("SELECT count(*) FROM device").fetchone()
        if count + len(rows) > self._max_devices:
            raise Full(f"at most {self._max_devices} devices can be provisioned (max_devices)")
        try:
            with self._db:
                self._db.executemany("INSERT INTO device VALUES (?, ?, ?, ?, ?)", rows)
        except sqlite3.IntegrityError:
            raise Taken("a device with this id is there already under this API key") from None
        for each in documents:
            self._note(each)

    def devices(self, service: str, path: str, limit: int, offset: int) -> tuple[int, list[Document]]:
        where, values = _scope(service, path)
        (count,) = self._db.execute(f"SELECT count(*) FROM device WHERE {where}", values).fetchone()  # noqa: S608
        rows = self._db.execute(
            f"SELECT document FROM device WHERE {where} ORDER BY id, apikey LIMIT ? OFFSET ?",  # noqa: S608
            (*values, limit, offset),
        )
        return count, [json.loads(row[0]) for row in rows]

    def device(self, service: str, path: str, device: str, apikey: str | None = None) -> Document | None:
        rows = self._db.execute(
            "SELECT apikey, document FROM device WHERE service = ? AND path = ? AND id = ? ORDER BY apikey",
            (service, path, device),
        ).fetchall()
        return next((json.loads(text) for key, text in rows if apikey in (None, key)), None)

    def change_device(self, service: str, path: str, device: str, change: Document, apikey: str | None = None) -> bool:
        """`apikey` tells devices of one id apart, as the one in the change does; it cannot be changed."""
        found = self.device(service, path, device, apikey or change.get("apikey"))
        if found is None:
            return False
        scope = {name: found[name] for name in ("apikey", "service", "service_path") if name in found}
        changed: Document = found | change | scope | {"device_id": device}
        with self._db:
            self._db.execute(
                "UPDATE device SET document = ? WHERE apikey = ? AND id = ?",
                (json.dumps(changed), found["apikey"], device),
            )
        self._note(changed)
        return True

    def remove_device(self, service: str, path: str, device: str, apikey: str | None = None) -> bool:
        found = self.device(service, path, device, apikey)
        if found is None:
            return False
        with self._db:
            self._db.execute("DELETE FROM device WHERE apikey = ? AND id = ?", (found["apikey"], device))
        credential = f"{found['apikey']}/{device}"
        self._names.pop(credential, None)
        self._transports.pop(credential, None)
        used = "SELECT 1 FROM device WHERE apikey = ?1 UNION SELECT 1 FROM service WHERE apikey = ?1 LIMIT 1"
        if self._db.execute(used, (found["apikey"],)).fetchone() is None:
            self._keys.discard(found["apikey"])
        return True

    def _load(self) -> None:
        self._names, self._keys, self._transports = {}, set(), {}
        for apikey, text in self._db.execute("SELECT apikey, document FROM service").fetchall():
            self._keys.add(apikey)
            names = _names(json.loads(text))
            if names:
                self._names[apikey] = {**self._names.get(apikey, {}), **names}
        for (text,) in self._db.execute("SELECT document FROM device").fetchall():
            self._note(json.loads(text))

    def _note(self, device: Document) -> None:
        credential = f"{device['apikey']}/{device['device_id']}"
        self._keys.add(device["apikey"])
        self._transports[credential] = str(device.get("transport", "")).upper()
        names = {**self._names.get(device["apikey"], {}), **_names(device)}
        if names:
            self._names[credential] = names
        else:
            self._names.pop(credential, None)


def _names(document: Document) -> dict[str, str]:
    attributes = document.get("attributes") or []
    return {
        each["object_id"]: each["name"]
        for each in attributes
        if each.get("object_id") and each.get("name") and each["object_id"] != each["name"]
    }


def _scope(service: str, path: str) -> tuple[str, tuple[str, ...]]:
    """A path that ends in * or is /# means all of the service, as with the IoT Agents."""
    return ("service = ?", (service,)) if path in ("/*", "/#") else ("service = ? AND path = ?", (service, path))
