"""The format of a content-format number."""

from collections.abc import Sequence
from typing import Final

from flexrelay_adapters.lwm2m.coap.codes import LWM2M_CBOR, OPAQUE, SENML_CBOR, SENML_JSON, TEXT, TLV
from flexrelay_adapters.lwm2m.formats import lwm2m_cbor, plain, senml_cbor, senml_json, tlv
from flexrelay_adapters.lwm2m.formats.record import FormatError, Path, Record

FORMATS: Final = frozenset({TEXT, OPAQUE, TLV, SENML_JSON, SENML_CBOR, LWM2M_CBOR})


def decode(content_format: int, payload: bytes, base: Path, now_s: float) -> list[Record]:
    """The records of a payload that was sent for `base`; `now_s` (UTC) is what relative times count from.

    Raises FormatError and nothing else, whatever the bytes are.
    """
    if content_format == SENML_CBOR:
        return senml_cbor.decode(payload, now_s)
    if content_format == SENML_JSON:
        return senml_json.decode(payload, now_s)
    if content_format == TLV:
        return tlv.decode(payload, base)
    if content_format == TEXT:
        return plain.decode_text(payload, base)
    if content_format == OPAQUE:
        return plain.decode_opaque(payload, base)
    if content_format == LWM2M_CBOR:
        return lwm2m_cbor.decode(payload)
    raise FormatError("unknown_format", f"content format {content_format} is not known")


def encode(content_format: int, records: Sequence[Record], base: Path) -> bytes:
    """Raises FormatError where the format cannot hold the records."""
    if content_format == SENML_CBOR:
        return senml_cbor.encode(records)
    if content_format == SENML_JSON:
        return senml_json.encode(records)
    if content_format == TLV:
        return tlv.encode(records, base)
    if content_format == LWM2M_CBOR:
        return lwm2m_cbor.encode(records)
    if content_format in (TEXT, OPAQUE) and len(records) == 1:
        return plain.encode_text(records[0].value)
    raise FormatError("unknown_format", f"content format {content_format} cannot hold {len(records)} values")
