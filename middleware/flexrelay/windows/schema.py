"""The tables of windows: leaves, window revisions, anchors. They can be rebuilt from the journal and the vault."""

from typing import Final

from flexrelay.store import Component, Migration

WINDOWS: Final = Component(
    "windows",
    (
        Migration(
            1,
            "leaves, revisions, anchors",
            (
                "CREATE TABLE window_device (id INTEGER PRIMARY KEY, did TEXT NOT NULL UNIQUE) STRICT",
                """CREATE TABLE window_leaf (
                    device INTEGER NOT NULL, observed_at INTEGER NOT NULL, position INTEGER NOT NULL,
                    since INTEGER NOT NULL DEFAULT 0, hash BLOB NOT NULL,
                    PRIMARY KEY (device, observed_at)) STRICT, WITHOUT ROWID""",
                "CREATE INDEX window_leaf_open ON window_leaf (observed_at) WHERE since = 0",
                """CREATE TABLE window_revision (
                    device INTEGER NOT NULL, end_ms INTEGER NOT NULL, revision INTEGER NOT NULL,
                    start_ms INTEGER NOT NULL, document TEXT NOT NULL, leaf BLOB NOT NULL, leaves INTEGER NOT NULL,
                    first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, anchor TEXT, anchor_index INTEGER,
                    PRIMARY KEY (device, end_ms, revision)) STRICT, WITHOUT ROWID""",
                "CREATE INDEX window_revision_open ON window_revision (end_ms) WHERE anchor IS NULL",
                "CREATE INDEX window_revision_anchor ON window_revision (anchor, anchor_index)",
                """CREATE TABLE window_anchor (
                    id TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE, root TEXT NOT NULL, windows INTEGER NOT NULL,
                    leaves INTEGER NOT NULL, first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL,
                    made_at INTEGER NOT NULL, handed INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID""",
                """CREATE TABLE window_position (
                    id INTEGER PRIMARY KEY CHECK (id = 1), position INTEGER NOT NULL) STRICT""",
                "INSERT INTO window_position VALUES (1, 0)",
            ),
        ),
    ),
)
