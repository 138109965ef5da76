"""What commands answer with when something is wrong: the message, and the exit code that scripts use."""

import json
import sqlite3

import pytest
import typer

from flexrelay.cli.output import explain
from flexrelay.commissioning import CommissioningError
from flexrelay.config import ConfigError
from flexrelay.custody import NoCustody
from flexrelay.identity import KeyFileError, WalletError
from flexrelay.journal import JournalCorrupt, JournalUnavailable
from flexrelay.ledger.embedded import LedgerCorrupt, LedgerLocked
from flexrelay.store import MigrationError, StoreUnavailable
from flexrelay.windows import Tampered
from flexrelay_contracts.refusal import Refused


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (JournalCorrupt("what"), 1),
        (LedgerCorrupt("what", 3, 17), 1),
        (Tampered("what"), 1),
        (ConfigError("what"), 2),
        (CommissioningError("what"), 2),
        (NoCustody("what"), 2),
        (Refused("code", "what", "field"), 3),
        (LedgerLocked("what"), 4),
        (JournalUnavailable("what"), 4),
        (StoreUnavailable("what"), 4),
        (MigrationError("what"), 4),
        (WalletError("what"), 4),
        (KeyFileError("what"), 4),
        (PermissionError("what"), 4),
        (sqlite3.OperationalError("what"), 4),
        (ExceptionGroup("tasks", [ExceptionGroup("more", [JournalCorrupt("what")]), ValueError("other")]), 1),
    ],
)
def test_known_failures(error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as left:
        explain(error, as_json=True)
    assert left.value.exit_code == code
    printed = capsys.readouterr()
    assert "what" in json.loads(printed.out)["error"]["message"]
    assert printed.err.startswith("flexrelay: ")


def test_a_refusal_carries_its_code_and_field(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        explain(Refused("not_granted", "no such role", "subject"), as_json=True)
    answer = json.loads(capsys.readouterr().out)["error"]
    assert (answer["code"], answer["field"]) == ("not_granted", "subject")


@pytest.mark.parametrize("error", [ZeroDivisionError("bug"), ValueError("bug"), sqlite3.ProgrammingError("bug")])
def test_bugs_stay_tracebacks(error: Exception) -> None:
    with pytest.raises(type(error)):
        explain(error)
