"""Frames into measurements: one DataSetMessage is one reading. Pure: what its metadata has told stands in the frame."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from flexrelay_adapters.opcua_pubsub.config import DataSet, FieldSource
from flexrelay_adapters.opcua_pubsub.fields import BAD, UNCERTAIN, field_of, number_of, status_of, time_of
from flexrelay_adapters.opcua_pubsub.frame import Envelope, Facts, facts_of, open_frame
from flexrelay_adapters.opcua_pubsub.message import (
    EVENT,
    DataSetMessage,
    data_set_message,
    is_publisher,
    network_message,
)
from flexrelay_schemas.canonical import MAX_INTEGER
from flexrelay_schemas.measurement import Measurement
from flexrelay_schemas.quality import Notice, Provenance
from flexrelay_sdk import Decoded, DecodeError, Frame
from flexrelay_sdk.mapping import Conversion, units_of

UNSPECIFIED: Final = ""
_NOTICES: Final = {
    (flagged, gap): (Notice.DEVICE_FLAGGED if flagged else Notice.NONE) | (Notice.GAP if gap else Notice.NONE)
    for flagged in (False, True)
    for gap in (False, True)
}


class PubSubCodec:
    """`Codec` for the frames of `flexrelay_adapters.opcua_pubsub.frame`.

    A reading has the registers that the message's fields tell: all in a key frame, the changed ones in a delta frame.
    Fields whose status is Bad are left out, Uncertain ones are taken; both flag the reading.
    """

    def __init__(self, datasets: Sequence[DataSet], *, by_source: bool = True, check_publisher: bool = True) -> None:
        self._plans: dict[str, _Plan] = {}
        for each in datasets:
            plan = _Plan(each)
            for writer in each.writers or (UNSPECIFIED,):
                self._plans[writer] = plan
        self._by_source = by_source
        self._check_publisher = check_publisher

    def decode(self, frame: Frame) -> Decoded:
        """Raises DecodeError: bad_envelope, not_json, not_pubsub, wrong_sender, unknown_writer, other_version,
        bad_status, bad_time, no_value, not_a_number, out_of_range, other_unit, missing_field, …"""
        envelope = open_frame(frame.payload)
        publisher, _, writer = frame.credential.partition("/")
        if not envelope.divided:
            raise self._why_undivided(envelope.raw, publisher)
        message = data_set_message(envelope.raw)
        plan = self.plan(message, writer)
        if plan is None:
            raise DecodeError("unknown_writer", f"no dataset is configured for the writer {writer[:80]!r}")
        return Decoded((self.reading(message, plan, envelope, frame.received_at),))

    def plan(self, message: DataSetMessage, writer: str) -> "_Plan | None":
        """What the message of this writer means: by its id, its name, else the entry without writers."""
        for name in (writer, message.header.get("DataSetWriterName"), UNSPECIFIED):
            if type(name) is str and name in self._plans:
                return self._plans[name]
        return None

    def _why_undivided(self, payload: bytes, publisher: str) -> DecodeError:
        try:
            found = network_message(payload)
        except DecodeError as error:
            return error
        if self._check_publisher and found.publisher and not is_publisher(found.publisher, publisher):
            return DecodeError("wrong_sender", f"it came for {publisher[:80]!r}, it is of another publisher")
        return DecodeError("undivided", "it could not be divided into DataSetMessages when it came")

    def reading(self, message: DataSetMessage, plan: "_Plan", envelope: Envelope, received_at: int) -> Measurement:
        """What a message tells of which `envelope` says the rest. Raises DecodeError."""
        header = message.header
        if message.keeps_alive or header.get("MessageType") == EVENT:
            raise DecodeError("no_value", "neither a key frame nor a delta frame", "MessageType")
        facts = plan.checked(header, envelope.facts)
        status = status_of(header.get("Status"), "Status")
        if status & BAD:
            raise DecodeError("bad_status", f"StatusCode 0x{status:08X} of the whole message", "Status")
        payload = header["Payload"]
        registers: dict[str, int] = {}
        flagged = bool(status & UNCERTAIN)
        first: DecodeError | None = None
        source_ms = server_ms = 0
        types, units = facts.types, facts.units
        for name, target in plan.targets.items():
            raw = payload.get(name)
            if raw is None:
                continue
            try:
                field = field_of(raw, name)
                if field.status & BAD:
                    raise DecodeError("bad_status", f"StatusCode 0x{field.status:08X}", name)
                if field.value is None:
                    continue
                target.check_unit(units.get(name))
                value = target.conversion.convert(number_of(field, types.get(name, 0), name))
            except DecodeError as error:
                first = first or error
                flagged = True
                continue
            registers[target.conversion.register] = value
            if field.status & UNCERTAIN:
                flagged = True
            if field.source_ms > source_ms:
                source_ms = field.source_ms
            if field.server_ms > server_ms:
                server_ms = field.server_ms
        if not registers:
            raise first or DecodeError("missing_field", "none of the mapped fields has a value", "Payload")
        sent_ms = time_of(header.get("Timestamp"), "Timestamp")
        source_ms = source_ms or server_ms
        instant = (source_ms or sent_ms if self._by_source else sent_ms or source_ms) or received_at
        if not 0 < instant + envelope.shift_ms <= MAX_INTEGER:
            raise DecodeError("bad_time", "time out of range", "Timestamp")
        return Measurement(
            "",
            instant + envelope.shift_ms,
            registers,
            None,
            Provenance.GATEWAY_ATTESTED,
            _NOTICES[flagged, envelope.missing > 0],
        )


class _Target(NamedTuple):
    conversion: Conversion
    source: FieldSource
    same_units: frozenset[str]
    """What `source` counts in, by all its names."""

    def check_unit(self, told: str | None) -> None:
        """Raises DecodeError when the metadata names another unit than the configuration."""
        if told is None or told in self.same_units:
            return
        scale = self.source.scale
        given = f"{self.source.unit}" + (f" × 10^{scale}" if scale else "")
        raise DecodeError("other_unit", f"the metadata says {told}, the configuration {given}", self.source.field)

    @classmethod
    def of(cls, register: str, source: FieldSource) -> "_Target":
        units, scale = units_of(register), source.scale
        mine = units[source.unit] * 10 ** max(scale, 0)
        same = frozenset(unit for unit, factor in units.items() if factor * 10 ** max(-scale, 0) == mine)
        return cls(Conversion(register, source.unit, scale, source.negate, source.field), source, same)


class _Plan:
    """A `DataSet`, made ready."""

    def __init__(self, dataset: DataSet) -> None:
        self.major = dataset.major
        self.targets: Mapping[str, _Target] = {
            source.field: _Target.of(name, source) for name, source in sorted(dataset.registers.items())
        }

    def is_other(self, header: Mapping[str, object], major: int) -> bool:
        """Whether the message is of another major version."""
        found = major_of(header)
        return found is not None and found != major

    def problems(self, facts: bytes) -> list[str]:
        """What the metadata says otherwise than the configuration."""
        known, found = facts_of(facts), []
        for name, target in self.targets.items():
            try:
                target.check_unit(known.units.get(name))
            except DecodeError as error:
                found.append(str(error))
        return found

    def checked(self, header: Mapping[str, object], facts: Facts) -> Facts:
        """The facts that are of the message's version. Raises DecodeError for a version that is not taken."""
        major = major_of(header)
        if self.major is not None and major is not None and major != self.major:
            raise DecodeError("other_version", f"major version {major}, configured is {self.major}", "MetaDataVersion")
        known = facts.major is None or major is None or facts.major == major
        return facts if known else Facts(None, {}, {})


def major_of(header: Mapping[str, object]) -> int | None:
    """MajorVersion of the message's MetaDataVersion, None where it names none."""
    version = header.get("MetaDataVersion")
    major = version.get("MajorVersion", 0) if isinstance(version, dict) else None
    return major if type(major) is int else None
