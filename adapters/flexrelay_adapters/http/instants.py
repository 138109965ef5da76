"""When requests with an Idempotency-Key first came, over restarts: for readings whose instant is their reception.

It is on disk before anything of the request is stored. So whatever happens then, the same request that comes again
makes the same readings, and the gateway knows them as duplicates.
"""

import asyncio
import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final, Self

from flexrelay_adapters._http import Refusal
from flexrelay_adapters.http.outcomes import Key

FILE: Final = "instants.db"
_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS instants (name BLOB PRIMARY KEY, body BLOB NOT NULL, at INTEGER NOT NULL)",
    "CREATE INDEX IF NOT EXISTS instants_by_at ON instants (at)",
)


class Instants:
    """A file in `folder`; of more than `most` keys the oldest go, and those of more than `ttl_s` ago. `open` and
    `close` it; one request at a time writes."""

    def __init__(self, folder: Path, most: int, ttl_s: int) -> None:
        self._path = folder / FILE
        self._most = most
        self._ttl_ms = ttl_s * 1000
        self._turn = asyncio.Lock()
        self._database: sqlite3.Connection | None = None

    def open(self) -> Self:
        """Raises ValueError naming the file when it cannot be used."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._path.touch(mode=0o600)
            database = sqlite3.connect(self._path, check_same_thread=False)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            with database:
                for statement in _SCHEMA:
                    database.execute(statement)
        except (OSError, sqlite3.Error) as error:
            raise ValueError(f"state: {self._path} cannot be used: {error}; if it is damaged, remove it") from None
        self._database = database
        return self

    async def close(self) -> None:
        """What is being written is finished first."""
        async with self._turn:
            database, self._database = self._database, None
            if database is not None:
                database.close()

    async def first(self, key: Key, body: bytes, now: int) -> int:
        """The instant of the first request with this key, `now` (UTC ms) when this is the first.

        Raises Refusal: 422 when it came with another body, 503 when it cannot be written.
        """
        name = hashlib.sha256("\0".join(key).encode(errors="surrogatepass")).digest()
        async with self._turn:
            write = asyncio.create_task(asyncio.to_thread(self._first, name, hashlib.sha256(body).digest(), now))
            try:
                known, at = await asyncio.shield(write)
            except asyncio.CancelledError:
                await asyncio.wait({write})  # the connection must not be used by two
                raise
            except sqlite3.Error as error:
                raise Refusal(503, "busy", f"the gateway cannot store now: {error}", {"retry-after": "2"}) from None
        if known != hashlib.sha256(body).digest():
            raise Refusal(422, "idempotency_key_reused", "this key came with another body before")
        return at

    def _first(self, name: bytes, body: bytes, now: int) -> tuple[bytes, int]:
        database = self._database
        if database is None:
            raise sqlite3.ProgrammingError("the gateway is stopping")
        with database:
            database.execute("DELETE FROM instants WHERE at < ?", (now - self._ttl_ms,))
            database.execute("INSERT OR IGNORE INTO instants VALUES (?, ?, ?)", (name, body, now))
            with closing(database.execute("SELECT body, at FROM instants WHERE name = ?", (name,))) as found:
                row = found.fetchone()
            ((count,),) = database.execute("SELECT count(*) FROM instants").fetchall()
            if count > self._most:
                database.execute(
                    "DELETE FROM instants WHERE name IN"
                    " (SELECT name FROM instants WHERE name != ? ORDER BY at LIMIT ?)",
                    (name, count - self._most),
                )
        return bytes(row[0]), int(row[1])
