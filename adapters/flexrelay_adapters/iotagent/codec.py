"""Frames into measurements by one dialect and the SDK's mapping. Pure."""

from typing import Any, Final

from flexrelay_adapters.iotagent.dialect import Dialect
from flexrelay_adapters.iotagent.frame import split
from flexrelay_sdk import Decoded, DecodeError, Frame
from flexrelay_sdk.mapping import MAX_ITEMS, Mapper, Mapping, TimeMapping

TIME_INSTANT: Final = "TimeInstant"
_TIME: Final = TimeMapping(pointer=f"/{TIME_INSTANT}", form="iso8601", required=False)


class DialectCodec:
    """Each group of measures is a reading. Without a mapping of the time, a group's TimeInstant counts, else the time
    of the reception: of the n-th group n ms later, since two values of one instant are what a cheat looks like."""

    def __init__(self, dialect: Dialect, mapping: Mapping) -> None:
        self._groups = dialect.groups
        self._value = dialect.value
        timed = mapping if mapping.observed_at is not None else mapping.model_copy(update={"observed_at": _TIME})
        self._measurement = Mapper(timed).measurement

    def decode(self, frame: Frame) -> Decoded:
        """Raises DecodeError: what the dialect and the mapping name; bad_envelope, bad_items."""
        context, payload = split(frame.payload)
        if "a" in context:
            groups: list[dict[str, Any]] = [{context["a"]: self._value(payload)}]
        else:
            groups = self._groups(payload)
        if not 1 <= len(groups) <= MAX_ITEMS:
            raise DecodeError("bad_items", f"{len(groups)} groups of measures, 1 to {MAX_ITEMS} are taken")
        if context:
            names, time = context.get("n"), context.get("t")
            for place, group in enumerate(groups):
                if names:
                    group = groups[place] = _renamed(group, names)
                if time:
                    group.setdefault(TIME_INSTANT, time)
        at = frame.received_at
        return Decoded(tuple([self._measurement(group, at + place) for place, group in enumerate(groups)]))


def _renamed(group: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    renamed = {names.get(name, name): value for name, value in group.items()}
    if len(renamed) < len(group):
        raise DecodeError("duplicate_name", "two measures have one attribute's name")
    return renamed
