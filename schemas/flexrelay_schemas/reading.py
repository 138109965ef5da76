"""Readings that a device signs, and readings that a gateway attests for a device that cannot sign.

The device's signature covers "flexrelay-reading-v1" ‖ JCS{did, key_version, network, observed_at, registers, seq}.
`registers` maps names of the closed vocabulary REGISTERS to integers in the unit that the name ends with. Registers
that only grow (CUMULATIVE) are what energy is settled from.
"""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from flexrelay_schemas.canonical import MAX_INTEGER, canonical, parse
from flexrelay_schemas.did import Did, Hash
from flexrelay_schemas.did import NetworkId as NetworkId
from flexrelay_schemas.intent import Signature, WallMs
from flexrelay_schemas.model import Model

CUMULATIVE: Final = frozenset({"import_j", "export_j"})
"""Energy registers in joules: taken from the grid, fed into the grid."""

REGISTERS: Final = CUMULATIVE | {"power_w", "reactive_var", "voltage_mv", "current_ma", "soc_permille"}
"""All register names; power and reactive power are signed, positive = withdrawal."""

FUTURE_TOLERANCE_MS: Final = 60_000
"""How far a device's clock may be ahead of the market clock (market time)."""

RegisterValue = Annotated[int, Field(ge=-MAX_INTEGER, le=MAX_INTEGER)]


def _known(registers: dict[str, int]) -> dict[str, int]:
    if not registers:
        raise ValueError("a reading needs at least one register")
    for name, value in registers.items():
        if name not in REGISTERS:
            raise ValueError(f"unknown register {name[:40]!r}; known are {', '.join(sorted(REGISTERS))}")
        if name in CUMULATIVE and value < 0:
            raise ValueError(f"register {name} is negative")
    return registers


_SIGNED = {"type": "integer", "minimum": -MAX_INTEGER, "maximum": MAX_INTEGER}
Registers = Annotated[
    dict[str, RegisterValue],
    AfterValidator(_known),
    WithJsonSchema(
        {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": False,
            "properties": {
                name: {**_SIGNED, "minimum": 0} if name in CUMULATIVE else _SIGNED for name in sorted(REGISTERS)
            },
        }
    ),
]
"""At least one register, all of the vocabulary, cumulative ones not negative."""


class Reading(Model):
    """What a device measured. `observed_at` is a UTC instant in milliseconds since 1970 (market time)."""

    did: Did
    key_version: Annotated[int, Field(ge=1, le=1_000_000)]
    network: NetworkId
    observed_at: WallMs
    registers: Registers
    seq: Annotated[int, Field(ge=0, le=MAX_INTEGER)]

    def message(self) -> bytes:
        """The bytes that the device signs."""
        return b"flexrelay-reading-v1" + canonical(self.model_dump())


class SignedReading(Model):
    """The native payload of a device: the reading, its version and the device's signature."""

    v: Literal[1] = 1
    reading: Reading
    signature: Signature


class Attested(Model):
    """What a gateway says of a reading whose device cannot sign; `frame_sha256` is the received frame's hash."""

    did: Did
    frame_sha256: Hash
    network: NetworkId
    observed_at: WallMs
    registers: Registers


class AnchoredAttestation(Model):
    """The evidence bytes of an unsigned reading, form 2: its attester is the gateway that anchored it.

    A gateway signs its anchor, and with it every leaf below: so the statement needs no signature of its own, and means
    nothing without a proof that leads to an anchor.
    """

    v: Literal[2] = 2
    attestation: Attested


class Attestation(Attested):
    """Form 1, which earlier releases made: the gateway is named and signs each reading by itself."""

    gateway: Did
    key_version: Annotated[int, Field(ge=1, le=1_000_000)]

    def message(self) -> bytes:
        """The bytes that the gateway signs (with key version `key_version` of its own DID)."""
        return b"flexrelay-attestation-v1" + canonical(self.model_dump())


class SignedAttestation(Model):
    """An attestation and the gateway's signature: the evidence bytes of an unsigned reading, form 1."""

    v: Literal[1] = 1
    attestation: Attestation
    signature: Signature


Evidence = SignedReading | SignedAttestation | AnchoredAttestation


def parse_evidence(data: bytes) -> Evidence:
    """The document in evidence bytes; its form is told by its fields. Raises CanonicalError and ValidationError (both
    are ValueErrors)."""
    value = parse(data)
    if isinstance(value, dict) and "attestation" in value:
        form = AnchoredAttestation if value.get("v") == 2 else SignedAttestation
        return form.model_validate(value)
    return SignedReading.model_validate(value)
