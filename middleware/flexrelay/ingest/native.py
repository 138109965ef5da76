"""The codec of the native payload: a SignedReading as JSON (`flexrelay_schemas.reading`).

It takes what a contract takes as evidence, and nothing more: strict types, no unknown field, no name twice, integers
within 2^53 - 1. A payload in canonical form takes the fast way; any other is parsed a second time for names that
stand twice, which JSON parsers otherwise pass over in different ways.
"""

from typing import Final

from pydantic import ValidationError

from flexrelay_schemas.canonical import CanonicalError, parse
from flexrelay_schemas.encoding import b64u_decode
from flexrelay_schemas.measurement import Measurement
from flexrelay_schemas.quality import Provenance
from flexrelay_schemas.reading import SignedReading
from flexrelay_sdk import Decoded, DecodeError, DeviceProof, Frame

_PREFIX: Final = b"flexrelay-reading-v1"
_validate = SignedReading.__pydantic_validator__.validate_json


class NativeCodec:
    """See `flexrelay_sdk.Codec`. `max_bytes` bounds a payload before it is parsed."""

    def __init__(self, max_bytes: int = 65_536) -> None:
        self._max_bytes = max_bytes

    def decode(self, frame: Frame) -> Decoded:
        return decode_signed(frame.payload, self._max_bytes)


def decode_signed(payload: bytes, max_bytes: int = 65_536) -> Decoded:
    """The reading in a native payload. Raises DecodeError and nothing else."""
    if len(payload) > max_bytes:
        raise DecodeError("too_large", f"{len(payload)} bytes; at most {max_bytes} are taken")
    try:
        signed: SignedReading = _validate(payload)
    except ValidationError as error:
        raise _explain(error, payload) from None
    reading = signed.reading
    registers = reading.registers
    values = ",".join([f'"{name}":{registers[name]}' for name in sorted(registers)])
    # JCS of the reading: names in order; did, network and register names are ASCII by their patterns
    content = (
        f'{{"did":"{reading.did}","key_version":{reading.key_version},"network":"{reading.network}",'
        f'"observed_at":{reading.observed_at},"registers":{{{values}}},"seq":{reading.seq}}}'
    )
    if payload != f'{{"reading":{content},"signature":"{signed.signature}","v":1}}'.encode():
        try:
            parse(payload)
        except CanonicalError as error:
            raise DecodeError("malformed", str(error)) from None
    try:
        signature = b64u_decode(signed.signature)
    except ValueError as error:
        raise DecodeError("invalid_value", str(error), "signature") from None
    measurement = Measurement(reading.did, reading.observed_at, registers, reading.seq, Provenance.METER_SIGNED)
    proof = DeviceProof(reading.did, reading.network, reading.key_version, _PREFIX + content.encode(), signature)
    return Decoded((measurement,), proof)


_REASONS: Final = {
    "json_invalid": "malformed",
    "extra_forbidden": "unknown_field",
    "missing": "missing_field",
    "json_type": "malformed",
}


def _explain(error: ValidationError, payload: bytes) -> DecodeError:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part)[:60] for part in first["loc"])[:200]
    try:
        payload.decode()
    except UnicodeDecodeError as wrong:
        return DecodeError("not_utf8", f"not UTF-8 at byte {wrong.start}")
    reason = _REASONS.get(first["type"], "invalid_value")
    message = first["msg"][:300]
    if place == "v":
        reason = "unknown_version"
    elif place == "reading.registers" and "unknown register" in message:
        reason = "unknown_register"
    return DecodeError(reason, message, place)
