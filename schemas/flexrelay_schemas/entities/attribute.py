"""Entity types as tables: each attribute with its NGSI-LD kind, JSON type, unit and whether it must be there."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, Literal

from flexrelay_schemas.entities.units import Conversion

JsonType = Literal["string", "number", "boolean", "array", "object"]

TERMS = "urn:flexrelay:terms:"
"""Prefix of the IRIs of terms that are ours; a URN, because no host answers for them."""

CORE_CONTEXT = "https://uri.etsi.org/ngsi-ld/v1/ngsi-ld-core-context.jsonld"


class Kind(Enum):
    """The NGSI-LD kind of an attribute; its key tells where the value stands in the normalized form."""

    PROPERTY = "Property"
    RELATIONSHIP = "Relationship"
    GEO = "GeoProperty"

    @property
    def key(self) -> str:
        return "object" if self is Kind.RELATIONSHIP else "value"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute. `iri` is the full name in JSON-LD; `conversion` holds the unit of numbers (inside objects and
    arrays too); `observed` attributes carry the source's time and the value's quality; `lent_by` names the official
    model that an attribute is borrowed from when its own type has none for it ("" for its own)."""

    name: str
    json_type: JsonType
    iri: str
    kind: Kind = Kind.PROPERTY
    conversion: Conversion | None = None
    required: bool = False
    observed: bool = False
    enum: tuple[str, ...] = ()
    lent_by: str = ""


@dataclass(frozen=True)
class EntityType:
    """A type of entities. `subject` is its repository at smartdatamodels.org ("" for ours)."""

    name: str
    subject: str
    attributes: tuple[Attribute, ...]

    @cached_property
    def by_name(self) -> Mapping[str, Attribute]:
        return {attribute.name: attribute for attribute in self.attributes}

    @cached_property
    def required(self) -> tuple[str, ...]:
        """Names that must be there, besides id and type."""
        return tuple(attribute.name for attribute in self.attributes if attribute.required)

    @cached_property
    def context(self) -> tuple[str | dict[str, Any], ...]:
        """The `@context`: the subject's official one, our terms inline (so that nothing of ours must be fetched),
        and NGSI-LD's core, which stands last by its specification."""
        own = {a.name: _term(a) for a in self.attributes if a.lent_by or not self.subject}
        if any(a.lent_by and a.json_type == "object" for a in self.attributes):
            own |= {phase: f"https://smartdatamodels.org/dataModel.Energy/{phase}" for phase in ("L1", "L2", "L3")}
        own |= {"quality": TERMS + "quality", "notices": TERMS + "notices"}
        if not self.subject:
            own[self.name] = TERMS + self.name
            return (own, CORE_CONTEXT)
        return (context_url(self.subject), own, CORE_CONTEXT)


def _term(attribute: Attribute) -> Any:
    return {"@id": attribute.iri, "@type": "@id"} if attribute.kind is Kind.RELATIONSHIP else attribute.iri


def context_url(subject: str) -> str:
    """The official JSON-LD context of a subject such as dataModel.Energy."""
    return f"https://raw.githubusercontent.com/smart-data-models/{subject}/master/context.jsonld"
