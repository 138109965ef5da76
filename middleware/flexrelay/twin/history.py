"""The twin's history as the register checks of ingest see it: synchronous, on a connection of its own."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from flexrelay.ingest.registers import HistoryUnavailable
from flexrelay.ingest.tail import Point
from flexrelay.journal.registers import NAMES, pack_registers
from flexrelay.store import connect, named
from flexrelay.twin.twin import Twin

_COLUMNS: Final = "observed_at, seq, " + ", ".join(NAMES)
_REGISTERS: Final = ("import_j", "export_j")


class TwinHistory:
    """See `ingest.History`. Close it, or use it as a context manager."""

    def __init__(self, twin: Twin, path: Path) -> None:
        """`path` is the store's file."""
        self._twin = twin
        self._path = path
        self._connection = connect(path, read_only=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    @property
    def position(self) -> int:
        return self._twin.position

    def newest(self, did: str, count: int) -> Sequence[Point]:
        return [_point(row) for row in self._select(did, "ORDER BY observed_at DESC LIMIT ?", count)][::-1]

    def nearest(self, did: str, instant: int, *, earlier: bool, register: int | None = None) -> Point | None:
        having = "" if register is None else f"AND {_REGISTERS[register]} IS NOT NULL "
        side = "observed_at <= ? ORDER BY observed_at DESC" if earlier else "observed_at > ? ORDER BY observed_at"
        rows = self._select(did, f"{having}AND {side} LIMIT 1", instant)
        return _point(rows[0]) if rows else None

    def exchanged(self, did: str, after: int, until: int) -> bool:
        return any(after < exchange.at <= until for exchange in self._twin.exchanges.get(did, ()))

    def _select(self, did: str, rest: str, value: int) -> list[Any]:
        number = self._twin.number(did)
        if number is None:
            return []
        query = f"SELECT {_COLUMNS} FROM twin_reading WHERE device = ? {rest}"  # noqa: S608
        try:
            return self._connection.execute(query, (number, value)).fetchall()
        except sqlite3.Error as error:
            raise HistoryUnavailable(f"the twin's history cannot be read: {named(error, self._path)}") from error


def _point(row: Sequence[Any]) -> Point:
    registers = {name: value for name, value in zip(NAMES, row[2:], strict=True) if value is not None}
    return Point(row[0], row[1], pack_registers(registers))
