"""The outbox's tables. `open` is 1 until the entry is terminal; partial indexes keep the open ones cheap to find."""

from typing import Final

from flexrelay.store import Component, Migration

_ENTRY = """CREATE TABLE outbox_entry (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    actor TEXT NOT NULL,
    intent_id TEXT NOT NULL,
    function TEXT NOT NULL,
    intent BLOB NOT NULL,
    transient TEXT NOT NULL,
    endorsing_orgs TEXT NOT NULL,
    ordering_key TEXT NOT NULL,
    correlation_id TEXT NOT NULL,
    deadline INTEGER NOT NULL,
    gate INTEGER,
    state TEXT NOT NULL,
    open INTEGER NOT NULL,
    tx_id TEXT NOT NULL DEFAULT '',
    block INTEGER,
    result TEXT,
    code TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT '',
    field TEXT NOT NULL DEFAULT '',
    added_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    UNIQUE (tenant, actor, intent_id)) STRICT"""

_TRANSACTION = """CREATE TABLE outbox_transaction (
    tenant TEXT NOT NULL,
    tx_id TEXT NOT NULL,
    entry INTEGER NOT NULL REFERENCES outbox_entry (id) ON DELETE CASCADE,
    role TEXT NOT NULL CHECK (role IN ('intent', 'void')),
    envelope BLOB NOT NULL,
    result TEXT NOT NULL,
    prepared_at INTEGER NOT NULL,
    validation TEXT NOT NULL DEFAULT '',
    block INTEGER,
    PRIMARY KEY (tenant, tx_id)) STRICT, WITHOUT ROWID"""

_TRANSITION = """CREATE TABLE outbox_transition (
    tenant TEXT NOT NULL,
    entry INTEGER NOT NULL REFERENCES outbox_entry (id) ON DELETE CASCADE,
    n INTEGER NOT NULL,
    at INTEGER NOT NULL,
    state TEXT NOT NULL,
    tx_id TEXT NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (tenant, entry, n)) STRICT, WITHOUT ROWID"""

_CHECKPOINT = """CREATE TABLE outbox_checkpoint (
    tenant TEXT PRIMARY KEY, block INTEGER NOT NULL, tx_id TEXT NOT NULL) STRICT, WITHOUT ROWID"""

OUTBOX: Final = Component(
    "outbox",
    (
        Migration(
            1,
            "entries, their transactions and transitions",
            (
                _ENTRY,
                "CREATE INDEX outbox_open ON outbox_entry (tenant, id) WHERE open = 1",
                "CREATE INDEX outbox_done ON outbox_entry (tenant, changed_at) WHERE open = 0",
                "CREATE INDEX outbox_correlation ON outbox_entry (tenant, correlation_id)",
                _TRANSACTION,
                "CREATE INDEX outbox_transaction_entry ON outbox_transaction (tenant, entry)",
                _TRANSITION,
                _CHECKPOINT,
            ),
        ),
        Migration(
            2,
            "expired entries are found without reading all",
            ("CREATE INDEX outbox_expired ON outbox_entry (tenant, function) WHERE state = 'expired'",),
        ),
    ),
)
