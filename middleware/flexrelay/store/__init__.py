"""The gateway's store: one SQLite file (WAL, `synchronous=FULL`) with forward-only migrations.

Outbox, projections and dispatch keep their tables here as components. Every key of every table begins with the tenant.
"""

from flexrelay.store.damage import Damaged, is_damage, is_outside, named
from flexrelay.store.database import Store, StoreUnavailable, connect, own
from flexrelay.store.migrations import Component, Migration, MigrationError, migrate, require
from flexrelay.store.rows import insert_rows

__all__ = [
    "Component",
    "Damaged",
    "Migration",
    "MigrationError",
    "Store",
    "StoreUnavailable",
    "connect",
    "insert_rows",
    "is_damage",
    "is_outside",
    "migrate",
    "named",
    "own",
    "require",
]
