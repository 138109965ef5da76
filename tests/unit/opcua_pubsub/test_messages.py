"""NetworkMessages: every form that the content masks allow, exact bytes, and refusals."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.opcua_publisher import data_set_message, network_message

from flexrelay_adapters.opcua_pubsub.message import data_set_message as decoded
from flexrelay_adapters.opcua_pubsub.message import is_publisher, writer_of
from flexrelay_adapters.opcua_pubsub.message import network_message as divided
from flexrelay_sdk import DecodeError

ONE, TWO = data_set_message({"Power": 1}), data_set_message({"Power": 2.50}, 2, "battery")


@pytest.mark.parametrize(
    ("payload", "publisher", "count"),
    [
        (network_message(ONE, TWO), "plc1", 2),
        (network_message(ONE, TWO, publisher=62541), "62541", 2),  # 1.04 has numbers, too
        (json.dumps({"MessageId": "1", "MessageType": "ua-data", "Messages": ONE}).encode(), "", 1),
        (json.dumps([ONE, TWO]).encode(), "", 2),  # no header of the NetworkMessage
        (json.dumps(ONE).encode(), "", 1),
        (json.dumps({**ONE, "PublisherId": "plc1"}).encode(), "plc1", 1),
        (b'{"Power": 1, "Import": 2}', "", 1),  # no header at all
        (b'[{"Power": 1}, {"Power": 2}]', "", 2),
        (b'{"DataSetWriterId": 1, "SequenceNumber": 3}', "", 1),  # a keep-alive of 1.04
    ],
)
def test_what_the_masks_leave_out_may_be_missing(payload: bytes, publisher: str, count: int) -> None:
    found = divided(payload)
    assert (found.kind, found.publisher, len(found.messages)) == ("ua-data", publisher, count)
    for message in found.messages:
        assert message.raw in payload and decoded(message.raw) == message


@pytest.mark.parametrize(
    ("payload", "pieces"),
    [
        (' {"Messages" : [ {"P": 1} , {"P":2}\n] , "MessageType": "ua-data" } ', ['{"P": 1}', '{"P":2}']),
        ('{"x": {"Messages": [1]}, "MessageType": "ua-data", "Messages": [{"P": 1}]}', ['{"P": 1}']),
        ('{"MessageType": "ua-data", "x": "\\"Messages\\":[", "Messages": {"P": 1 }}', ['{"P": 1 }']),
        (' {"x": {"Messages": [1]}} ', [' {"x": {"Messages": [1]}} ']),
        ('{"P": "Messages"}', ['{"P": "Messages"}']),
    ],
)
def test_messages_are_found_wherever_they_stand(payload: str, pieces: list[str]) -> None:
    assert [message.raw.decode() for message in divided(payload.encode()).messages] == pieces


def test_bytes_stay_as_they_came() -> None:
    odd = '{ "DataSetWriterId" :1,\n "Payload":{"Lei\\u0073tung \\" ]}":  1.50, "é": "]}, {"} }'
    payload = f'{{"MessageId": "a]\\"", "Mess\\u0061ges" :  [{odd} , {odd}\t], "MessageType": "ua-data"}}'.encode()
    found = divided(payload)
    assert [message.raw.decode() for message in found.messages] == [odd, odd]
    assert (
        found.messages[0].header["Payload"]['Leistung " ]}'] == decoded(odd.encode()).header["Payload"]['Leistung " ]}']
    )


@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=8),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)
            ),
            max_size=4,
        ).map(lambda payload: {"DataSetWriterId": 1, "Payload": payload}),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([None, 1, "\t"]),
    st.booleans(),
)
def test_any_payload_is_found_again(messages: list[dict[str, object]], indent: int | str | None, ascii_: bool) -> None:
    whole = {"x": "[{", "MessageType": "ua-data", "Messages": messages, "y": ["Messages"]}
    payload = json.dumps(whole, indent=indent, ensure_ascii=ascii_).encode(errors="replace")
    try:
        found = divided(payload)
    except DecodeError as error:
        assert error.reason in ("duplicate_name", "not_json", "not_a_number")  # "\ud800" became "?" beside another
        return
    assert [json.loads(message.raw) for message in found.messages] == json.loads(payload)["Messages"]


@pytest.mark.parametrize("kind", ["ua-metadata", "ua-status", "ua-connection", "ua-application", "ua-action-request"])
def test_announcements_are_told_apart(kind: str) -> None:
    found = divided(json.dumps({"MessageType": kind, "PublisherId": "p", "DataSetWriterId": 1}).encode())
    assert found.kind == kind and found.messages == () and found.publisher == "p"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not_json"),
        (b"\xff", "not_utf8"),
        (b'{"a": 1', "not_json"),
        (b"[" * 20_000, "not_json"),
        (b"{}", "not_pubsub"),
        (b"7", "not_pubsub"),
        (b"[]", "not_pubsub"),
        (b"[1]", "not_pubsub"),
        (b" [ ] ", "not_pubsub"),
        (b' {"MessageType": "ua-data", "Messages": [ ] }', "not_pubsub"),
        (b'{"MessageType": "ua-data", "Messages": [{"a": 1},]}', "not_json"),
        (b'{"MessageType": "ua-data", "Messages": [{"a": 1}]]', "not_json"),
        (b'[{"a": 1}}', "not_json"),
        (b'{"MessageType": "ua-data", "Messages": [{"a": 1}], "Messages": 1}', "duplicate_name"),
        (b'{"MessageType": "ua-data", "Messages": []}', "not_pubsub"),
        (b'{"MessageType": "ua-data", "Messages": 5}', "not_pubsub"),
        (b'{"MessageType": "other", "Messages": [{"a": 1}]}', "not_pubsub"),
        (b'{"MessageType": ["ua-data"], "Messages": [{"a": 1}]}', "not_pubsub"),
        (b'{"PublisherId": {}, "MessageType": "ua-data", "Messages": [{"a": 1}]}', "not_pubsub"),
        (b'{"DataSetWriterId": 1, "Payload": [1]}', "not_pubsub"),
        (b'{"MessageType": "ua-data", "Messages": [{"a": 1, "a": 2}]}', "duplicate_name"),
        (b"[" + b",".join([b"{}"] * 257) + b"]", "too_many"),
    ],
)
def test_anything_else_is_refused(payload: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as refused:
        divided(payload)
    assert refused.value.reason == reason


def test_who_it_is() -> None:
    assert writer_of({"DataSetWriterId": 5, "DataSetWriterName": "meter"}) == "5"
    assert writer_of({"DataSetWriterId": "5"}) == "5"
    assert writer_of({"DataSetWriterName": "meter"}) == "meter"
    assert writer_of({}) == ""
    with pytest.raises(DecodeError):
        writer_of({"DataSetWriterId": [1]})
    assert is_publisher("plc1", "plc1") and is_publisher("urn:x/y", "urn:x%2Fy") and not is_publisher("plc2", "plc1")
