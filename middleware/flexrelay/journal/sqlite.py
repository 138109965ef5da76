"""The embedded journal: SQLite in WAL mode with synchronous=FULL, group commit, segments chained by hash.

A segment is the entries of one `append`; its hash is SHA-256(hash of the one before ‖ first position ‖ last ‖
newest receive time ‖ body), so a changed, missing or exchanged segment is noticed when it is read or verified.
Appends that wait while a commit runs go into the next one together. One process owns the file (a lock beside it).
"""

import asyncio
import fcntl
import hashlib
import os
import sqlite3
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self, TypeVar

from flexrelay.journal.database import damaged, open_journal, read_journal
from flexrelay.journal.decoded import Decoded
from flexrelay.journal.letters import SCHEMA as LETTERS
from flexrelay.journal.letters import LetterBounds, LetterBox, count_letters, select_letters
from flexrelay.journal.port import DeadLetter, DeadLetterCount, Entry, JournalCorrupt, JournalLocked, JournalUnavailable
from flexrelay.journal.segment import Trace, decode_segment, encode_segment, traces
from flexrelay.store import Component, Migration, is_damage

T = TypeVar("T")

COMPONENT: Final = Component(
    "journal",
    (
        Migration(
            1,
            "segments, consumers, dead letters",
            (
                """CREATE TABLE segment (
                    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, newest_at INTEGER NOT NULL,
                    previous BLOB NOT NULL, hash BLOB NOT NULL, body BLOB NOT NULL) STRICT""",
                "CREATE TABLE consumer (name TEXT PRIMARY KEY, position INTEGER NOT NULL) STRICT, WITHOUT ROWID",
                *LETTERS,
            ),
        ),
    ),
)
_GENESIS: Final = bytes(32)
_SEGMENT: Final = "SELECT first, last, newest_at, previous, hash, body FROM segment"
_PLACES: Final = "SELECT first, last, hash FROM segment WHERE first > ? ORDER BY first"
_Row = tuple[int, int, int, bytes, bytes, bytes]


class SqliteJournal:
    """See `port.Journal` and `port.DeadLetters`. Use it as an async context manager, or call `close`."""

    def __init__(self, path: Path, bounds: LetterBounds | None = None, *, read_only: bool = False) -> None:
        """Open or create. Raises JournalCorrupt, MigrationError (a newer file), JournalLocked (in use).

        `read_only`: what is there now is read, whichever process has it open; what writes raises JournalUnavailable.
        """
        self.path = path
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = None if read_only else _lock(path)
        try:
            self._writer = read_journal(path, COMPONENT) if read_only else open_journal(path, COMPONENT)
            self._reader = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._decoded = Decoded()
            self._box = LetterBox(self._writer, bounds or LetterBounds())
            row = self._writer.execute("SELECT last, hash FROM segment ORDER BY first DESC LIMIT 1").fetchone()
            first = self._writer.execute("SELECT min(first) FROM segment").fetchone()[0]
        except BaseException as error:
            self._let_go()
            if is_damage(error):
                raise JournalCorrupt(damaged(path, str(error))) from error
            raise
        self._end: int = 0 if row is None else row[0]
        self._hash: bytes = _GENESIS if row is None else row[1]
        self._begin: int = 1 if first is None else first
        self._write_thread = ThreadPoolExecutor(1, "journal-write")
        self._read_thread = ThreadPoolExecutor(1, "journal-read")
        self._waiting: list[tuple[bytes, int, int, Sequence[DeadLetter], asyncio.Future[int]]] = []
        self._grown = asyncio.Event()
        self._commits: asyncio.Task[None] | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def end(self) -> int:
        return self._end

    @property
    def begin(self) -> int:
        return self._begin

    @property
    def dropped(self) -> int:
        return self._box.dropped

    async def append(self, entries: Sequence[Entry], letters: Sequence[DeadLetter] = ()) -> int:
        if self._closed:
            raise JournalUnavailable(f"journal {self.path} is closed")
        if not entries and not letters:
            return self._end + 1
        body = encode_segment(entries)
        newest = max((entry.received_at for entry in entries), default=0)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((body, len(entries), newest, letters, future))
        if self._commits is None:
            self._commits = asyncio.get_running_loop().create_task(self._commit_waiting(), name="journal-commit")
        return await asyncio.shield(future)

    async def read(self, after: int, limit: int) -> list[Entry]:
        if after >= self._end or limit <= 0:
            return []
        return await self._in_reader(lambda: self._read(after, limit))

    async def entry(self, position: int) -> Entry | None:
        if not self._begin <= position <= self._end:
            return None
        try:
            found = await self.read(position - 1, 1)
        except ValueError:  # truncated since the line above
            return None
        return found[0]

    async def wait(self, after: int) -> None:
        while self._end <= after:
            await self._grown.wait()

    async def acknowledge(self, consumer: str, position: int) -> None:
        await self._in_writer(
            lambda: self._writer.execute(
                "INSERT INTO consumer VALUES (?, ?) "
                "ON CONFLICT DO UPDATE SET position = max(position, excluded.position)",
                (consumer, position),
            )
        )

    async def truncate(self, received_before: int) -> int:
        return await self._in_writer(lambda: self._truncate(received_before))

    async def forget(self, consumer: str) -> None:
        """This consumer is gone for good: it holds back truncation no longer."""
        await self._in_writer(lambda: self._writer.execute("DELETE FROM consumer WHERE name = ?", (consumer,)))

    async def verify(self) -> int:
        """Recompute every segment and the chain; the number of entries. Raises JournalCorrupt naming the place."""
        return await self._in_reader(self._verify)

    def traces(self, after: int) -> Iterator[list[Trace]]:
        """The measurements after `after`, segment by segment, without payloads (blocking; for register checks)."""
        connection = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, isolation_level=None)
        try:
            rows = connection.execute(
                "SELECT first, last, body FROM segment WHERE first > ? ORDER BY first", (self._base(connection, after),)
            )
            for first, last, body in rows:
                found = traces(body, first, last - first + 1)
                yield found if first > after else [trace for trace in found if trace[0] > after]
        finally:
            connection.close()

    async def letters(self, after: int = 0, limit: int = 100) -> list[DeadLetter]:
        return await self._in_reader(lambda: select_letters(self._reader, after, limit))

    async def letter(self, letter_id: int) -> DeadLetter | None:
        found = await self.letters(letter_id - 1, 1)
        return found[0] if found and found[0].letter_id == letter_id else None

    async def remove(self, letter_ids: Sequence[int]) -> int:
        def work() -> int:
            with _Transaction(self._writer):
                return self._box.remove(letter_ids)

        return await self._in_writer(work)

    async def count(self) -> DeadLetterCount:
        return await self._in_reader(lambda: count_letters(self._reader))

    async def close(self) -> None:
        """Wait for the commits that are under way, then let go of the file."""
        if self._closed:
            return
        self._closed = True
        if self._commits is not None:
            await asyncio.wait([self._commits])
        self._write_thread.shutdown()
        self._read_thread.shutdown()
        self._reader.close()
        self._writer.close()
        self._let_go()

    def _let_go(self) -> None:
        if self._lock is not None:
            os.close(self._lock)

    async def _commit_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                firsts = await loop.run_in_executor(self._write_thread, self._commit, group)
            except Exception as error:
                for *_, future in group:
                    future.set_exception(self._unavailable(error))
                    future.exception()  # a caller that was cancelled meanwhile does not ask
            else:
                for (*_, future), first in zip(group, firsts, strict=True):
                    future.set_result(first)
                self._grown.set()
                self._grown = asyncio.Event()
        self._commits = None

    def _commit(self, group: Sequence[tuple[bytes, int, int, Sequence[DeadLetter], object]]) -> list[int]:
        firsts = []
        rows: list[_Row] = []
        letters: list[DeadLetter] = []
        end, previous = self._end, self._hash
        for body, count, newest, refused, _ in group:
            firsts.append(end + 1)
            letters += refused
            if count:
                digest = _digest(previous, end + 1, end + count, newest, body)
                rows.append((end + 1, end + count, newest, previous, digest, body))
                end, previous = end + count, digest
        try:
            with _Transaction(self._writer):
                self._writer.executemany("INSERT INTO segment VALUES (?, ?, ?, ?, ?, ?)", rows)
                if letters:
                    self._box.add(letters)
        except BaseException:
            if letters:
                self._box.reload()
            raise
        self._end, self._hash = end, previous
        return firsts

    def _unavailable(self, error: Exception) -> Exception:
        if is_damage(error):
            return JournalCorrupt(damaged(self.path, str(error)))
        if isinstance(error, sqlite3.Error):
            return JournalUnavailable(
                f"journal {self.path} cannot store now: {error}. Nothing of this batch is kept; it goes on by itself "
                "when the place is writable and has room again"
            )
        return error

    @staticmethod
    def _base(connection: sqlite3.Connection, after: int) -> int:
        """One less than the first position of the segment that holds `after` + 1."""
        (first,) = connection.execute("SELECT max(first) FROM segment WHERE first <= ?", (after + 1,)).fetchone()
        return -1 if first is None else int(first) - 1

    def _read(self, after: int, limit: int) -> list[Entry]:
        if after + 1 < self._begin:
            raise ValueError(f"entries {after + 1} to {self._begin - 1} of {self.path} have been truncated already")
        entries: list[Entry] = []
        base = self._base(self._reader, after)
        for first, last, digest in self._reader.execute(_PLACES, (base,)):
            expected = after + 1 + len(entries)
            if not first <= expected <= last:
                if expected < self._begin:
                    raise ValueError(f"entry {expected} of {self.path} has been truncated just now")
                raise JournalCorrupt(f"journal {self.path}: entry {expected} is missing")
            skip, room = expected - first, limit - len(entries)
            segment = self._decoded.get((first, last, digest))
            if segment is None:
                segment = self._decode(first)
            entries += segment if not skip and len(segment) <= room else segment[skip : skip + room]
            if len(entries) >= limit:
                break
        return entries

    def _decode(self, first: int) -> list[Entry]:
        """The entries of a segment from the file; the list is shared with later readers."""
        row: _Row | None = self._reader.execute(f"{_SEGMENT} WHERE first = ?", (first,)).fetchone()
        if row is None:  # listed, but not found: damage
            raise JournalCorrupt(f"journal {self.path}: the segment of entry {first} is missing")
        self._check(row)
        last, digest, body = row[1], row[4], row[5]
        try:
            entries = decode_segment(body, first, last - first + 1)
        except ValueError as error:
            raise JournalCorrupt(f"journal {self.path}, segment {first}–{last}: {error}") from None
        self._decoded.keep((first, last, digest), entries, len(body))
        return entries

    def _check(self, row: _Row) -> None:
        first, last, newest, previous, digest, body = row
        try:
            good = _digest(previous, first, last, newest, body) == digest
        except (struct.error, TypeError):  # a damaged page can give values of another type
            good = False
        if not good:
            raise JournalCorrupt(f"journal {self.path}, segment {first}–{last}: its bytes do not give its hash")

    def _verify(self) -> int:
        total = 0
        before: _Row | None = None
        try:
            for row in self._reader.execute(f"{_SEGMENT} ORDER BY first"):
                self._check(row)
                if before is not None and (row[0] != before[1] + 1 or row[3] != before[4]):
                    raise JournalCorrupt(
                        f"journal {self.path}: segment {row[0]}–{row[1]} does not follow {before[0]}–{before[1]}"
                    )
                total += len(decode_segment(row[5], row[0], row[1] - row[0] + 1))
                before = row
        except ValueError as error:
            raise JournalCorrupt(f"journal {self.path}: {error}") from None
        except sqlite3.DatabaseError as error:
            raise JournalCorrupt(damaged(self.path, str(error))) from None
        return total

    def _truncate(self, received_before: int) -> int:
        (needed,) = self._writer.execute("SELECT min(position) FROM consumer").fetchone()
        if needed is None:
            return 0  # no consumer has ever been here: nothing is known to be done with
        dropped, begin = 0, self._begin
        try:
            with _Transaction(self._writer):
                rows = self._writer.execute(
                    "SELECT first, last, newest_at FROM segment WHERE last <= ? AND last < ? ORDER BY first",
                    (needed, self._end),  # the newest segment stays: it carries the position and the chain
                )
                upto = 0
                for first, last, newest_at in rows:
                    if newest_at >= received_before:
                        break
                    upto, dropped = last, dropped + last - first + 1
                self._writer.execute("DELETE FROM segment WHERE last <= ?", (upto,))
                if dropped:
                    self._begin = upto + 1  # before the commit: a reader must not take what is gone for damage
        except BaseException:
            self._begin = begin
            raise
        return dropped

    async def _in_reader(self, work: Callable[[], T]) -> T:
        return await self._run(self._read_thread, work)

    async def _in_writer(self, work: Callable[[], T]) -> T:
        return await self._run(self._write_thread, work)

    async def _run(self, thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        if self._closed:
            raise JournalUnavailable(f"journal {self.path} is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, work)
        except sqlite3.Error as error:
            raise self._unavailable(error) from error


class _Transaction:
    """BEGIN IMMEDIATE … COMMIT; ROLLBACK when the body or the commit raises."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def _digest(previous: bytes, first: int, last: int, newest_at: int, body: bytes) -> bytes:
    return hashlib.sha256(previous + struct.pack("<qqq", first, last, newest_at) + body).digest()


def _lock(path: Path) -> int:
    handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise JournalLocked(f"journal {path} is in use by another process; stop that one first") from None
    return handle
