"""The projections' tables: what the ledger's events tell, in a form that can be asked. All can be rebuilt from zero."""

from typing import Final

from flexrelay.store import Component, Migration

TABLES: Final = {
    "projection_checkpoint": ("tenant",),
    "event": ("tenant", "sequence"),
    "identity": ("tenant", "did"),
    "role_grant": ("tenant", "subject", "role", "issuer"),
    "document": ("tenant", "kind", "id"),
    "posting": ("tenant", "sequence", "line"),
    "balance": ("tenant", "account"),
}
"""Every table with its key: what a dump orders by and a rebuild empties."""

PROJECTIONS: Final = Component(
    "projections",
    (
        Migration(
            1,
            "events and what they tell",
            (
                "CREATE TABLE projection_checkpoint (tenant TEXT PRIMARY KEY, block INTEGER NOT NULL, "
                "tx_id TEXT NOT NULL, sequence INTEGER NOT NULL) STRICT, WITHOUT ROWID",
                "CREATE TABLE event (tenant TEXT NOT NULL, sequence INTEGER NOT NULL, block INTEGER NOT NULL, "
                "tx_id TEXT NOT NULL, at INTEGER NOT NULL, name TEXT NOT NULL, payload BLOB NOT NULL, "
                "PRIMARY KEY (tenant, sequence)) STRICT, WITHOUT ROWID",
                "CREATE INDEX event_name ON event (tenant, name, sequence)",
                "CREATE INDEX event_tx ON event (tenant, tx_id)",
                "CREATE TABLE identity (tenant TEXT NOT NULL, did TEXT NOT NULL, kind TEXT NOT NULL, "
                "controller TEXT NOT NULL, org TEXT NOT NULL, version INTEGER NOT NULL, key TEXT NOT NULL, "
                "status TEXT NOT NULL, block INTEGER NOT NULL, PRIMARY KEY (tenant, did)) STRICT, WITHOUT ROWID",
                "CREATE TABLE role_grant (tenant TEXT NOT NULL, subject TEXT NOT NULL, role TEXT NOT NULL, "
                "issuer TEXT NOT NULL, markets TEXT NOT NULL, status TEXT NOT NULL, block INTEGER NOT NULL, "
                "PRIMARY KEY (tenant, subject, role, issuer)) STRICT, WITHOUT ROWID",
                "CREATE TABLE document (tenant TEXT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL, "
                "status TEXT NOT NULL, body TEXT NOT NULL, first_block INTEGER NOT NULL, first_tx TEXT NOT NULL, "
                "block INTEGER NOT NULL, tx_id TEXT NOT NULL, at INTEGER NOT NULL, "
                "PRIMARY KEY (tenant, kind, id)) STRICT, WITHOUT ROWID",
                "CREATE TABLE posting (tenant TEXT NOT NULL, sequence INTEGER NOT NULL, line INTEGER NOT NULL, "
                "product TEXT NOT NULL, debit TEXT NOT NULL, credit TEXT NOT NULL, micro_eur INTEGER NOT NULL, "
                "reason TEXT NOT NULL, ref TEXT NOT NULL, "
                "PRIMARY KEY (tenant, sequence, line)) STRICT, WITHOUT ROWID",
                "CREATE INDEX posting_ref ON posting (tenant, ref)",
                "CREATE TABLE balance (tenant TEXT NOT NULL, account TEXT NOT NULL, micro_eur INTEGER NOT NULL, "
                "PRIMARY KEY (tenant, account)) STRICT, WITHOUT ROWID",
            ),
        ),
    ),
)
