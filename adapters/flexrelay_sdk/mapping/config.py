"""The declarative mapping as configuration: which place of a document becomes which register, time and quality."""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, StrictBool, StrictInt, StrictStr, field_validator, model_validator

from flexrelay_schemas.entities import Filling, attributes_of
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


class AttributeMapping(Section):
    """The same by the name of a smart data model's attribute: the unit is the model's unless given, and so is the sign;
    `negate` where the source counts the other way round than the model."""

    pointer: Path
    unit: Unit | None = None
    scale: Annotated[int, Field(ge=-12, le=12)] = 0
    negate: bool = False
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

    What is measured is named by registers, or by the attributes of the smart data model of `device_kind` (see
    docs/data-models.md), or both.

    Without `observed_at` a reading gets the time of its reception.
    """

    registers: dict[str, FieldMapping] = Field(default_factory=dict)
    device_kind: str | None = None
    attributes: dict[str, AttributeMapping] = Field(default_factory=dict)
    observed_at: TimeMapping | None = None
    seq: Path | None = None
    quality: QualityMapping | None = None
    items: Path | None = None

    @property
    def may_use_receive_time(self) -> bool:
        """Whether two readings of one batch could get one instant, that of their reception."""
        return self.observed_at is None or not self.observed_at.required

    @property
    def fields(self) -> dict[str, FieldMapping]:
        """All that is mapped, by register."""
        fillings = attributes_of(self.device_kind) if self.device_kind is not None else {}
        named = {fillings[name].register: _field(given, fillings[name]) for name, given in self.attributes.items()}
        return {**self.registers, **named}

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.registers and not self.attributes:
            raise ValueError("at least 1 of registers and attributes is needed")
        if bool(self.attributes) != (self.device_kind is not None):
            raise ValueError("attributes and device_kind belong together: the kind says of which model they are")
        fillings = attributes_of(self.device_kind) if self.device_kind is not None else {}
        for name, given in self.attributes.items():
            if name not in fillings:
                raise ValueError(f"a {self.device_kind} has no attribute {name!r}; known are {', '.join(fillings)}")
            register = fillings[name].register
            if register in self.registers:
                raise ValueError(f"register {register} and attribute {name} are the same")
            check_unit(register, given.unit or _UNITS[fillings[name].unit_code])
        return self

    @field_validator("registers")
    @classmethod
    def _units(cls, value: dict[str, FieldMapping]) -> dict[str, FieldMapping]:
        for name, mapping in value.items():
            check_unit(name, mapping.unit)
        return value


_UNITS: Final[dict[str, Unit]] = {
    "WTT": "W", "KWT": "kW", "KWH": "kWh", "D44": "var", "K5": "kvar", "VLT": "V", "AMP": "A", "P1": "%",
}  # fmt: skip
"""UN/CEFACT codes of the models' units."""


def _field(given: AttributeMapping, filling: Filling) -> FieldMapping:
    return FieldMapping(
        pointer=given.pointer,
        unit=given.unit or _UNITS[filling.unit_code],
        scale=given.scale,
        negate=given.negate != filling.turned,
        required=given.required,
    )


class JsonMapping(Mapping):
    """A mapping of plain JSON payloads."""

    kind: Literal["json"] = "json"
