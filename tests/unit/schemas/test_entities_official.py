"""Our entity types against the official list of smartdatamodels.org, attribute by attribute."""

import re

import pytest
from support.smartdatamodels import OfficialModel, official

from flexrelay_schemas.entities import OFFICIAL_TYPES, Attribute, EntityType, Kind
from flexrelay_schemas.entities.attribute import context_url

NAMES = tuple(t.name for t in OFFICIAL_TYPES)
ATTRIBUTES = [(t, a) for t in OFFICIAL_TYPES for a in t.attributes]

UNIT_WORDS = {
    "WTT": r"^watt",
    "KWT": r"^kilowatt$",
    "KWH": r"^kilowatt hour",
    "D44": r"^volts?-ampere-reactive",
    "K5": r"^kilovolt-ampere-reactive$",
    "VLT": r"^volts?\b",
    "AMP": r"^amp",
    "CEL": r"celsius",
    "P1": r"percent",
}
"""What the list calls the unit (free text there) for each UN/CEFACT code that we use."""


def _home(entity_type: EntityType, attribute: Attribute) -> OfficialModel:
    return official(*NAMES)[attribute.lent_by or entity_type.name]


def test_the_list_knows_every_type_that_claims_to_be_official() -> None:
    models = official(*NAMES)
    assert set(models) == set(NAMES)
    for entity_type in OFFICIAL_TYPES:
        assert entity_type.subject == models[entity_type.name].subject


@pytest.mark.parametrize(("entity_type", "attribute"), ATTRIBUTES, ids=lambda x: x.name)
def test_attribute(entity_type: EntityType, attribute: Attribute) -> None:
    row = _home(entity_type, attribute).attributes[attribute.name]
    assert attribute.kind.value == row["typeNGSI"]
    assert attribute.json_type == row["type"]
    assert attribute.iri == row["context"]
    if attribute.enum:
        assert set(attribute.enum) == set(row["enum"])
    if attribute.lent_by:
        own = official(*NAMES)[entity_type.name].attributes
        assert attribute.name not in own, "borrowed although the model has it"


@pytest.mark.parametrize(("entity_type", "attribute"), ATTRIBUTES, ids=lambda x: x.name)
def test_unit(entity_type: EntityType, attribute: Attribute) -> None:
    """Where the list names a unit (in its own field, or as a code in the description), it is the one we write."""
    row = _home(entity_type, attribute).attributes[attribute.name]
    code = attribute.conversion.unit_code if attribute.conversion else None
    named = re.search(r"\*\*([A-Z0-9]{2,3})\*\* represents", row["description"] or "")
    if named:
        assert code == named[1]
    if row.get("units"):
        assert code is not None
        assert re.search(UNIT_WORDS[code], row["units"].strip().lower())


@pytest.mark.parametrize("entity_type", OFFICIAL_TYPES, ids=lambda t: t.name)
def test_required_attributes_are_marked_and_present(entity_type: EntityType) -> None:
    required = set(official(*NAMES)[entity_type.name].required) - {"id", "type"}
    assert set(entity_type.required) == required


@pytest.mark.parametrize("entity_type", OFFICIAL_TYPES, ids=lambda t: t.name)
def test_context(entity_type: EntityType) -> None:
    assert context_url(entity_type.subject) == official(*NAMES)[entity_type.name].context
    assert entity_type.context[0] == context_url(entity_type.subject)
    own = entity_type.context[1]
    assert isinstance(own, dict)
    lent = {a.name: a.iri for a in entity_type.attributes if a.lent_by}
    assert lent.items() <= own.items()
    if "phaseVoltage" in lent:  # its members must have names too
        rows = official(*NAMES)["ACMeasurement"].attributes["phaseVoltage"]["subpropertiesContext"]
        assert all(row.items() <= own.items() for row in rows)


def test_relationships_and_geo_properties_are_what_we_think() -> None:
    """The list calls ACMeasurement.refDevice a Property and ThreePhaseAcMeasurement's a Relationship; so do we."""
    kinds = {(t.name, a.name): a.kind for t, a in ATTRIBUTES}
    assert kinds["ACMeasurement", "refDevice"] is Kind.PROPERTY
    assert kinds["ThreePhaseAcMeasurement", "refDevice"] is Kind.RELATIONSHIP
    assert {kind for (_, name), kind in kinds.items() if name == "location"} == {Kind.GEO}
