"""Frames into measurements: metrics of one instant make one. Pure: what the birth has told stands in the frame."""

from collections.abc import Mapping
from typing import Final

from flexrelay_adapters.sparkplug.config import MetricMapping
from flexrelay_adapters.sparkplug.frame import split
from flexrelay_adapters.sparkplug.payload import BAD, GOOD, quality_of, read_payload, value_of
from flexrelay_schemas.canonical import MAX_INTEGER
from flexrelay_schemas.measurement import Measurement
from flexrelay_schemas.quality import Notice, Provenance
from flexrelay_sdk import Decoded, DecodeError, Frame
from flexrelay_sdk.mapping import MAX_ITEMS, Conversion

MAX_METRICS: Final = 20_000


class SparkplugCodec:
    """`Codec` for the frames of `flexrelay_adapters.sparkplug.frame`.

    Data: a measurement for each instant that its metrics name (the payload's where they name none). Birth: the current
    values, all at the instant of the birth, whenever they last changed.
    """

    def __init__(self, registers: Mapping[str, MetricMapping]) -> None:
        self._conversions = {
            mapping.metric: Conversion(name, mapping.unit, mapping.scale, mapping.negate, mapping.metric)
            for name, mapping in registers.items()
        }

    def decode(self, frame: Frame) -> Decoded:
        """Raises DecodeError: bad_envelope, not_sparkplug, oversized, too_many_metrics, no_birth, missing_field,
        not_a_number, out_of_range, bad_time, bad_quality."""
        birth, names, data = split(frame.payload)
        payload = read_payload(data)
        if len(payload.metrics) > MAX_METRICS:
            raise DecodeError("too_many_metrics", f"{len(payload.metrics)}, at most {MAX_METRICS}")
        sent_at = payload.timestamp or frame.received_at
        conversions, types, aliases = self._conversions, names.types, names.aliases
        instants: dict[int, dict[str, int]] = {}
        flagged: set[int] = set()
        unknown = bad = 0
        for metric in payload.metrics:
            name = metric.name
            if not name:
                name = aliases.get(metric.alias, "")
                unknown += not name
            conversion = conversions.get(name)
            if conversion is None or metric.is_transient:
                continue
            value = value_of(metric, types.get(name, 0))
            if value is None:
                continue
            quality = quality_of(metric)
            if quality == BAD:
                bad += 1
                continue
            at = sent_at if birth else metric.timestamp or sent_at
            registers = instants.get(at)
            if registers is None:
                registers = instants[at] = {}
            registers[conversion.register] = conversion.convert(value)
            if quality != GOOD:
                flagged.add(at)
        if not instants:
            raise _nothing(bad, unknown, bool(aliases))
        if len(instants) > MAX_ITEMS:
            raise DecodeError("bad_items", f"{len(instants)} instants in one payload, at most {MAX_ITEMS}")
        if not 0 < min(instants) <= max(instants) <= MAX_INTEGER:
            raise DecodeError("bad_time", "a timestamp is no instant (UTC ms)", "timestamp")
        return Decoded(
            tuple(
                [
                    Measurement("", at, instants[at])
                    if at not in flagged
                    else Measurement("", at, instants[at], None, Provenance.GATEWAY_ATTESTED, Notice.DEVICE_FLAGGED)
                    for at in sorted(instants)
                ]
            )
        )


def _nothing(bad: int, unknown: int, known: bool) -> DecodeError:
    if bad:
        return DecodeError("bad_quality", "the source calls all of its values bad", "Quality")
    if unknown and not known:
        return DecodeError("no_birth", "it names its metrics by aliases, and their birth is not known")
    return DecodeError("missing_field", "none of the mapped metrics has a value")
