"""The native codec: DecodeError and nothing else, and never more than a contract would take as evidence."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.contracts import Party
from support.readings import NOW, frame_of, signed_payload

from flexrelay.ingest import NativeCodec, decode_signed
from flexrelay.journal.registers import NAMES, InvalidRegisters, cumulative, pack_registers, unpack_registers
from flexrelay_schemas.canonical import MAX_INTEGER, parse
from flexrelay_schemas.reading import REGISTERS, SignedReading
from flexrelay_sdk import DecodeError

METER = Party.new("device")
GOOD = signed_payload(METER, NOW, {"import_j": 5, "power_w": -7}, 3)

scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


def accepted_by_a_contract(payload: bytes) -> bool:
    try:
        SignedReading.model_validate(parse(payload))
    except ValueError:
        return False
    return True


def decode(payload: bytes) -> bool:
    """Whether it is taken; anything but DecodeError fails the test."""
    try:
        decoded = decode_signed(payload)
    except DecodeError as error:
        assert error.reason and error.reason.replace("_", "").isalnum()
        return False
    signed = SignedReading.model_validate(parse(payload))
    assert decoded.proof is not None and decoded.proof.message == signed.reading.message()
    assert decoded.measurements[0].registers == signed.reading.registers
    return True


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(payload: bytes) -> None:
    assert decode(payload) == accepted_by_a_contract(payload)


@settings(max_examples=1000, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 3), st.binary(max_size=4))
def test_changed_bytes_of_a_good_payload(place: int, removed: int, inserted: bytes) -> None:
    payload = GOOD[:place] + inserted + GOOD[place + removed :]
    assert decode(payload) == accepted_by_a_contract(payload)


@settings(max_examples=1000, deadline=None)
@given(st.data())
def test_any_value_in_any_field(data: st.DataObject) -> None:
    document = json.loads(GOOD)
    place = data.draw(st.sampled_from([document, document["reading"], document["reading"]["registers"]]))
    name = data.draw(st.one_of(st.sampled_from(sorted(place)), st.sampled_from(sorted(REGISTERS)), st.text(max_size=5)))
    place[name] = data.draw(values)
    try:
        payload = json.dumps(document, ensure_ascii=data.draw(st.booleans())).encode()
    except UnicodeEncodeError:
        return
    assert decode(payload) == accepted_by_a_contract(payload)


def test_a_good_payload_in_every_form() -> None:
    assert decode(GOOD)
    assert decode(json.dumps(json.loads(GOOD), indent=2).encode())
    with pytest.raises(DecodeError, match="too_large"):
        NativeCodec(10).decode(frame_of(METER.did, GOOD))


def test_the_names_of_registers_have_bits() -> None:
    assert set(NAMES) == REGISTERS and len(NAMES) == len(REGISTERS)


@given(st.dictionaries(st.sampled_from(NAMES), st.integers(0, MAX_INTEGER), min_size=1))
def test_registers_survive_packing(registers: dict[str, int]) -> None:
    packed = pack_registers(registers)
    assert unpack_registers(b"xx" + packed, 2) == (registers, len(packed) + 2)
    assert pack_registers(dict(reversed(registers.items()))) == packed
    assert cumulative(packed) == (registers.get("import_j"), registers.get("export_j"))


@pytest.mark.parametrize("value", [True, 1.5, "1", None, MAX_INTEGER + 1, -MAX_INTEGER - 1, 2**80])
def test_only_integers_are_registers(value: object) -> None:
    with pytest.raises(InvalidRegisters, match="power_w"):
        pack_registers({"import_j": 1, "power_w": value})  # type: ignore[dict-item]
