"""Claim codes: the same for the same key, mistyped ones noticed, operations found by code and controller."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from support.contracts import sign

from flexrelay.commissioning.claims import claim_code, read_code, read_operations, signed_create
from flexrelay.commissioning.errors import CommissioningError
from flexrelay_schemas.did import Create, key_hash, operation_message
from flexrelay_schemas.keys import multikey

OWNER = "did:flexrelay:pilot:zQmXbRcfgQhCkgTqFM5ZqZJjyg4sM1HS6aY3KgwQzUPbE4u"


def signed(private: ec.EllipticCurvePrivateKey, controller: str = OWNER, nonce: str = "0" * 32) -> dict[str, object]:
    following = ec.generate_private_key(ec.SECP256R1())
    operation = Create(
        network="pilot",
        kind="device",
        controller=controller,
        key=multikey(private.public_key()),
        next_key_hash=key_hash(multikey(following.public_key())),
        nonce=nonce,
    )
    return {"operation": operation.model_dump(), "proof": sign(private, operation_message(operation))}


def test_a_code_is_read_as_people_type_it() -> None:
    for _ in range(200):
        code = claim_code(multikey(ec.generate_private_key(ec.SECP256R1()).public_key()))
        assert len(code) == 34 and code.count("-") == 6
        typed = code.lower().replace("-", " ").replace("0", "o").replace("1", "l")
        assert read_code(typed) == code == read_code(code)


def test_a_mistyped_code_is_noticed() -> None:
    code = claim_code("zKey")
    digits = code.replace("-", "")
    noticed = tried = 0
    for place in range(len(digits)):
        for other in "0123456789ABCDEFGHJKMNPQRSTVWXYZ":
            if other != digits[place]:
                tried += 1
                try:
                    read_code(digits[:place] + other + digits[place + 1 :])
                except ValueError:
                    noticed += 1
    assert noticed >= tried - 3, f"{tried - noticed} of {tried} single slips were not noticed"
    for bad in ("", "ABC", digits + "0", digits[:-1] + "U", digits[:-1] + "é"):
        with pytest.raises(ValueError, match=r"28 letters|mistyped"):
            read_code(bad)


def test_operations_are_found_by_code_and_controller(tmp_path: Path) -> None:
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
    documents = [signed(key) for key in keys]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(each) for each in documents[:2]) + "\n")
    (tmp_path / "b.json").write_text(json.dumps(documents[2], indent=2))
    found = read_operations(tmp_path)
    assert set(found) == {(claim_code(multikey(key.public_key())), OWNER) for key in keys}
    (tmp_path / "c.json").write_text(json.dumps(signed(keys[0], nonce="1" * 32)))
    with pytest.raises(CommissioningError, match=r"c\.json, line 1: another operation"):
        read_operations(tmp_path)


def test_an_operation_that_another_key_signed_is_none(tmp_path: Path) -> None:
    document = signed(ec.generate_private_key(ec.SECP256R1()))
    other = signed(ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(ValueError, match="proof does not hold"):
        signed_create({**document, "proof": other["proof"]})
    for value in (None, [], {}, {"operation": document["operation"]}, {**document, "proof": 7}):
        with pytest.raises(ValueError, match="not a signed create operation"):
            signed_create(value)
    (tmp_path / "x.jsonl").write_text(json.dumps(document) + "\n{broken\n")
    with pytest.raises(CommissioningError, match=r"x\.jsonl, line 2: not JSON"):
        read_operations(tmp_path / "x.jsonl")
    with pytest.raises(CommissioningError, match="No such file"):
        read_operations(tmp_path / "nothing.json")
