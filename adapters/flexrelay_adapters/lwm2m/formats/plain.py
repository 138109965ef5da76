"""Text (content format 0) and opaque (42): one resource's value and nothing else (OMA Core §7.4.2, §7.4.3)."""

from decimal import Decimal

from flexrelay_adapters.lwm2m.formats.record import FormatError, Path, Record, Value


def decode_text(payload: bytes, base: Path) -> list[Record]:
    """The value as text; what it means is the resource's to know. Raises FormatError."""
    if len(base) < 3:
        raise FormatError("bad_path", "plain text holds one resource, the path names none")
    try:
        return [Record(base, payload.decode())]
    except UnicodeDecodeError as error:
        raise FormatError("not_utf8", f"not UTF-8 at byte {error.start}") from None


def encode_text(value: Value) -> bytes:
    if isinstance(value, bool):
        return b"1" if value else b"0"
    if isinstance(value, bytes):
        return value
    if isinstance(value, float):
        return format(Decimal(repr(value)), "f").encode()
    return str("" if value is None else value).encode()


def decode_opaque(payload: bytes, base: Path) -> list[Record]:
    """Raises FormatError."""
    if len(base) < 3:
        raise FormatError("bad_path", "an opaque value is one resource, the path names none")
    return [Record(base, payload)]
