"""A simulated publisher of one DataSet, as OPC 10000-14 §7.2.5 has it in JSON: its messages, without a transport.

They are written here once more, without the adapter's code, so that both do not share a mistake.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

from flexrelay_sdk.simulation import DeviceSimulator

FieldForm = Literal["raw", "variant", "data_value"]
WRITER_ID: Final = 1
GROUP: Final = "meters"
_VERSION: Final = {"MajorVersion": 1, "MinorVersion": 1}
_IDS: Final = uuid.UUID("6a2c9f0e-3c52-5d0b-9a51-0d1f6c9b7e24")
"""Of the ids that are made from seeds."""
_UN_CEFACT: Final = "http://www.opcfoundation.org/UA/units/un/cefact"


class _Kind(NamedTuple):
    """A register's built-in type (OPC 10000-6 §5.1.2) and engineering unit (UN/CEFACT common code)."""

    built_in: int
    code: str
    sign: str


_INT32, _INT64 = 6, 8
KINDS: Final[Mapping[str, _Kind]] = {
    "import_j": _Kind(_INT64, "JOU", "J"),
    "export_j": _Kind(_INT64, "JOU", "J"),
    "power_w": _Kind(_INT32, "WTT", "W"),
    "reactive_var": _Kind(_INT32, "D44", "var"),
    "voltage_mv": _Kind(_INT32, "2Z", "mV"),
    "current_ma": _Kind(_INT32, "4K", "mA"),
    "soc_permille": _Kind(_INT32, "NX", "‰"),
}


class Message(NamedTuple):
    """`topic` without the prefix. `reading`: whether it tells a value."""

    topic: str
    payload: bytes
    retain: bool = False
    reading: bool = False


@dataclass(frozen=True)
class Manner:
    """How a publisher writes: a key frame after every `key_frames` − 1 delta frames, fields in one of their forms."""

    key_frames: int = 10
    fields: FieldForm = "data_value"


class Publisher:
    """One device. Its PublisherId is the device's name, its writer's name the device's kind.

    `measured` gives a key frame first and then every `key_frames` messages, else a delta frame with the fields that
    have changed; when none has, a keep-alive, which names the sequence number that comes next.
    """

    def __init__(self, simulator: DeviceSimulator, seed: str, manner: Manner) -> None:
        self.simulator = simulator
        self._seed = seed
        self._manner = manner
        self._sequence = 0
        self._messages = 0
        self._since_key_frame = 0
        self._told: dict[str, int] = {}

    @property
    def publisher(self) -> str:
        return self.simulator.name

    def status(self, state: int, now_ms: int) -> Message:
        """`state` is a PubSubState: 0 Disabled, 2 Operational, 3 Error."""
        told = {"Timestamp": _iso(now_ms), "IsCyclic": False, "Status": state}
        return Message(f"status/{self.publisher}", self._message("ua-status", **told), retain=True)

    def metadata(self, now_ms: int) -> Message:
        """Types and engineering units of the fields."""
        fields = [
            {
                "Name": name,
                "BuiltInType": KINDS[name].built_in,
                "DataType": f"i={KINDS[name].built_in}",
                "ValueRank": -1,
                "DataSetFieldId": str(uuid.uuid5(_IDS, name)),
                "Properties": [{"Key": "EngineeringUnits", "Value": _unit(KINDS[name])}],
            }
            for name in sorted(self.simulator.model.registers())
        ]
        told = {"Name": self.simulator.kind, "Fields": fields, "ConfigurationVersion": _VERSION}
        payload = self._message("ua-metadata", Timestamp=_iso(now_ms), **self._writer(), MetaData=told)
        return Message(f"metadata/{self._place}", payload, retain=True)

    def measured(self, now_ms: int) -> Message:
        """The device lives on until `now_ms` (market time) and tells what it measures."""
        registers = self.simulator.sample(now_ms).registers
        whole = self._since_key_frame == 0
        self._since_key_frame = (self._since_key_frame + 1) % self._manner.key_frames
        changed = registers if whole else {name: told for name, told in registers.items() if told != self._told[name]}
        self._told = dict(registers)
        kind = "ua-keyframe" if whole else "ua-deltaframe" if changed else "ua-keepalive"
        message = {
            **self._writer(),
            "SequenceNumber": (self._sequence + 1) % 2**32,
            "MetaDataVersion": _VERSION,
            "Timestamp": _iso(now_ms),
            "MessageType": kind,
        }
        if changed:
            self._sequence = message["SequenceNumber"]
            message["Payload"] = {name: self._field(name, told, now_ms) for name, told in sorted(changed.items())}
        return Message(f"data/{self._place}", self._message("ua-data", Messages=[message]), reading=bool(changed))

    @property
    def _place(self) -> str:
        return f"{self.publisher}/{GROUP}/{WRITER_ID}"

    def _writer(self) -> dict[str, Any]:
        return {"DataSetWriterId": WRITER_ID, "DataSetWriterName": self.simulator.kind}

    def _message(self, kind: str, **more: Any) -> bytes:
        number = self._messages = self._messages + 1
        message_id = str(uuid.uuid5(_IDS, f"{self._seed}/{self.publisher}/{number}"))
        header = {"MessageId": message_id, "MessageType": kind, "PublisherId": self.publisher}
        return json.dumps({**header, **more}, separators=(",", ":")).encode()

    def _field(self, name: str, told: int, now_ms: int) -> Any:
        """In the compact encoding (OPC 10000-6 §5.4): 64-bit integers are texts."""
        built_in = KINDS[name].built_in
        value = str(told) if built_in == _INT64 else told
        if self._manner.fields == "raw":
            return value
        typed = {"UaType": built_in, "Value": value}
        return typed if self._manner.fields == "variant" else {**typed, "SourceTimestamp": _iso(now_ms)}


def _unit(kind: _Kind) -> dict[str, Any]:
    """An EUInformation (OPC 10000-8 §5.6.3.3): its UnitId is the common code's bytes."""
    unit_id = int.from_bytes(kind.code.encode(), "big")
    told = {"UaTypeId": "i=887", "NamespaceUri": _UN_CEFACT, "UnitId": unit_id, "DisplayName": {"Text": kind.sign}}
    return {"UaType": 22, "Value": told}


def _iso(at_ms: int) -> str:
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
