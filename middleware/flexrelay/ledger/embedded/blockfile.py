"""The append-only block file: framed records, one fsync per block.

frame = "FXB1" ‖ number (u64) ‖ length (u32) ‖ CRC-32 of these 16 bytes ‖ payload ‖ CRC-32 of the payload

A frame that a crash has cut is the last one and nothing of it was ever acknowledged: it is cut off and reported. A
damaged frame with a whole one behind it, or one that the state already holds, is corruption and stops the ledger.
"""

import errno
import mmap
import os
import struct
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path

from flexrelay.ledger.embedded.errors import LedgerCorrupt
from flexrelay.ledger.port import LedgerUnavailable, OutcomeUnknown

MAGIC = b"FXB1"
_HEAD = struct.Struct(">4sQI")
_CRC = struct.Struct(">I")
OVERHEAD = _HEAD.size + 2 * _CRC.size
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class BlockFile:
    """The open file. `offsets[n]` is where block n begins, `end` where the next one goes, `cut` how many torn bytes
    were removed at opening. Appending and reading may happen in different threads."""

    def __init__(self, path: Path, *, applied: int) -> None:
        """Open or create, check every frame's CRC, cut a torn tail. `applied`: how many blocks the state holds.

        Raises LedgerCorrupt.
        """
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._failed = ""
        try:
            self.offsets, self.end, size = scan(self._fd)
            self.cut = size - self.end
            if self.cut:
                self._check_torn(applied)
                os.ftruncate(self._fd, self.end)
                os.fsync(self._fd)
            if applied > len(self.offsets):
                raise LedgerCorrupt(
                    f"the state holds {applied} blocks but {path.name} only {len(self.offsets)}: the file was cut "
                    "after its blocks were acknowledged; restore it from a copy",
                    len(self.offsets),
                    self.end,
                )
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def height(self) -> int:
        return len(self.offsets)

    def offset(self, number: int) -> int:
        return int(self.offsets[number])

    def append(self, payload: bytes) -> None:
        """Write one frame and fsync it. When it returns, the block is durable.

        Raises LedgerUnavailable (no space; nothing is left of the block, the ledger stays usable) or OutcomeUnknown
        (the device failed: the ledger must be opened again).
        """
        if self._failed:
            raise OutcomeUnknown(self._failed)
        frame = encode_frame(self.height, payload)
        try:
            _write_at(self._fd, frame, self.end)
            os.fdatasync(self._fd)
        except OSError as error:
            self._undo(error)
        self.offsets.append(self.end)
        self.end += len(frame)

    def read(self, number: int) -> bytes:
        """The payload of a block. Raises LedgerCorrupt, IndexError."""
        return payload_at(self._fd, self.offsets[number], number)

    def close(self) -> None:
        os.close(self._fd)

    def _undo(self, error: OSError) -> None:
        """Take back a failed append; always raises."""
        try:
            os.ftruncate(self._fd, self.end)
            os.fsync(self._fd)
        except OSError as second:
            self._failed = f"{self.path}: {second}; open the ledger again"
            raise OutcomeUnknown(self._failed) from error
        if error.errno in _FULL:
            raise LedgerUnavailable(
                f"no space for the next block in {self.path.parent} ({error.strerror}); nothing was written: "
                "free some space and submit again"
            ) from error
        self._failed = f"{self.path}: {error}; open the ledger again"
        raise OutcomeUnknown(self._failed) from error

    def _check_torn(self, applied: int) -> None:
        """The bytes after the last whole frame are a torn append, not damage."""
        number, offset = len(self.offsets), self.end
        if number < applied:
            raise LedgerCorrupt("a block that was acknowledged is damaged", number, offset)
        behind = _frame_behind(self._fd, offset + 1)
        if behind is not None:
            raise LedgerCorrupt(
                f"a block is damaged, and a whole one stands behind it at byte {behind}", number, offset
            )


def encode_frame(number: int, payload: bytes) -> bytes:
    head = _HEAD.pack(MAGIC, number, len(payload))
    return head + _CRC.pack(zlib.crc32(head)) + payload + _CRC.pack(zlib.crc32(payload))


def payload_at(fd: int, start: int, number: int) -> bytes:
    """The payload of block `number`, whose frame begins at `start`. Raises LedgerCorrupt."""
    head = os.pread(fd, _HEAD.size + _CRC.size, start)
    _, _, length = _HEAD.unpack_from(head)
    rest = os.pread(fd, length + _CRC.size, start + len(head))
    payload = read_frame(head + rest, 0, number)
    if payload is None:
        raise LedgerCorrupt("a block on disk is damaged", number, start)
    return bytes(payload)


def read_frame(data: "bytes | mmap.mmap", offset: int, number: int | None) -> "memoryview | bytes | None":
    """The payload of the frame at `offset`, or None when there is no whole frame (of block `number`, if given)."""
    start = offset + _HEAD.size + _CRC.size
    if start > len(data):
        return None
    magic, found, length = _HEAD.unpack_from(data, offset)
    (head_crc,) = _CRC.unpack_from(data, offset + _HEAD.size)
    if magic != MAGIC or (number is not None and found != number):
        return None
    if zlib.crc32(data[offset : offset + _HEAD.size]) != head_crc or start + length + _CRC.size > len(data):
        return None
    payload = data[start : start + length]
    (crc,) = _CRC.unpack_from(data, start + length)
    return payload if zlib.crc32(payload) == crc else None


def scan(fd: int) -> "tuple[array[int], int, int]":
    """(offsets of the whole frames from the beginning, end of the last one, size of the file)."""
    offsets: array[int] = array("Q")
    end = 0
    size = os.fstat(fd).st_size
    if size == 0:
        return offsets, 0, 0
    with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as data:
        while (payload := read_frame(data, end, len(offsets))) is not None:
            offsets.append(end)
            end += len(payload) + OVERHEAD
    return offsets, end, size


def payloads(fd: int) -> Iterator[tuple[int, int, bytes]]:
    """(number, offset, payload) of every whole frame from the beginning."""
    size = os.fstat(fd).st_size
    if size == 0:
        return
    number = offset = 0
    with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as data:
        while (payload := read_frame(data, offset, number)) is not None:
            yield number, offset, bytes(payload)
            number += 1
            offset += len(payload) + OVERHEAD


def _frame_behind(fd: int, start: int) -> int | None:
    size = os.fstat(fd).st_size
    with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as data:
        position = data.find(MAGIC, start)
        while position != -1:
            if read_frame(data, position, None) is not None:
                return position
            position = data.find(MAGIC, position + 1)
    return None


def _write_at(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
