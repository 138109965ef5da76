"""Callbacks of the Sigfox backend: uplinks and acknowledgements of downlinks.

Documented format: Sigfox (UnaBiz) callbacks, custom callback with the JSON body that README.md gives.
"""

import re
from typing import Any, Final, NamedTuple

from flexrelay_adapters._counters import Counters
from flexrelay_adapters.sigfox.config import SigfoxConfig
from flexrelay_sdk import Decoded, DecodeError, Frame
from flexrelay_sdk.mapping import Mapper, instant_ms, parse_json

SEQUENCE: Final = 4096
"""The backend's seqNumber counts up to this and starts again."""
MAX_BYTES: Final = 12
_DEVICE: Final = re.compile(r"[0-9A-Fa-f]{1,8}")


class Uplink(NamedTuple):
    """`time` is UTC ms; `asks` is whether the device listens for a downlink now."""

    device: str
    time: int
    data: bytes
    seq: int
    asks: bool


class Acknowledgement(NamedTuple):
    """What became of the device's last downlink: `done`, or why not; `pending` when that is not known yet."""

    device: str
    done: bool
    pending: bool
    detail: str


def uplink(document: Any) -> Uplink:
    """Raises DecodeError: not_an_uplink, bad_time, too_long."""
    if type(document) is not dict:
        raise DecodeError("not_an_uplink", "expected an object")
    data, seq, asks = document.get("data", ""), document.get("seqNumber"), document.get("ack", False)
    if type(data) is not str or type(seq) is not int or not 0 <= seq < 2**32 or type(asks) is not bool:
        raise DecodeError("not_an_uplink", "expected data, seqNumber and ack as in the callback's body")
    try:
        payload = bytes.fromhex(data)
    except ValueError:
        raise DecodeError("not_an_uplink", "data is no hexadecimal text", "data") from None
    if len(payload) > MAX_BYTES:
        raise DecodeError("wrong_length", f"{len(payload)} bytes; a message has at most {MAX_BYTES}", "data")
    return Uplink(device_of(document), instant_ms(document.get("time"), "s", "time"), payload, seq, asks)


def acknowledgement(document: Any) -> Acknowledgement:
    """Raises DecodeError("not_an_uplink")."""
    if type(document) is not dict or type(document.get("infoCode")) is not int:
        raise DecodeError("not_an_uplink", "expected infoCode as in the acknowledge callback's body", "infoCode")
    code, answered = document["infoCode"], document.get("downlinkAck") is True
    detail = f"{code} {str(document.get('infoMessage', ''))[:200]}".strip()
    return Acknowledgement(device_of(document), code == 0 and answered, code == 5, detail)


def device_of(document: Any) -> str:
    """The device's id, upper case without leading zeros as the backend shows it. Raises DecodeError."""
    device = document.get("device") if type(document) is dict else None
    if type(device) is not str or not _DEVICE.fullmatch(device):
        raise DecodeError("not_an_uplink", "expected the device's id, at most 8 hexadecimal digits", "device")
    return f"{int(device, 16):X}"


class SigfoxCodec:
    """`Codec` for uplink callbacks. `counters` are told of what it decodes; no measurement depends on them."""

    def __init__(self, config: SigfoxConfig, counters: Counters | None = None) -> None:
        self._layout = config.payload
        self._mapper = Mapper(config.mapping)
        self._counters = counters

    def decode(self, frame: Frame) -> Decoded:
        """Raises DecodeError."""
        message = uplink(parse_json(frame.payload))
        if message.device != frame.credential:
            raise DecodeError("wrong_sender", f"it came for {frame.credential[:80]!r}, it is of another device")
        measurement = self._mapper.measurement(self._layout.read(message.data), message.time)
        if self._counters is not None:
            self._counters.note(message.device, message.seq)
        return Decoded((measurement,))
