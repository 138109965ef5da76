"""The declarative mapping as configuration: which place of a document becomes which register, time and quality."""

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictInt, StrictStr, field_validator

from flexrelay_sdk.config import Section
from flexrelay_sdk.mapping.conversion import check_unit
from flexrelay_sdk.mapping.instant import TimeForm
from flexrelay_sdk.mapping.path import Path
from flexrelay_sdk.mapping.units import Unit


class FieldMapping(Section):
    """One register from one place: value × 10^scale × unit, rounded half to even to the register's integer unit."""

    pointer: Path
    unit: Unit
    scale: Annotated[int, Field(ge=-12, le=12)] = 0
    negate: bool = False
    """The source counts feed-in as positive; flexrelay counts withdrawal as positive."""
    required: bool = True


class TimeMapping(Section):
    """Where the source's own time stands and in which form. Not `required`: where it is absent or null, the time of
    the reception counts."""

    pointer: Path
    form: TimeForm
    required: bool = True


State = StrictStr | StrictInt | StrictBool


class QualityMapping(Section):
    """Where the source says how good its value is, and what it says there: texts, whole numbers, truth values, each
    equal in kind too (`"192"` is not 192, `true` not 1).

    `good`, an absent state and null change nothing; `estimated` and `substituted` set the provenance; `refused` sends
    the reading to the dead letters; any other state is noted beside the reading (`device_flagged`).
    """

    pointer: Path
    good: Annotated[tuple[State, ...], Field(min_length=1)]
    estimated: tuple[State, ...] = ()
    substituted: tuple[State, ...] = ()
    refused: tuple[State, ...] = ()


class Mapping(Section):
    """How readings stand in a document. `items` points to a list when a document holds many readings.

    Without `observed_at` a reading gets the time of its reception.
    """

    registers: Annotated[dict[str, FieldMapping], Field(min_length=1)]
    observed_at: TimeMapping | None = None
    seq: Path | None = None
    quality: QualityMapping | None = None
    items: Path | None = None

    @property
    def may_use_receive_time(self) -> bool:
        """Whether two readings of one batch could get one instant, that of their reception."""
        return self.observed_at is None or not self.observed_at.required

    @field_validator("registers")
    @classmethod
    def _units(cls, value: dict[str, FieldMapping]) -> dict[str, FieldMapping]:
        for name, mapping in value.items():
            check_unit(name, mapping.unit)
        return value


class JsonMapping(Mapping):
    """A mapping of plain JSON payloads."""

    kind: Literal["json"] = "json"
