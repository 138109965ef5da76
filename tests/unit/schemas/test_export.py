"""The exported files are what the code says, and they judge documents as the code does."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from flexrelay_schemas import credentials, export
from flexrelay_schemas.credentials import CONTEXT
from flexrelay_schemas.entities import TYPES, DeviceInfo, Entity, map_measurement
from flexrelay_schemas.jsonschema import load
from flexrelay_schemas.measurement import Measurement
from flexrelay_schemas.products import load_all
from flexrelay_schemas.quality import Notice, Provenance

DID = "did:flexrelay:demo:zQmQsjRUb8aftf27qgqFMw7RLAsxcGcvXWeWmKYnKdxZdLC"
SIGNATURE = "A" * 86
HASH = "ab" * 32
KEY = "z6MkehRgf7yJbgaGfYsdoAsKdBPE3dj2CYhowQdcjqSJgvVd"
WINDOW = {
    "v": 1,
    "device": DID,
    "date": "2016-05-20",
    "isp": 1,
    "revision": 1,
    "previous": "",
    "leaves": 1,
    "root": HASH,
}
PATH = {"index": 0, "size": 1, "hashes": [HASH]}
READING = {
    "did": DID,
    "key_version": 1,
    "network": "demo",
    "observed_at": 1463745600000,
    "registers": {"import_j": 5, "power_w": -7},
    "seq": 1,
}
ATTESTATION = {k: v for k, v in READING.items() if k != "seq"} | {"frame_sha256": HASH, "gateway": DID}
INTENT = {
    "v": 1,
    "network": "demo",
    "actor": DID,
    "key_version": 1,
    "intent_id": "i-1",
    "function": "market.offer",
    "args": {"a": [1]},
    "deadline": 5,
}
SAMPLES: dict[str, dict[str, Any]] = {
    "anchored-attestation": {
        "v": 2,
        "attestation": {k: v for k, v in ATTESTATION.items() if k not in ("gateway", "key_version")},
    },
    "calendar-day": {"date": "2016-05-20", "start": 1, "isps": 96, "isp_seconds": 900, "working": True},
    "did-create": {
        "v": 1,
        "op": "create",
        "network": "demo",
        "kind": "device",
        "controller": DID,
        "key": KEY,
        "next_key_hash": HASH,
        "nonce": "0" * 32,
    },
    "did-rotate": {
        "v": 1,
        "op": "rotate",
        "did": DID,
        "version": 2,
        "previous": HASH,
        "key": KEY,
        "next_key_hash": HASH,
    },
    "inclusion-proof": {
        "v": 1,
        "payload": "e30",
        "salt": "A" * 22,
        "in_window": PATH,
        "window": WINDOW,
        "in_anchor": PATH,
        "org": "dso",
        "anchor_id": "a-1",
    },
    "product": load_all()[0].model_dump(mode="json"),
    "role-credential": {
        "@context": list(CONTEXT),
        "type": list(credentials.TYPES),
        "issuer": DID,
        "validFrom": "2016-05-01T00:00:00Z",
        "validUntil": "2017-05-01T00:00:00.000Z",
        "credentialSubject": {"id": DID, "network": "demo", "role": "dso", "markets": ["*"]},
        "proof": {
            "type": "DataIntegrityProof",
            "cryptosuite": "eddsa-jcs-2022",
            "created": "2016-05-01T00:00:00Z",
            "verificationMethod": f"{DID}#v1",
            "proofPurpose": "assertionMethod",
            "proofValue": "z" + "2" * 87,
        },
    },
    "signed-attestation": {"v": 1, "attestation": ATTESTATION, "signature": SIGNATURE},
    "signed-intent": {"intent": INTENT, "signature": SIGNATURE},
    "signed-reading": {"v": 1, "reading": READING, "signature": SIGNATURE},
    "window": WINDOW,
}


def _valid(name: str, document: Any) -> bool:
    return bool(Draft202012Validator(load(name)).is_valid(document))


def test_no_drift() -> None:
    assert export.drift() == [], "run: python -m flexrelay_schemas.export"
    assert export.main(["--check"]) == 0


def test_drift_is_noticed_and_repaired(tmp_path: Path) -> None:
    assert len(export.write(tmp_path)) == len(export.documents())
    assert export.drift(tmp_path) == []
    (tmp_path / "window.schema.json").write_text("{}")
    (tmp_path / "product.schema.json").unlink()
    (tmp_path / "old.schema.json").write_text("{}")
    assert export.drift(tmp_path) == ["old.schema.json", "product.schema.json", "window.schema.json"]
    export.write(tmp_path)
    assert export.drift(tmp_path) == []


@pytest.mark.parametrize("name", sorted(n.removesuffix(".schema.json") for n in export.documents() if "schema" in n))
def test_each_is_a_schema_of_2020_12_with_its_own_id(name: str) -> None:
    schema = load(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:flexrelay:schema:{name.replace('/', ':')}:1"


def test_there_is_a_sample_of_every_wire_document() -> None:
    assert SAMPLES.keys() == export.WIRE.keys()


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_samples_fit_schema_and_model(name: str) -> None:
    assert _valid(name, SAMPLES[name])
    model = export.WIRE[name].model_validate_json(json.dumps(SAMPLES[name]))
    assert _valid(name, json.loads(model.model_dump_json(by_alias=True)))


ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**54), 2**54),
    st.sampled_from(
        [0.5, -1e300, "", "a", "A" * 86, "2016-02-30", "z" + "1" * 45, "€", "did:x", [], {}, [[]], {"a": 1}]
    ),
    st.text(max_size=4),
)
DEFAULTED = {"v", "op", "controller", "previous", "@context", "type", "proofPurpose"}


def _broken(document: dict[str, Any]) -> list[Any]:
    """The document with one thing wrong at a time: a stranger, a missing member, another type, another version."""
    result: list[Any] = [{**document, "stranger": 1}, [document], None]
    for name, value in document.items():
        if name not in DEFAULTED:
            result.append({k: v for k, v in document.items() if k != name})
        result.append({**document, name: "€" if isinstance(value, int | list | dict) else 2.5})
        if isinstance(value, dict) and name != "args":
            result += [{**document, name: inner} for inner in _broken(value)]
    return result


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_schema_and_model_refuse_the_same(name: str) -> None:
    for document in _broken(SAMPLES[name]):
        try:
            export.WIRE[name].model_validate_json(json.dumps(document))
            fits = True
        except ValueError:
            fits = False
        assert _valid(name, document) == fits, document


def _places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, value in inner for place in _places(value, (*path, key)))]


@pytest.mark.parametrize("name", sorted(SAMPLES.keys() - {"role-credential", "product"}))
@given(data=st.data())
def test_they_agree_on_any_value_in_any_place(name: str, data: st.DataObject) -> None:
    """Except for 1.0, which JSON Schema calls an integer and we do not, and a version of true, which the models read as
    1. Products and credentials have rules between their fields that a schema cannot say."""
    document = copy.deepcopy(SAMPLES[name])
    *way, last = data.draw(st.sampled_from(_places(document)[1:]))
    node = document
    for key in way:
        node = node[key]
    node[last] = data.draw(ODD_VALUES)
    assume(not (last == "v" and node[last] is True))
    try:
        export.WIRE[name].model_validate_json(json.dumps(document))
        fits = True
    except ValueError:
        fits = False
    assert _valid(name, document) == fits


@pytest.mark.parametrize(
    ("registers", "fits"),
    [
        ({"import_j": 0}, True),
        ({"import_j": -1}, False),
        ({}, False),
        ({"power_kw": 1}, False),
        ({"power_w": 2**53}, False),
    ],
)
def test_the_vocabulary_of_registers_is_in_the_schema(registers: dict[str, int], fits: bool) -> None:
    document = {**SAMPLES["signed-reading"], "reading": {**READING, "registers": registers}}
    assert _valid("signed-reading", document) == fits


KINDS = ["meter", "three_phase_meter", "smart_meter", "pv", "battery", "ev"]


@pytest.mark.parametrize("kind", KINDS)
def test_mapped_entities_fit_both_schemas(kind: str) -> None:
    static: dict[str, Any] = {
        "pv": {"temperature": 25},
        "ev": {"socketType": ["Type2"], "capacity": 1, "allowedVehicleType": ["car"]},
    }.get(kind, {})
    device = DeviceInfo(DID, kind, (9.5, 51.3), metering_started=0, static=static)
    registers = {"import_j": 5, "export_j": 0, "power_w": -7, "voltage_mv": 230_100, "soc_permille": 500}
    reading = Measurement(DID, 1463745600000, registers, 1, Provenance.METER_SIGNED, Notice.LATE)
    document = json.loads(json.dumps(map_measurement(kind, reading, device)))
    name = document["type"]
    assert _valid(f"entities/{name}.normalized", document)
    entity = Entity.from_normalized(TYPES[name], document)
    assert _valid(f"entities/{name}", json.loads(json.dumps(entity.to_key_values())))

    power = next(n for n in ("totalActivePower", "activePower", "powerConsumption") if n in document)
    bare = {k: v for k, v in document[power].items() if k != "unitCode"}
    for node in (bare, {**document[power], "unitCode": "MAW"}, {**document[power], "value": "7"}, 7):
        assert not _valid(f"entities/{name}.normalized", {**document, power: node})
    for required in ("id", "type", *TYPES[name].required):
        rest = {k: v for k, v in document.items() if k != required}
        assert not _valid(f"entities/{name}.normalized", rest)


def test_the_context_names_all_our_terms_once() -> None:
    terms = load("context")["@context"]
    assert {"FlexibilityOffer", "plannedPower", "quality", "refOrder"} <= terms.keys()
    iris = [term["@id"] if isinstance(term, dict) else term for term in terms.values()]
    assert len(set(iris)) == len(iris)
    assert terms["refOrder"] == {"@id": "urn:flexrelay:terms:refOrder", "@type": "@id"}
