"""Our proposals for flexibility trading, in the form of the smart data models: prognosis, request, offer, order,
activation, settlement (UFTP's messages, as entities).

Power is positive for withdrawal. Intervals are objects with `isp` (from 1, on the local date `marketDate`). Money is
in the currency that `priceCurrency` names (ISO 4217); a UN/CEFACT code for it does not exist.
"""

from typing import Final

from flexrelay_schemas.entities.attribute import TERMS, Attribute, EntityType, JsonType, Kind
from flexrelay_schemas.entities.units import KILOWATT, KILOWATT_HOUR, Conversion


def _attribute(
    name: str,
    json_type: JsonType = "string",
    conversion: Conversion | None = None,
    *,
    required: bool = True,
    enum: tuple[str, ...] = (),
    observed: bool = False,
) -> Attribute:
    return Attribute(name, json_type, TERMS + name, Kind.PROPERTY, conversion, required, observed, enum)


def _reference(name: str, *, required: bool = True) -> Attribute:
    return Attribute(name, "string", TERMS + name, Kind.RELATIONSHIP, required=required)


_MARKET = (
    _attribute("product"),
    _attribute("marketDate"),
    _attribute("ispDuration"),
    _reference("refCongestionPoint", required=False),
)
"""What every market entity says: product id, local date YYYY-MM-DD, ISO 8601 duration (PT15M), congestion point."""

_MONEY = (_attribute("price", "number"), _attribute("priceCurrency"))

PROGNOSIS: Final = EntityType(
    "FlexibilityPrognosis",
    "",
    (
        *_MARKET,
        _reference("refProvider"),
        _attribute("revision", "number"),
        _attribute("plannedPower", "array", KILOWATT),
        _attribute("dateIssued"),
    ),
)
"""D-prognosis: `plannedPower` has one number an ISP, from ISP 1."""

REQUEST: Final = EntityType(
    "FlexibilityRequest",
    "",
    (
        *_MARKET,
        _reference("refBuyer"),
        _attribute("requestedPower", "array", KILOWATT),
        _attribute("validUntil"),
        _attribute("dateIssued"),
    ),
)
"""`requestedPower`: objects {isp, disposition: requested | available, minPower, maxPower}, relative to prognoses."""

OFFER: Final = EntityType(
    "FlexibilityOffer",
    "",
    (
        *_MARKET,
        _reference("refProvider"),
        _reference("refRequest"),
        _attribute("option"),
        _attribute("offeredPower", "array", KILOWATT),
        *_MONEY,
        _attribute("minActivationFactor", "number"),
        _attribute("validUntil"),
        _attribute("dateIssued"),
    ),
)
"""One option of an offer, several with the same refRequest make it whole; `offeredPower`: objects {isp, power};
`price` is for the whole option."""

ORDER: Final = EntityType(
    "FlexibilityOrder",
    "",
    (
        *_MARKET,
        _reference("refBuyer"),
        _reference("refProvider"),
        _reference("refOffer"),
        _attribute("option"),
        _attribute("activationFactor", "number"),
        _attribute("orderedPower", "array", KILOWATT),
        *_MONEY,
        _attribute("dateIssued"),
    ),
)
"""`orderedPower`: objects {isp, power}, the option's power times the activation factor."""

ACTIVATION: Final = EntityType(
    "FlexibilityActivation",
    "",
    (
        *_MARKET,
        _reference("refOrder"),
        _reference("refDevice"),
        _attribute("commandId"),
        _attribute("setpointPower", "number", KILOWATT),
        _attribute("startDateTime"),
        _attribute("endDateTime"),
        _attribute("status", enum=("queued", "sent", "acked", "failed", "expired")),
        _attribute("deliveredEnergy", "number", KILOWATT_HOUR, required=False, observed=True),
    ),
)
"""A command to one device and, once measured, what it delivered."""

SETTLEMENT: Final = EntityType(
    "FlexibilitySettlement",
    "",
    (
        *_MARKET,
        _reference("refOrder"),
        _reference("refBuyer"),
        _reference("refProvider"),
        _attribute("settlementRun", "number"),
        _attribute("energyLines", "array", KILOWATT_HOUR, observed=True),
        _attribute("netAmount", "number"),
        _attribute("priceCurrency"),
        _attribute("status", enum=("proposed", "accepted", "disputed", "resolved")),
    ),
)
"""`energyLines`: objects {isp, ordered, baseline, actual, delivered, deficiency}; `netAmount` is what the provider
receives (negative: pays)."""

FLEXIBILITY_TYPES: Final = (PROGNOSIS, REQUEST, OFFER, ORDER, ACTIVATION, SETTLEMENT)
