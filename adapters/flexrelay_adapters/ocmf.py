"""OCMF (Open Charge Metering Format): `OCMF|<payload>|<signature>`, meter values that the meter itself has signed.

The signature is ECDSA over the payload section exactly as it stands between the bars. It is checked with the key that
was enrolled for the sender, never with one that comes along. The readings stay attested by the gateway: OCMF's
signature covers OCMF's text, not a reading of this network; the text is journaled as it came, so it can be checked
again by anyone.

Format: SAFE e.V., "OCMF - Open Charge Metering Format", version 1.x.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pydantic import Field, field_validator

from flexrelay_schemas.measurement import Measurement
from flexrelay_schemas.quality import Notice, Provenance
from flexrelay_schemas.reading import REGISTERS
from flexrelay_sdk import Decoded, DecodeError, Frame
from flexrelay_sdk.config import Section
from flexrelay_sdk.mapping import Conversion, Unit, instant_ms, parse_json, units_of

MAX_READINGS: Final = 1000

_CURVES: Final[dict[str, str]] = {
    "ECDSA-secp192k1-SHA256": "secp192k1",
    "ECDSA-secp256k1-SHA256": "secp256k1",
    "ECDSA-secp192r1-SHA256": "secp192r1",
    "ECDSA-secp256r1-SHA256": "secp256r1",
    "ECDSA-brainpool256r1-SHA256": "brainpoolP256r1",
    "ECDSA-secp384r1-SHA256": "secp384r1",
    "ECDSA-brainpool384r1-SHA256": "brainpoolP384r1",
}
"""Signature algorithms of the format → curve, as `cryptography` names it."""
_DEFAULT: Final = "ECDSA-secp256r1-SHA256"
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)[,.](\d{3})([+-]\d{4})(?: ([UISR]))?")
_OBIS: Final = re.compile(r"(?:[0-9A-Fa-f]{1,2}-[0-9A-Za-z]{1,2}:)?([0-9A-Fa-f]{1,2})\.([0-9A-Fa-f]{1,2})(?:\..*)?")


class OcmfConfig(Section):
    """`registers` maps OBIS groups C.D (`1.8`, hexadecimal as OCMF writes them) to registers. A reading with another
    one is left out; a frame of only such readings is refused."""

    kind: Literal["ocmf"]
    keys_file: Path | None = None
    """Lines `credential:hex` with the DER public key (SubjectPublicKeyInfo) of each meter. Without the file signatures
    are not checked; with it, what is not signed by the sender's key is refused."""
    registers: dict[str, str] = Field(default={"1.8": "import_j", "2.8": "export_j"}, min_length=1)

    @field_validator("registers")
    @classmethod
    def _known(cls, value: dict[str, str]) -> dict[str, str]:
        for obis, register in value.items():
            if register not in REGISTERS:
                raise ValueError(f"unknown register {register!r}; known are {', '.join(sorted(REGISTERS))}")
            if not re.fullmatch(r"[0-9A-F]{1,2}\.[0-9A-F]{1,2}", obis):
                raise ValueError(f"{obis!r} is no OBIS group C.D such as 1.8")
        return value


def read_keys(path: Path) -> dict[str, ec.EllipticCurvePublicKey]:
    """Credential → key. Raises ValueError naming file and line."""
    found: dict[str, ec.EllipticCurvePublicKey] = {}
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"codec.keys_file: {path} cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        credential, _, text = line.strip().rpartition(":")
        try:
            key = load_der_public_key(bytes.fromhex(text))
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ValueError(f"codec.keys_file: {path}, line {number}: no DER public key: {error}") from None
        if not credential or not isinstance(key, ec.EllipticCurvePublicKey):
            raise ValueError(f"codec.keys_file: {path}, line {number}: write credential:hex, an elliptic curve's key")
        found[credential] = key
    return found


class OcmfCodec:
    """`Codec` for one OCMF text a frame; a frame has as many measurements as its payload has instants."""

    def __init__(self, config: OcmfConfig, keys: Mapping[str, ec.EllipticCurvePublicKey] | None = None) -> None:
        self._registers = {tuple(int(part, 16) for part in obis.split(".")): r for obis, r in config.registers.items()}
        self._keys = keys

    def decode(self, frame: Frame) -> Decoded:
        """Raises DecodeError: not_ocmf, unknown_key, bad_signature, and those of JSON values."""
        payload, signature = _sections(frame.payload)
        if self._keys is not None:
            self._verify(frame.credential, payload, signature)
        document = parse_json(payload)
        if type(document) is not dict:
            raise DecodeError("not_ocmf", "the payload is no object")
        return Decoded(self._measurements(document))

    def _verify(self, credential: str, payload: bytes, signature: bytes) -> None:
        key = (self._keys or {}).get(credential)
        if key is None:
            raise DecodeError("unknown_key", f"no key is enrolled for {credential[:80]!r}")
        document = parse_json(signature)
        if type(document) is not dict:
            raise DecodeError("not_ocmf", "the signature is no object")
        algorithm = document.get("SA", _DEFAULT)
        if not isinstance(algorithm, str) or _CURVES.get(algorithm) != key.curve.name:
            raise DecodeError("bad_signature", f"the enrolled key is of {key.curve.name}", "SA")
        try:
            key.verify(_signed(document), payload, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise DecodeError("bad_signature", "the signature is not the enrolled key's over this payload") from None

    def _measurements(self, document: Mapping[str, Any]) -> tuple[Measurement, ...]:
        readings = document.get("RD")
        if type(readings) is not list or not 1 <= len(readings) <= MAX_READINGS:
            raise DecodeError("bad_items", f"expected 1 to {MAX_READINGS} readings", "RD")
        found: dict[int, tuple[dict[str, int], Notice]] = {}
        said: dict[str, Any] = {}
        for number, reading in enumerate(readings):
            if type(reading) is not dict:
                raise DecodeError("bad_items", "a reading is no object", f"RD/{number}")
            said |= {name: reading[name] for name in ("TM", "RI", "RU", "ST") if name in reading}
            read = self._read({**said, **{n: v for n, v in reading.items() if n == "RV"}}, f"RD/{number}")
            if read is None:
                continue
            observed_at, register, value, notice = read
            registers, before = found.setdefault(observed_at, ({}, Notice.NONE))
            if registers.setdefault(register, value) != value:
                raise DecodeError("bad_items", f"two values of {register} at one instant", f"RD/{number}")
            found[observed_at] = (registers, before | notice)
        if not found:
            raise DecodeError("missing_field", "none of its readings has a register that is wanted", "RD")
        return tuple(
            Measurement("", at, registers, None, Provenance.GATEWAY_ATTESTED, notice)
            for at, (registers, notice) in sorted(found.items())
        )

    def _read(self, reading: Mapping[str, Any], place: str) -> "_Read | None":
        obis = _OBIS.fullmatch(reading["RI"]) if isinstance(reading.get("RI"), str) else None
        register = self._registers.get((int(obis[1], 16), int(obis[2], 16))) if obis is not None else None
        if register is None:
            return None
        unit = reading.get("RU")
        if type(unit) is not str or unit not in units_of(register):
            raise DecodeError("bad_unit", f"{register} is given in {str(unit)[:20]!r}", f"{place}/RU")
        if "RV" not in reading:
            raise DecodeError("missing_field", "a reading has no value", f"{place}/RV")
        value = _conversion(register, unit).convert(reading["RV"])
        instant, synchronised = _instant(reading.get("TM"), f"{place}/TM")
        good = reading.get("ST", "G") == "G" and synchronised
        return _Read(instant, register, value, Notice.NONE if good else Notice.DEVICE_FLAGGED)


class _Read(NamedTuple):
    observed_at: int
    register: str
    value: int
    notice: Notice


@cache
def _conversion(register: str, unit: Unit) -> Conversion:
    return Conversion(register, unit, place="RV")


def _sections(text: bytes) -> tuple[bytes, bytes]:
    """Payload and signature. A payload may hold a bar in a text; what begins the signature is the last `|{`."""
    text = text.strip()
    end = text.rfind(b"|{")
    if not text.startswith(b"OCMF|{") or end <= 4:
        raise DecodeError("not_ocmf", "expected OCMF|{payload}|{signature}")
    return text[5:end], text[end + 1 :]


def _signed(document: Mapping[str, Any]) -> bytes:
    data, encoding = document.get("SD"), document.get("SE", "hex")
    if type(data) is not str or document.get("SM", "application/x-der") != "application/x-der":
        raise DecodeError("bad_signature", "expected a DER signature in SD", "SD")
    try:
        if encoding == "hex":
            return bytes.fromhex(data)
        if encoding == "base64":
            return base64.b64decode(data, validate=True)
    except (ValueError, binascii.Error):
        raise DecodeError("bad_signature", f"SD is not {encoding}", "SD") from None
    raise DecodeError("bad_signature", "SE is hex or base64", "SE")


def _instant(value: Any, place: str) -> tuple[int, bool]:
    """UTC ms and whether the meter's clock was synchronised when it wrote it."""
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise DecodeError("bad_time", "expected YYYY-MM-DDThh:mm:ss,mmm+hhmm and the clock's state", place)
    return instant_ms(f"{match[1]}.{match[2]}{match[3]}", "iso8601", place), match[4] in ("S", None)
