"""SenML JSON (content format 110)."""

import base64
from collections.abc import Sequence

import orjson

from flexrelay_adapters.lwm2m.formats.record import FormatError, Record
from flexrelay_adapters.lwm2m.formats.senml import TEXT_LABELS, pack_of, records_of


def decode(payload: bytes, now_s: float) -> list[Record]:
    """Raises FormatError."""
    try:
        pack = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise FormatError("not_json", str(error)[:200]) from None
    return records_of(pack, TEXT_LABELS, now_s)


def encode(records: Sequence[Record]) -> bytes:
    pack = pack_of(records, TEXT_LABELS)
    for item in pack:
        data = item.get("vd")
        if data is not None:
            item["vd"] = base64.urlsafe_b64encode(data).decode().rstrip("=")
    return orjson.dumps(pack)
