"""SenML CBOR (content format 112)."""

from collections.abc import Sequence
from typing import Any

import cbor2

from flexrelay_adapters.lwm2m.formats.record import FormatError, Record
from flexrelay_adapters.lwm2m.formats.senml import CBOR_LABELS, pack_of, records_of


def load(payload: bytes) -> Any:
    """The one CBOR item of a payload. Raises FormatError, whatever the bytes are."""
    try:
        return cbor2.loads(payload)
    except RecursionError:
        raise FormatError("not_cbor", "nested too deeply") from None
    except Exception as error:  # a tag's value may be anything: the library lets its own constructors' errors through
        raise FormatError("not_cbor", f"{type(error).__name__}: {error}"[:200]) from None


def decode(payload: bytes, now_s: float) -> list[Record]:
    """Raises FormatError."""
    return records_of(load(payload), CBOR_LABELS, now_s)


def encode(records: Sequence[Record]) -> bytes:
    return cbor2.dumps(pack_of(records, CBOR_LABELS))
