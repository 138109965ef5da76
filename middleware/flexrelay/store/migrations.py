"""Numbered migrations of a SQLite file: forward only, a backup first, a newer file is refused.

One file holds the tables of several components; each keeps its own number in `schema_version`. Statements of one
migration run in one transaction, so a migration that fails leaves the file as it was.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

_VERSIONS = """CREATE TABLE IF NOT EXISTS schema_version (
    component TEXT NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL,
    PRIMARY KEY (component, number)) STRICT, WITHOUT ROWID"""


class MigrationError(Exception):
    """The file cannot be brought to this version; the message says which file, which component and what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step. `statements` are single SQL statements, run in order in one transaction."""

    number: int
    name: str
    statements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Component:
    """The tables of one part of the program; `migrations` are numbered 1, 2, 3, …"""

    name: str
    migrations: tuple[Migration, ...]

    def __post_init__(self) -> None:
        numbers = [migration.number for migration in self.migrations]
        if numbers != list(range(1, len(numbers) + 1)):
            raise ValueError(f"migrations of {self.name} must be numbered 1, 2, …; they are {numbers}")


def version(connection: sqlite3.Connection, component: str) -> int:
    """The number of the newest applied migration of a component; 0 when there is none."""
    query = "SELECT coalesce(max(number), 0) FROM schema_version WHERE component = ?"
    return int(connection.execute(query, (component,)).fetchone()[0])


def migrate(connection: sqlite3.Connection, path: Path, components: Sequence[Component]) -> Path | None:
    """Bring the file at `path`, open as `connection` (autocommit), to the newest migrations.

    Returns the backup's path when there was something to back up and to change. Raises MigrationError when the file
    was written by a newer program, or when a migration fails (that one is rolled back).
    """
    connection.execute(_VERSIONS)
    applied = {component.name: version(connection, component.name) for component in components}
    for component in components:
        if applied[component.name] > len(component.migrations):
            raise MigrationError(
                f"{path}: {component.name} is at migration {applied[component.name]}, this program knows "
                f"{len(component.migrations)}; run the newer program or restore a backup"
            )
    due = [(c, m) for c in components for m in c.migrations[applied[c.name] :]]
    if not due:
        return None
    backup = _back_up(connection, path, applied) if any(applied.values()) else None
    for component, migration in due:
        _apply(connection, path, component.name, migration, backup)
    return backup


def require(connection: sqlite3.Connection, path: Path, components: Sequence[Component]) -> None:
    """Raises MigrationError unless the file is at the newest migrations already; changes nothing."""
    for component in components:
        found = version(connection, component.name)
        if found != len(component.migrations):
            raise MigrationError(
                f"{path}: {component.name} is at migration {found}, this program knows {len(component.migrations)}; "
                "look at it with the version that runs on it"
            )


def _back_up(connection: sqlite3.Connection, path: Path, applied: dict[str, int]) -> Path:
    label = "-".join(f"{name}{number}" for name, number in sorted(applied.items()) if number)
    target = path.with_name(f"{path.name}.backup-{label}")
    if target.exists():  # an earlier attempt failed after its backup: that one is the older truth, keep it
        return target
    unfinished = target.with_name(target.name + ".part")
    unfinished.unlink(missing_ok=True)
    with closing(sqlite3.connect(unfinished)) as copy:
        connection.backup(copy)
    unfinished.rename(target)
    return target


def _apply(
    connection: sqlite3.Connection, path: Path, component: str, migration: Migration, backup: Path | None
) -> None:
    try:
        connection.execute("BEGIN IMMEDIATE")
        for statement in migration.statements:
            connection.execute(statement)
        row = (component, migration.number, migration.name)
        connection.execute("INSERT INTO schema_version (component, number, name) VALUES (?, ?, ?)", row)
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        kept = f"; the backup is {backup}" if backup else ""
        raise MigrationError(
            f"{path}: migration {migration.number} ({migration.name}) of {component} failed: {error}{kept}"
        ) from error
