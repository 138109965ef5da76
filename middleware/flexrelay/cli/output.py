"""How commands answer: people read tables, scripts read JSON and exit codes.

Exit codes: 0 done; 1 a check failed (`verify`), or what is stored is damaged; 2 the call, its input or the
configuration is wrong; 3 a contract refused; 4 the data folder, its keys or the ledger cannot be used now;
130 interrupted.
"""

import json
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flexrelay.commissioning.errors import CommissioningError
from flexrelay.config import ConfigError
from flexrelay.custody import NoCustody
from flexrelay.identity import KeyFileError, WalletError
from flexrelay.journal import JournalCorrupt, JournalUnavailable
from flexrelay.ledger.embedded import LedgerCorrupt
from flexrelay.ledger.port import LedgerError, Misconfigured
from flexrelay.market.desk import IntentExpired
from flexrelay.store import Damaged, MigrationError, StoreUnavailable, is_damage
from flexrelay.windows import Erased, NoProof, Tampered
from flexrelay_contracts.refusal import Refused
from flexrelay_sdk import SinkUnavailable

CHECK_FAILED = 1
BAD_INPUT = 2
REFUSED = 3
UNAVAILABLE = 4
INTERRUPTED = 130

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of tables.")]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def show(value: Any, as_json: bool, render: Callable[[], None]) -> None:
    """Print `value` as JSON, or let `render` print it for people."""
    if as_json:
        sys.stdout.write(json.dumps(value, indent=2, sort_keys=False, ensure_ascii=False) + "\n")
        sys.stdout.flush()  # here a full disk can be told; at the program's end nobody is left to tell it
    else:
        render()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; numbers are right-aligned. Cells are shown as they are: devices and senders write some of them."""
    view = Table(title=Text(title), title_justify="left")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int) for row in rows)
        view.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        view.add_row(
            *(Text(f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)) for cell in row)
        )
    out.print(view)


def fail(message: str, code: int, as_json: bool = False, details: Mapping[str, Any] | None = None) -> NoReturn:
    """Say what is wrong on standard error (as JSON on standard output too when asked) and leave with `code`."""
    if as_json:
        sys.stdout.write(json.dumps({"error": {"message": message, **(details or {})}}, ensure_ascii=False) + "\n")
    err.print(f"flexrelay: {message}", style="bold red", markup=False, soft_wrap=True)
    raise typer.Exit(code)


@contextmanager
def explained(as_json: bool = False) -> Iterator[None]:
    """Turn the failures that a user can do something about into a message and an exit code."""
    try:
        yield
    except (Exception, ExceptionGroup) as error:
        explain(error, as_json)


def explain(error: Exception, as_json: bool = False) -> NoReturn:
    """Leave with the message and the exit code of a known failure; raise an unknown one again."""
    while isinstance(error, ExceptionGroup):  # the first cause; the others followed from it or are like it
        error = error.exceptions[0]
    if isinstance(error, Refused):
        fail(str(error), REFUSED, as_json, error.to_json())
    for kinds, code in _CODES:
        if isinstance(error, kinds):
            fail(str(error), code, as_json)
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.ProgrammingError):
        fail(f"a database of the data folder: {error}", CHECK_FAILED if is_damage(error) else UNAVAILABLE, as_json)
    if isinstance(error, UnicodeDecodeError):  # out of SQLite: a text that is no text any more
        fail(f"a database of the data folder is damaged: {error}", CHECK_FAILED, as_json)
    raise error


_CODES: Final[tuple[tuple[tuple[type[Exception], ...], int], ...]] = (
    ((JournalCorrupt, LedgerCorrupt, Damaged, Tampered, Erased), CHECK_FAILED),
    ((ConfigError, Misconfigured, CommissioningError, NoCustody), BAD_INPUT),
    ((LedgerError, JournalUnavailable, StoreUnavailable, MigrationError), UNAVAILABLE),
    ((WalletError, KeyFileError, IntentExpired, NoProof), UNAVAILABLE),
    ((OSError, SinkUnavailable), UNAVAILABLE),
)
