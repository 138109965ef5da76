"""What an actor has signed, cut out of the intent's wire form: the same bytes as encoding it again."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.contracts import Party, sign

from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import carried_intent, decode_intent, verify_intent
from flexrelay_schemas.canonical import MAX_INTEGER, canonical
from flexrelay_schemas.intent import INTENT_DOMAIN, Intent, SignedIntent

ACTOR = Party.new()
GOOD = ACTOR.intent("accounts.fund", {"name": "é\u0000\ud7ff", "list": [1, None, {"x": "\U0010ffff"}]}, deadline=5)

scalars = st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | st.text(max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


def verified(data: bytes) -> bool:
    """Whether the intent is taken as its actor's; anything but Refused fails the test."""
    try:
        verify_intent(carried_intent(data), ACTOR.operation.key)
    except Refused as refused:
        assert refused.code in ("malformed", "unknown_version", "signature")
        return False
    return True


@given(st.dictionaries(st.text(max_size=6), values, max_size=4), st.integers(0, MAX_INTEGER))
def test_the_signed_bytes_are_those_of_the_intent(args: dict[str, Any], deadline: int) -> None:
    data = ACTOR.intent("accounts.fund", args, deadline=deadline)
    for form in (data, json.dumps(json.loads(data), indent=1).encode(), json.dumps(json.loads(data)).encode()):
        carried = carried_intent(form)
        assert carried.message == carried.signed.intent.message()
        assert carried.signed == decode_intent(data)
        assert verified(form)


@settings(max_examples=500)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 3), st.binary(max_size=3))
def test_changed_bytes_are_not_the_actor_s(place: int, removed: int, inserted: bytes) -> None:
    data = GOOD[:place] + inserted + GOOD[place + removed :]
    if not verified(data):
        return
    assert canonical(json.loads(data)) == GOOD  # only white space, or another way to write the same text


@pytest.mark.parametrize("version", [True, 1.0, "1", 2, None])
def test_another_version_is_refused_even_when_it_is_signed(version: Any) -> None:
    intent = {**Intent.model_validate(json.loads(GOOD)["intent"]).model_dump(), "v": version}
    text = json.dumps(intent, sort_keys=True, separators=(",", ":")).encode()
    signature = sign(ACTOR.private, INTENT_DOMAIN + text)
    data = json.dumps({"intent": intent, "signature": signature}, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(Refused, match=r"unknown_version|malformed"):
        carried_intent(data)


def test_the_wire_form_is_read_as_it_is_written() -> None:
    assert verified(GOOD)
    assert SignedIntent.model_validate_json(GOOD).encode() == GOOD
