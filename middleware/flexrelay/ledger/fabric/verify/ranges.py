"""Whether a range that a transaction has read is still what it was: keys and versions, or Fabric's digest of them.

A peer notes up to 50 entries as they are. Of more it notes a tree of hashes: each leaf over 51 entries (the last one
over what is left), each level's nodes combined as soon as there are 51 of them; the highest level is kept.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

from flexrelay.ledger.fabric.messages import QueryReads, QueryReadsMerkleSummary

Version = tuple[int, int]


def unchanged(info: Any, entries: Iterable[tuple[str, Version]]) -> bool:
    """Whether a RangeQueryInfo is true of the entries that its range has now."""
    if info.HasField("reads_merkle_hashes"):
        return bool(summary(entries, info.reads_merkle_hashes.max_degree) == info.reads_merkle_hashes)
    noted = [(item.key, (item.version.block_num, item.version.tx_num)) for item in info.raw_reads.kv_reads]
    return noted == list(entries)


def summary(entries: Iterable[tuple[str, Version]], degree: int) -> Any:
    """The QueryReadsMerkleSummary of the entries; None when there are too few for one, or the degree is none."""
    if degree < 2:
        return None
    levels: dict[int, list[bytes]] = {1: []}
    pending: list[tuple[str, Version]] = []
    for entry in entries:
        pending.append(entry)
        if len(pending) > degree:
            _add(levels, _leaf(pending), degree)
            pending = []
    if not levels[1] and len(levels) == 1:
        return None
    if pending:
        _add(levels, _leaf(pending), degree)
    _close(levels, degree)
    top = max(levels)
    return QueryReadsMerkleSummary(max_degree=degree, max_level=top, max_level_hashes=levels[top])


def _leaf(entries: Iterable[tuple[str, Version]]) -> bytes:
    reads = [{"key": key, "version": {"block_num": block, "tx_num": tx}} for key, (block, tx) in entries]
    return hashlib.sha256(QueryReads(kv_reads=reads).SerializeToString(deterministic=True)).digest()


def _add(levels: dict[int, list[bytes]], leaf: bytes, degree: int) -> None:
    levels[1].append(leaf)
    level = 1
    while len(levels[level]) > degree:
        combined = _combined(levels[level])
        levels[level] = []
        level += 1
        levels.setdefault(level, []).append(combined)


def _close(levels: dict[int, list[bytes]], degree: int) -> None:
    """Bring what waits on lower levels up to the highest one."""
    top = max(levels)
    for level in range(1, top):
        waiting = levels[level]
        if waiting:
            levels[level] = []
            levels[level + 1].append(waiting[0] if len(waiting) == 1 else _combined(waiting))
    if len(levels[top]) > degree:
        levels[top + 1] = [_combined(levels[top])]


def _combined(hashes: Iterable[bytes]) -> bytes:
    return hashlib.sha256(b"".join(hashes)).digest()
