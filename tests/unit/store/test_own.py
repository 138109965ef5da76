"""Databases belong to their owner, whatever the umask: readings and salts are personal data."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from flexrelay.journal import SqliteJournal
from flexrelay.ledger.embedded.private import PrivateValues
from flexrelay.ledger.embedded.state import State
from flexrelay.outbox import OUTBOX
from flexrelay.store import Store
from flexrelay.windows import Vault


@pytest.fixture(autouse=True)
def _open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


async def test_nobody_else_reads_them(tmp_path: Path) -> None:
    private, state = PrivateValues(tmp_path / "private.db"), State(tmp_path / "state.db")
    async with SqliteJournal(tmp_path / "journal.db"), Store(tmp_path / "store.db", [OUTBOX]):
        with Vault(tmp_path / "vault.db"):
            found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("*.db*")}
    private.close()
    state.close()
    assert {"journal.db", "store.db", "vault.db", "private.db", "state.db", "store.db-wal"} <= set(found)
    assert {name: mode for name, mode in found.items() if mode & 0o077 and not name.endswith(".lock")} == {}
