"""Segments that were decoded a moment ago: several consumers read the same ones one after the other."""

from collections import OrderedDict
from typing import Final

from flexrelay.journal.port import Entry

ENTRIES: Final = 12_000
"""Entries that are held at most (one segment goes over it)."""

BYTES: Final = 16 * 1024 * 1024
"""Bytes of their segments that are held at most (one segment goes over it)."""


Name = tuple[int, int, bytes]
"""First and last position, and the hash: what is held is what stands in the file."""


class Decoded:
    """The segments that were read last. For one thread."""

    def __init__(self) -> None:
        self._segments: OrderedDict[Name, tuple[list[Entry], int]] = OrderedDict()
        self._entries = 0
        self._bytes = 0

    def get(self, name: Name) -> list[Entry] | None:
        found = self._segments.get(name)
        return None if found is None else found[0]

    def keep(self, name: Name, entries: list[Entry], size: int) -> None:
        """`size` is the segment's in bytes. The list is shared: nobody changes it."""
        self._segments[name] = (entries, size)
        self._entries += len(entries)
        self._bytes += size
        while len(self._segments) > 1 and (self._entries > ENTRIES or self._bytes > BYTES):
            _, (dropped, its_size) = self._segments.popitem(last=False)
            self._entries -= len(dropped)
            self._bytes -= its_size
