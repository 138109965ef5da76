"""The journal: every accepted frame, on disk before its device is told; the refused ones beside it."""

from flexrelay.journal.letters import LetterBounds
from flexrelay.journal.port import (
    PARTITIONS,
    DeadLetter,
    DeadLetterCount,
    DeadLetters,
    Entry,
    Journal,
    JournalCorrupt,
    JournalLocked,
    JournalUnavailable,
)
from flexrelay.journal.sqlite import SqliteJournal

__all__ = [
    "DeadLetter",
    "DeadLetterCount",
    "DeadLetters",
    "Entry",
    "Journal",
    "JournalCorrupt",
    "JournalLocked",
    "JournalUnavailable",
    "LetterBounds",
    "PARTITIONS",
    "SqliteJournal",
]
