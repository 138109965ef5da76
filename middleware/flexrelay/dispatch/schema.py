"""The dispatch tables: orders taken on, their commands, whose telemetry proves delivery, and the readings that do."""

from typing import Final

from flexrelay.store import Component, Migration

DISPATCH: Final = Component(
    "dispatch",
    (
        Migration(
            1,
            "orders, commands, evidence",
            (
                "CREATE TABLE dispatch_order (tenant TEXT NOT NULL, order_id TEXT NOT NULL, body TEXT NOT NULL, "
                "accepted_at INTEGER NOT NULL, PRIMARY KEY (tenant, order_id)) STRICT, WITHOUT ROWID",
                "CREATE TABLE dispatch_command (tenant TEXT NOT NULL, command_id TEXT NOT NULL, "
                "order_id TEXT NOT NULL, did TEXT NOT NULL, credential TEXT NOT NULL, name TEXT NOT NULL, "
                "parameters TEXT NOT NULL, send_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, "
                "state TEXT NOT NULL, open INTEGER NOT NULL, detail TEXT NOT NULL, reported TEXT NOT NULL, "
                "PRIMARY KEY (tenant, command_id)) STRICT, WITHOUT ROWID",
                "CREATE INDEX dispatch_open ON dispatch_command (tenant, send_at) WHERE open = 1",
                "CREATE INDEX dispatch_by_order ON dispatch_command (tenant, order_id)",
                "CREATE TABLE dispatch_transition (tenant TEXT NOT NULL, command_id TEXT NOT NULL, "
                "n INTEGER NOT NULL, at INTEGER NOT NULL, state TEXT NOT NULL, detail TEXT NOT NULL, "
                "PRIMARY KEY (tenant, command_id, n)) STRICT, WITHOUT ROWID",
                "CREATE TABLE dispatch_watch (tenant TEXT NOT NULL, order_id TEXT NOT NULL, did TEXT NOT NULL, "
                "from_ms INTEGER NOT NULL, until_ms INTEGER NOT NULL, "
                "PRIMARY KEY (tenant, order_id, did)) STRICT, WITHOUT ROWID",
                "CREATE TABLE dispatch_reading (tenant TEXT NOT NULL, order_id TEXT NOT NULL, "
                "position INTEGER NOT NULL, did TEXT NOT NULL, observed_at INTEGER NOT NULL, "
                "PRIMARY KEY (tenant, order_id, position)) STRICT, WITHOUT ROWID",
                "CREATE TABLE dispatch_position (tenant TEXT PRIMARY KEY, position INTEGER NOT NULL) "
                "STRICT, WITHOUT ROWID",
            ),
        ),
        Migration(
            2,
            "confirmation by a reading",
            (
                "ALTER TABLE dispatch_command ADD COLUMN confirmed_position INTEGER",
                "ALTER TABLE dispatch_command ADD COLUMN confirmed_at INTEGER",
            ),
        ),
        Migration(
            3,
            "commands that the gateway has to end",
            (
                "ALTER TABLE dispatch_command ADD COLUMN end_at INTEGER",
                "CREATE INDEX dispatch_ends ON dispatch_command (tenant, end_at) WHERE end_at IS NOT NULL",
            ),
        ),
        Migration(
            4,
            "in which order a device's commands were sent",
            (
                "ALTER TABLE dispatch_command ADD COLUMN sent_n INTEGER",
                "CREATE INDEX dispatch_to_end ON dispatch_command (tenant, did, name) WHERE end_at IS NOT NULL",
                # sent by a program that kept no ends, and still ruling; where there is nothing to end, nothing is done
                "UPDATE dispatch_command SET end_at = expires_at WHERE end_at IS NULL AND state IN ('sent', 'acked') "
                "AND expires_at > 1000 * CAST(strftime('%s', 'now') AS INTEGER)",
            ),
        ),
    ),
)
