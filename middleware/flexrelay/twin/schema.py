"""The twin's tables: readings by device and instant, the newest entity of each device, declared exchanges."""

from typing import Final

from flexrelay.journal.registers import NAMES
from flexrelay.store import Component, Migration

_REGISTERS: Final = ", ".join(f"{name} INTEGER" for name in NAMES)

TWIN: Final = Component(
    "twin",
    (
        Migration(
            1,
            "readings, entities, exchanges",
            (
                "CREATE TABLE twin_device (id INTEGER PRIMARY KEY, did TEXT NOT NULL UNIQUE) STRICT",
                f"""CREATE TABLE twin_reading (
                    device INTEGER NOT NULL, observed_at INTEGER NOT NULL, position INTEGER NOT NULL,
                    seq INTEGER NOT NULL, provenance INTEGER NOT NULL, notice INTEGER NOT NULL, {_REGISTERS},
                    PRIMARY KEY (device, observed_at)) STRICT, WITHOUT ROWID""",
                """CREATE TABLE twin_entity (
                    device INTEGER PRIMARY KEY, observed_at INTEGER NOT NULL, entity TEXT NOT NULL) STRICT""",
                """CREATE TABLE twin_exchange (
                    did TEXT NOT NULL, at INTEGER NOT NULL, import_final INTEGER NOT NULL,
                    import_initial INTEGER NOT NULL, export_final INTEGER NOT NULL, export_initial INTEGER NOT NULL,
                    PRIMARY KEY (did, at)) STRICT, WITHOUT ROWID""",
                "CREATE TABLE twin_position (id INTEGER PRIMARY KEY CHECK (id = 1), position INTEGER NOT NULL) STRICT",
                "INSERT INTO twin_position VALUES (1, 0)",
            ),
        ),
    ),
)
