"""How commands answer: people read tables, scripts read JSON and exit codes.

Exit codes: 0 done; 1 a check failed (`verify`, a test of custody); 2 the call or its input is wrong; 3 a contract
refused; 4 the data folder or the ledger cannot be used now.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from flexrelay.config import ConfigError
from flexrelay.ledger.port import LedgerError
from flexrelay_contracts.refusal import Refused

CHECK_FAILED = 1
BAD_INPUT = 2
REFUSED = 3
UNAVAILABLE = 4

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of tables.")]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def show(value: Any, as_json: bool, render: Callable[[], None]) -> None:
    """Print `value` as JSON, or let `render` print it for people."""
    if as_json:
        sys.stdout.write(json.dumps(value, indent=2, sort_keys=False, ensure_ascii=False) + "\n")
    else:
        render()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; numbers are right-aligned."""
    view = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int) for row in rows)
        view.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        view.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    out.print(view)


def fail(message: str, code: int, as_json: bool = False, details: Mapping[str, Any] | None = None) -> NoReturn:
    """Say what is wrong on standard error (as JSON on standard output too when asked) and leave with `code`."""
    if as_json:
        sys.stdout.write(json.dumps({"error": {"message": message, **(details or {})}}, ensure_ascii=False) + "\n")
    err.print(f"flexrelay: {message}", style="bold red", markup=False)
    raise typer.Exit(code)


@contextmanager
def explained(as_json: bool = False) -> Iterator[None]:
    """Turn the failures that a user can do something about into a message and an exit code."""
    try:
        yield
    except Refused as refused:
        fail(str(refused), REFUSED, as_json, refused.to_json())
    except ConfigError as error:
        fail(str(error), BAD_INPUT, as_json)
    except LedgerError as error:
        fail(str(error), UNAVAILABLE, as_json)
    except BlockingIOError as error:
        fail(str(error), UNAVAILABLE, as_json)
