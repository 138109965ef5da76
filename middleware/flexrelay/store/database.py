"""One SQLite file with one writer thread (group commit) and one reader thread.

A write is a function on the connection. Writes that wait together share one transaction and one fsync; each runs in a
savepoint of its own, so the failure of one does not touch the others. `write` returns after the commit is on disk.
"""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Full, Queue
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from flexrelay.store.damage import is_damage, is_outside, named
from flexrelay.store.migrations import Component, migrate, require

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]

GROUP: Final = 256
"""Writes that share one commit at most."""

QUEUE: Final = 10_000
"""Writes and reads that may wait; beyond it `write` and `read` raise StoreUnavailable at once."""


class StoreUnavailable(Exception):
    """Nothing was written (disk full, closed, overloaded). The same call may be made again later."""


def own(path: Path) -> None:
    """Create a database's file so that only its owner reads it; SQLite itself would follow the umask. The write-ahead
    log beside it gets the same rights. A file that is there keeps its own."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode with the durability that the store promises; usable from one other thread.

    Raises Damaged where the file is no database.
    """
    if not read_only:
        own(path)
    if read_only and not path.is_file():
        raise StoreUnavailable(f"{path} does not exist")
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        if read_only:
            connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error as error:
        connection.close()
        raise named(error, path) from error
    return connection


class Store:
    """Async context manager around the file at `path`. Opening migrates it; raises MigrationError, Damaged.

    What finds the file damaged later raises Damaged too. `read_only`: another process may have the file and write;
    `write` raises StoreUnavailable, and a file that would have to be migrated MigrationError.
    """

    def __init__(self, path: Path, components: Sequence[Component], *, read_only: bool = False) -> None:
        self.path = path
        self._read_only = read_only
        self._components = tuple(components)
        self._writer: _Worker | None = None
        self._reader: _Worker | None = None
        self._listeners: list[Callable[[], None]] = []

    async def __aenter__(self) -> Self:
        writing, reading = await asyncio.to_thread(self._open)
        if writing is not None:
            self._writer = _Worker(self.path, writing, self._after_commit, writes=True)
        self._reader = _Worker(self.path, reading, lambda: None, writes=False)
        return self

    def _open(self) -> tuple[sqlite3.Connection | None, sqlite3.Connection]:
        try:
            if self._read_only:
                reading = connect(self.path, read_only=True)
                require(reading, self.path, self._components)
                return None, reading
            self.path.parent.mkdir(parents=True, exist_ok=True)
            writing = connect(self.path)
            migrate(writing, self.path, self._components)
            return writing, connect(self.path, read_only=True)
        except sqlite3.Error as error:
            raise named(error, self.path) from error

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        workers = [worker for worker in (self._reader, self._writer) if worker is not None]
        self._writer = self._reader = None
        for worker in workers:  # what waits is still written, then the thread ends
            await asyncio.shield(asyncio.to_thread(worker.close))

    def on_commit(self, listener: Callable[[], None]) -> None:
        """Call `listener` on the writer's thread after every commit; it must be quick and not raise."""
        self._listeners.append(listener)

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a transaction; its result after the commit.

        What `work` raises is raised here and only its own effects are undone. Cancelling the caller does not take the
        write back. Raises StoreUnavailable when the commit fails.
        """
        return await self._run(self._writer, work)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on a read-only connection: all that it reads is of the last commit, also in several queries."""
        return await self._run(self._reader, work)

    async def _run(self, worker: "_Worker | None", work: Callable[[sqlite3.Connection], T]) -> T:
        if worker is None:
            raise StoreUnavailable(f"{self.path} is not open{' for writing' if self._reader else ''}")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        worker.put(_Job(work, future, loop))
        return await asyncio.shield(future)

    def _after_commit(self) -> None:
        for listener in self._listeners:
            listener()


class _Job:
    __slots__ = ("future", "loop", "work")

    def __init__(self, work: Work, future: "asyncio.Future[Any]", loop: asyncio.AbstractEventLoop) -> None:
        self.work = work
        self.future = future
        self.loop = loop

    def set(self, value: Any, error: BaseException | None) -> None:
        """On the caller's loop."""
        if self.future.done():
            return
        if error is None:
            self.future.set_result(value)
        else:
            self.future.set_exception(error)
            self.future.exception()  # a caller that was cancelled does not fetch it


_Result = tuple[_Job, Any, BaseException | None]


def _tell(results: list[_Result]) -> None:
    """Wake every loop once for all of its results."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Result]] = {}
    for result in results:
        by_loop.setdefault(result[0].loop, []).append(result)
    for loop, told in by_loop.items():
        try:
            loop.call_soon_threadsafe(_set_all, told)
        except RuntimeError:  # the callers' loop is closed: nobody is left to be told
            pass


def _set_all(results: list[_Result]) -> None:
    for job, value, error in results:
        job.set(value, error)


class _Worker:
    """A thread that owns one connection."""

    def __init__(self, path: Path, connection: sqlite3.Connection, done: Callable[[], None], *, writes: bool) -> None:
        self._path = path
        self._connection = connection
        self._done = done
        self._jobs: Queue[_Job | None] = Queue(QUEUE)
        name, target = ("writer", self._write_all) if writes else ("reader", self._read_all)
        self._thread = threading.Thread(target=target, name=f"store-{name}-{path.name}", daemon=True)
        self._thread.start()

    def put(self, job: _Job) -> None:
        try:
            self._jobs.put_nowait(job)
        except Full:
            raise StoreUnavailable(f"{self._path}: {QUEUE} operations wait already; slow down and try again") from None

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join()
        self._connection.close()

    def _read_all(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self._connection.execute("BEGIN")  # what it reads is all of one commit
                value = job.work(self._connection)
            except BaseException as error:
                _tell([(job, None, self._failure(error))])
            else:
                _tell([(job, value, None)])
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def _write_all(self) -> None:
        last = False
        while not last:
            job = self._jobs.get()
            group: list[_Job] = []
            while job is not None:
                group.append(job)
                if len(group) == GROUP or self._jobs.empty():
                    break
                job = self._jobs.get()
            last = job is None
            if group:
                self._commit(group)

    def _commit(self, group: list[_Job]) -> None:
        connection = self._connection
        results: list[_Result] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in group:
                results.append((job, *self._attempt(job)))
            connection.execute("COMMIT")
        except (sqlite3.Error, StoreUnavailable) as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            failure = self._failure(error) if is_damage(error) else self._unwritten(error)
            results = [(job, None, failure) for job in group]
        else:
            self._done()
        _tell(results)

    def _attempt(self, job: _Job) -> tuple[Any, BaseException | None]:
        connection = self._connection
        connection.execute("SAVEPOINT job")
        try:
            value = job.work(connection)
        except BaseException as error:
            if not connection.in_transaction:  # a full disk ends the whole transaction, the others' writes with it
                raise StoreUnavailable(str(error)) from error
            connection.execute("ROLLBACK TO job")
            connection.execute("RELEASE job")
            if is_outside(error):
                return None, self._unwritten(error)
            return None, self._failure(error)
        connection.execute("RELEASE job")
        return value, None

    def _failure(self, error: BaseException) -> BaseException:
        """What the caller gets: where the file is damaged, with its name."""
        if not isinstance(error, sqlite3.Error):
            return error
        found = named(error, self._path)
        if found is not error:
            found.__cause__ = error
        return found

    def _unwritten(self, error: BaseException) -> StoreUnavailable:
        failure = StoreUnavailable(f"nothing was written to {self._path}: {error}")
        failure.__cause__ = error
        return failure
