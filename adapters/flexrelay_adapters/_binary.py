"""Binary payloads, declared field by field: where, how long, which way round, what kind, times which power of ten."""

from collections.abc import Mapping
from decimal import Decimal
from struct import unpack
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from flexrelay_sdk import DecodeError
from flexrelay_sdk.config import Section
from flexrelay_sdk.mapping import shortest, shortest_single

MAX_BYTES: Final = 255


class BinaryField(Section):
    """value = what stands in `length` bytes from `offset`, × 10^scale. `bcd` is two decimal digits a byte."""

    offset: Annotated[int, Field(ge=0, lt=MAX_BYTES)]
    length: Annotated[int, Field(ge=1, le=8)]
    type: Literal["uint", "int", "float", "bcd"] = "uint"
    endian: Literal["big", "little"] = "big"
    scale: Annotated[int, Field(ge=-12, le=12)] = 0

    @model_validator(mode="after")
    def _float(self) -> Self:
        if self.type == "float" and self.length not in (4, 8):
            raise ValueError("a float has length 4 or 8")
        return self

    @property
    def end(self) -> int:
        return self.offset + self.length

    def read(self, data: bytes, name: str) -> int | Decimal:
        """Raises DecodeError: too_short, not_a_number."""
        if len(data) < self.end:
            raise DecodeError("too_short", f"{name} ends at byte {self.end} of {len(data)}", name)
        part = data[self.offset : self.end]
        if self.type == "float":
            value = unpack(("<" if self.endian == "little" else ">") + ("f" if self.length == 4 else "d"), part)[0]
            exact = shortest_single(value, name) if self.length == 4 else shortest(value, name)
            return exact.scaleb(self.scale)
        if self.type == "bcd":
            digits = (part if self.endian == "big" else part[::-1]).hex()
            if not digits.isdecimal():
                raise DecodeError("not_a_number", f"{name} is no decimal number", name)
            whole = int(digits)
        else:
            whole = int.from_bytes(part, self.endian, signed=self.type == "int")
        return whole if self.scale == 0 else Decimal(whole).scaleb(self.scale)

    def write(self, value: int, name: str) -> bytes:
        """The bytes of a command's parameter: value / 10^scale, which must be whole. Raises ValueError."""
        exact = Decimal(value).scaleb(-self.scale)
        whole = int(exact)
        if whole != exact or self.type in ("float", "bcd"):
            raise ValueError(f"{name} = {value} cannot be written as {self.type} of 10^{self.scale}")
        try:
            return whole.to_bytes(self.length, self.endian, signed=self.type == "int")
        except OverflowError:
            raise ValueError(f"{name} = {value} does not fit into {self.length} bytes") from None


class BinaryLayout(Section):
    """Fields by name. `length`: the payload's exact length, where it has one."""

    fields: dict[str, BinaryField] = Field(min_length=1)
    length: Annotated[int, Field(ge=1, le=MAX_BYTES)] | None = None

    def read(self, data: bytes) -> dict[str, Any]:
        """A document of the fields. Raises DecodeError."""
        if self.length is not None and len(data) != self.length:
            raise DecodeError("wrong_length", f"{len(data)} bytes; expected are {self.length}")
        return {name: field.read(data, name) for name, field in self.fields.items()}


class BinaryCommand(Section):
    """A command's bytes: `prefix` (hexadecimal), then each parameter at its place, zeros between."""

    fields: dict[str, BinaryField] = Field(default_factory=dict)
    prefix: Annotated[str, Field(pattern=r"^([0-9a-fA-F]{2})*$", max_length=2 * MAX_BYTES)] = ""
    length: Annotated[int, Field(ge=1, le=MAX_BYTES)] | None = None

    @property
    def size(self) -> int:
        """In bytes."""
        return max([len(self.prefix) // 2, self.length or 0, *(field.end for field in self.fields.values())])

    def write(self, values: Mapping[str, int]) -> bytes:
        """Raises ValueError for a parameter that is missing or does not fit."""
        data = bytearray(self.size)
        data[: len(self.prefix) // 2] = bytes.fromhex(self.prefix)
        for name, field in self.fields.items():
            if name not in values:
                raise ValueError(f"the command has no {name}")
            data[field.offset : field.end] = field.write(values[name], name)
        return bytes(data)
