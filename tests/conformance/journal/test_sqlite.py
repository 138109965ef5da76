"""The embedded journal keeps what every journal promises."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from conformance.journal.contract import JournalContract

from flexrelay.journal import SqliteJournal


class TestSqliteJournal(JournalContract):
    def open(self, folder: Path) -> AbstractAsyncContextManager[Any]:
        return SqliteJournal(folder / "journal.db")
