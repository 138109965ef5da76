"""What stands in a file: its frames, and what a row of CSV means."""

import csv
import re
from decimal import Decimal
from typing import Any, Final

from flexrelay_adapters._elements import elements, lines
from flexrelay_adapters.files.config import CsvMapping
from flexrelay_sdk import Decoded, DecodeError, Frame
from flexrelay_sdk.mapping import Mapper

_NUMBER: Final = re.compile(r"[+-]?\d{1,30}(?:\.\d{1,30})?", re.ASCII)
MOST_FRAMES: Final = 200_000
"""Of one file."""


def rows(content: bytes) -> list[bytes]:
    """The rows of CSV, each with the header above it, so that a frame says what its values are. Raises DecodeError."""
    found = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").split(b"\n")
    header, below = found[0], [line for line in found[1:] if line.strip()]
    if not header.strip() or not 1 <= len(below) <= MOST_FRAMES:
        raise DecodeError("bad_items", f"expected a header and 1 to {MOST_FRAMES} rows")
    return [header + b"\n" + line for line in below]


def documents(content: bytes) -> list[bytes]:
    """A JSON file: one reading, or a list of them. Raises DecodeError."""
    return elements(content, (), MOST_FRAMES) if content.lstrip()[:1] == b"[" else [content]


def texts(content: bytes) -> list[bytes]:
    """One text a line. Raises DecodeError."""
    return lines(content, MOST_FRAMES)


class CsvCodec:
    """`Codec` for a header and one row by a mapping of its columns."""

    def __init__(self, mapping: CsvMapping) -> None:
        self._delimiter = mapping.delimiter
        self._decimal = mapping.decimal
        self._measurements = Mapper(mapping).measurements

    def decode(self, frame: Frame) -> Decoded:
        """Raises DecodeError: not_utf8, not_csv, duplicate_name, and those of the mapping."""
        try:
            text = frame.payload.decode()
        except UnicodeDecodeError as error:
            raise DecodeError("not_utf8", f"invalid byte at {error.start}") from None
        try:
            header, row = csv.reader(text.split("\n"), delimiter=self._delimiter, strict=True)
        except (csv.Error, ValueError) as error:
            raise DecodeError("not_csv", f"expected a header and a row: {error}") from None
        if len(header) != len(row):
            raise DecodeError("not_csv", f"{len(row)} fields below {len(header)} columns")
        names = [name.strip() for name in header]
        if len(set(names)) != len(names):
            raise DecodeError("duplicate_name", "a column stands twice")
        document = {name: self._value(field.strip()) for name, field in zip(names, row, strict=True)}
        return Decoded(self._measurements(document, frame.received_at))

    def _value(self, field: str) -> Any:
        """A number, a text, or None for nothing."""
        number = field.replace(",", ".") if self._decimal == "," else field
        if not _NUMBER.fullmatch(number):
            return field or None
        return Decimal(number) if "." in number else int(number)
