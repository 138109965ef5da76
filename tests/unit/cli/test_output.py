"""What commands answer with when something is wrong: the message, and the exit code that scripts use."""

import json
import sqlite3
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import typer
from support.pilot import flexrelay

from flexrelay.cli import main
from flexrelay.cli.main import app
from flexrelay.cli.output import explain, show
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


def test_an_answer_that_cannot_be_written_is_no_failed_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["flexrelay", "--version"])
    full = Path("/dev/full").open("w")  # noqa: SIM115 - closing it fails, too
    monkeypatch.setattr(sys, "stdout", full)
    with pytest.raises(SystemExit) as left:
        main()
    with pytest.raises(OSError, match="No space left"):
        show({"verified": True}, True, lambda: None)
    with suppress(OSError):
        full.close()
    assert left.value.code == 4
    assert capsys.readouterr().err == "flexrelay: [Errno 28] No space left on device\n"


def test_an_interruption_before_the_command_has_begun_shows_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(app), "__call__", lambda self: interrupted())
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 130


@pytest.mark.parametrize("text", ["[" * 100_000, "no card"])
def test_a_card_that_is_none(tmp_path: Path, text: str) -> None:
    card = tmp_path / "card.json"
    card.write_text(text)
    assert flexrelay("gateway", "register", tmp_path, card).exit_code == 2
