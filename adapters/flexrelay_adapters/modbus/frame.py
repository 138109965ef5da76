"""The form of a Modbus frame: what one poll of one device gave, big-endian as Modbus is.

Layout 1: "MBR1", length of the head u16, plan (8 bytes), where the serial number stands (table u8, address u16,
registers u8; 0 registers: nowhere) and the one that is expected (length u8, text); SunSpec models (count u8, then ID
u16, address of the ID register u16, length u16 each); blocks (count u8, then table u8, exception code u8, address u16,
registers u16 each). After the head the registers of every block that was not refused, exactly as the device sent them.

Frames of one device have the same head, poll after poll. `plan` names the part of the configuration that gives the
registers their meaning.
"""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from flexrelay_adapters.modbus.values import Span, Table
from flexrelay_sdk import DecodeError

MAGIC: Final = b"MBR1"
PLAN_BYTES: Final = 8
_START: Final = struct.Struct(f">4sH{PLAN_BYTES}sBHBB")
_MODEL: Final = struct.Struct(">HHH")
_BLOCK: Final = struct.Struct(">BBHH")
_TABLES: Final[tuple[Table, ...]] = ("holding", "input")
NOWHERE: Final = Span("holding", 0, 0)


class Found(NamedTuple):
    """A SunSpec model of a device; `address` of its ID register, `length` without ID and length."""

    model: int
    address: int
    length: int


class Block(NamedTuple):
    """What was asked for; `exception` is the device's refusal, 0 for none."""

    span: Span
    exception: int = 0


class Head(NamedTuple):
    plan: bytes
    serial_at: Span
    serial: str
    models: tuple[Found, ...]
    blocks: tuple[Block, ...]


def pack_head(plan: bytes, serial_at: Span, serial: str, models: Sequence[Found], blocks: Sequence[Block]) -> bytes:
    """Raises ValueError when there is more than a head can hold."""
    text = serial.encode()
    if max(len(text), len(models), len(blocks), serial_at.size) > 255:
        raise ValueError("a frame holds at most 255 blocks, 255 models and a serial number of 255 bytes")
    rest = [bytes([len(models)]), *[_MODEL.pack(*model) for model in models], bytes([len(blocks)])]
    rest += [_BLOCK.pack(_TABLES.index(b.span.table), b.exception, b.span.address, b.span.size) for b in blocks]
    tail = text + b"".join(rest)
    return (
        _START.pack(
            MAGIC, _START.size + len(tail), plan, _TABLES.index(serial_at.table), serial_at.address, serial_at.size,
            len(text),
        )
        + tail
    )  # fmt: skip


def head_length(payload: bytes) -> int:
    """Raises DecodeError: cut_off, unknown_version."""
    if len(payload) < _START.size:
        raise DecodeError("cut_off", f"{len(payload)} bytes are no Modbus frame", "head")
    if not payload.startswith(MAGIC):
        raise DecodeError("unknown_version", "not a Modbus frame of layout 1", "head")
    length = int.from_bytes(payload[4:6], "big")
    if not _START.size <= length <= len(payload):
        raise DecodeError("cut_off", "the head is cut off", "head")
    return length


def open_head(head: bytes) -> Head:
    """Raises DecodeError."""
    try:
        _, _, plan, table, address, count, size = _START.unpack_from(head)
        offset = _START.size
        serial = head[offset : offset + size].decode()
        offset += size
        models = [
            Found(*_MODEL.unpack_from(head, at))
            for at in range(offset + 1, offset + 1 + head[offset] * _MODEL.size, _MODEL.size)
        ]
        offset += 1 + len(models) * _MODEL.size
        packed = [
            _BLOCK.unpack_from(head, at)
            for at in range(offset + 1, offset + 1 + head[offset] * _BLOCK.size, _BLOCK.size)
        ]
        offset += 1 + len(packed) * _BLOCK.size
        blocks = tuple(Block(Span(_TABLES[t], a, n), exception) for t, exception, a, n in packed)
        serial_at = Span(_TABLES[table], address, count)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise DecodeError("bad_layout", f"the head cannot be read: {error}", "head") from None
    if offset != len(head):
        raise DecodeError("bad_layout", "the head has another length than it says", "head")
    return Head(plan, serial_at, serial, tuple(models), blocks)
