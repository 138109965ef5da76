"""The input of an onboarding: a CSV file with a header, or JSON lines, as rows of text by column.

CSV is UTF-8 (a byte order mark is passed over) with commas; JSON lines are one object a line, told by the file's name
(`.jsonl`, `.ndjson`). Nothing of the network is looked at here.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flexrelay.commissioning.errors import CommissioningError
from flexrelay.commissioning.onboarding.problem import Problem

COLUMNS: Final = (
    "name",
    "kind",
    "org",
    "controller",
    "protocol",
    "credential",
    "receivers",
    "unsigned",
    "key",
    "claim",
    "bootstrap",
    "bootstrap_key",
)
REQUIRED: Final = ("name", "kind")
MAX_BYTES: Final = 64 * 1024 * 1024
MAX_ROWS: Final = 100_000
MAX_FIELD: Final = 4096
_LIST: Final = " "


@dataclass(frozen=True, slots=True)
class Row:
    """One device as it was written; `line` is where its row begins, counted from 1. Absent columns are empty."""

    line: int
    values: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.values.get(column, "")


@dataclass(frozen=True, slots=True)
class Table:
    """What could be read, and what could not."""

    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]


def read_table(path: Path) -> Table:
    """Raises CommissioningError when the file cannot be read at all."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CommissioningError(f"{path} has more than {MAX_BYTES >> 20} MiB: divide it")
        data = path.read_bytes()
    except OSError as error:
        raise CommissioningError(f"{path}: {error.strerror}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CommissioningError(f"{path}, line {line}: not UTF-8; save it as CSV in UTF-8") from None
    return _json_lines(text) if path.suffix in (".jsonl", ".ndjson") else _csv(text, path)


def _csv(text: str, path: Path) -> Table:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise CommissioningError(f"{path}, line 1: {error}") from None
    _check_header(header, path)
    rows: list[Row] = []
    problems: list[Problem] = []
    begins = reader.line_num + 1
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:  # what follows cannot be told apart
            problems.append(Problem(begins, "", str(error)))
            break
        if fields is None:
            break
        line, begins = begins, reader.line_num + 1
        if not any(field.strip() for field in fields):
            continue
        if len(fields) != len(header):
            problems.append(Problem(line, "", f"{len(fields)} fields, the header has {len(header)}"))
            continue
        values = {column: field.strip() for column, field in zip(header, fields, strict=True)}
        _take(Row(line, values), rows, problems)
    return Table(tuple(rows), tuple(problems))


def _check_header(header: list[str], path: Path) -> None:
    unknown = [name for name in header if name not in COLUMNS]
    if unknown:
        told = ", ".join(repr(name) for name in unknown)
        raise CommissioningError(f"{path}, line 1: unknown column {told}; there are {', '.join(COLUMNS)}")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise CommissioningError(f"{path}, line 1: column {', '.join(twice)} stands twice")
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise CommissioningError(f"{path}, line 1: column {', '.join(missing)} is missing")


def _json_lines(text: str) -> Table:
    rows: list[Row] = []
    problems: list[Problem] = []
    for line, content in enumerate(text.split("\n"), 1):
        if content.strip():
            _take_json(line, content, rows, problems)
    return Table(tuple(rows), tuple(problems))


def _take_json(line: int, content: str, rows: list[Row], problems: list[Problem]) -> None:
    try:
        value = json.loads(content, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        problems.append(Problem(line, "", f"not JSON: {error}"))
        return
    if not isinstance(value, dict):
        problems.append(Problem(line, "", "not a JSON object"))
        return
    values: dict[str, str] = {}
    before = len(problems)
    for column, given in value.items():
        if column not in COLUMNS:
            problems.append(Problem(line, column[:40], f"unknown column; there are {', '.join(COLUMNS)}"))
        elif isinstance(given, bool) and column == "unsigned":
            values[column] = "yes" if given else "no"
        elif isinstance(given, str):
            values[column] = given.strip()
        elif column == "receivers" and isinstance(given, list) and all(isinstance(each, str) for each in given):
            values[column] = _LIST.join(given)
        else:
            problems.append(Problem(line, column, "not a text"))
    if len(problems) == before:
        _take(Row(line, values), rows, problems)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return found


def _take(row: Row, rows: list[Row], problems: list[Problem]) -> None:
    if len(rows) >= MAX_ROWS:
        raise CommissioningError(f"more than {MAX_ROWS:,} rows: divide the file")
    before = len(problems)
    problems += _unfit(row)
    if len(problems) == before:
        rows.append(row)


def _unfit(row: Row) -> Iterator[Problem]:
    for column, value in row.values.items():
        if len(value) > MAX_FIELD:
            yield Problem(row.line, column, f"longer than {MAX_FIELD} characters")
        elif not value.isprintable():
            yield Problem(row.line, column, f"holds a control character: {value[:40]!r}")
    for column in REQUIRED:
        if not row[column]:
            yield Problem(row.line, column, "is missing")
