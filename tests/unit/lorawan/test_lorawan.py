"""Binary layouts, what network servers say of downlinks, frame counters, configurations that are refused."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from conformance.adapters.lorawan.rig import DOWN, EUI, PORTS, TOPICS, UPS, chirpstack_up
from support.mqtt_hand import Message

from flexrelay_adapters._binary import BinaryCommand, BinaryField, BinaryLayout
from flexrelay_adapters._counters import Counters
from flexrelay_adapters.lorawan import LorawanMqtt, LorawanWebhook, make_adapter
from flexrelay_adapters.lorawan.config import Downlink
from flexrelay_adapters.lorawan.servers import SERVERS, LorawanDialect, key_of
from flexrelay_sdk import Command, DecodeError, SinkUnavailable
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.testkit import RecordingSink, running

PARAMETERS = {"power_w": -1200, "from_ms": 1_700_000_000_000, "until_ms": 1_700_000_900_000}
COMMAND = Command("c-1", "did:example:d", EUI, "set_power", PARAMETERS, 1_700_000_900_000, "o")


@pytest.mark.parametrize(
    ("field", "data", "value"),
    [
        ({"offset": 1, "length": 2}, "00ff01", 0xFF01),
        ({"offset": 1, "length": 2, "endian": "little"}, "00ff01", 0x01FF),
        ({"offset": 0, "length": 3, "type": "int"}, "fffffe", -2),
        ({"offset": 0, "length": 2, "scale": -1}, "00ff", Decimal("25.5")),
        ({"offset": 0, "length": 1, "scale": 2}, "ff", Decimal(25500)),
        ({"offset": 0, "length": 3, "type": "bcd"}, "123456", 123456),
        ({"offset": 0, "length": 3, "type": "bcd", "endian": "little"}, "563412", 123456),
        ({"offset": 0, "length": 4, "type": "float"}, "3dcccccd", Decimal("0.1")),
        ({"offset": 0, "length": 8, "type": "float", "endian": "little"}, "9a9999999999b93f", Decimal("0.1")),
        ({"offset": 0, "length": 8}, "f" * 16, 2**64 - 1),
    ],
)
def test_a_field_is_read_exactly(field: dict[str, Any], data: str, value: Any) -> None:
    assert BinaryField.model_validate(field).read(bytes.fromhex(data), "x") == value


def test_fields_that_are_not_there_or_no_numbers_are_refused() -> None:
    layout = BinaryLayout.model_validate({"fields": {"a": {"offset": 2, "length": 2}}, "length": 4})
    for data, reason in [(b"abc", "wrong_length"), (b"", "wrong_length")]:
        with pytest.raises(DecodeError) as told:
            layout.read(data)
        assert told.value.reason == reason
    for field, data in [
        ({"offset": 0, "length": 4, "type": "float"}, "7fc00000"),
        ({"offset": 0, "length": 1, "type": "bcd"}, "0a"),
    ]:
        with pytest.raises(DecodeError, match="not_a_number"):
            BinaryField.model_validate(field).read(bytes.fromhex(data), "x")
    with pytest.raises(ValueError, match="length 4 or 8"):
        BinaryField.model_validate({"offset": 0, "length": 2, "type": "float"})


def test_a_command_is_written_or_says_why_not() -> None:
    down = Downlink.model_validate(DOWN)
    data = down.write({**PARAMETERS, "expires_at": 5})
    assert data.hex() == "01fffffb50" + "6553f100" + "6553f484" + "0000000000000005"
    short = BinaryCommand.model_validate({"fields": {"power_w": {"offset": 0, "length": 1, "scale": 2}}})
    assert short.write({"power_w": 1200}) == b"\x0c"
    for power_w in (1250, -100, 100_000):
        with pytest.raises(ValueError, match="power_w"):
            short.write({"power_w": power_w})
    with pytest.raises(ValueError, match="has no power_w"):
        short.write({"on": 1})


def test_the_network_servers_answers_belong_to_the_command() -> None:
    downs = {"set_power": Downlink.model_validate(DOWN)}
    for server in ("chirpstack", "things_stack"):
        dialect = LorawanDialect(SERVERS[server], "app", downs)
        sent = json.loads(dialect.payload(COMMAND))
        assert dialect.payload(COMMAND) == json.dumps(sent).encode(), "the same command is the same downlink"
        key = key_of("c-1")
        if server == "chirpstack":
            assert sent["id"] == key and sent["devEui"] == EUI
            base = f"application/app/device/{EUI}/event"
            told = [("ack", {"queueItemId": key, "acknowledged": True}), ("ack", {"queueItemId": key}),
                    ("txack", {"queueItemId": key}), ("ack", {"queueItemId": key_of("another")}),
                    ("log", {"level": "ERROR", "code": "EXPIRED", "context": {"queue_item_id": key}})]  # fmt: skip
            states = ["acked", "failed", None, None, "failed"]
        else:
            item = sent["downlinks"][0]
            base = f"v3/app/devices/{EUI}/down"
            told = [("ack", {"downlink_ack": item}), ("nack", {"downlink_nack": item}),
                    ("sent", {"downlink_sent": item}),
                    ("ack", {"correlation_ids": ["as:x"]}),
                    ("failed", {"downlink_failed": {"downlink": item}})]  # fmt: skip
            states = ["acked", "failed", None, None, "failed"]
        found = [dialect.result(f"{base}/{event}", json.dumps(document).encode()) for event, document in told]
        assert [result.state if result is not None else None for result in found] == states
        assert {result.command_id for result in found if result is not None} == {"c-1"}
        for junk in (b"", b"[]", b"\xff", b'{"queueItemId": 5}', b"[" * 9999):
            try:
                assert dialect.result(f"{base}/ack", junk) is None
            except ValueError:
                pass


def test_a_downlink_that_is_not_confirmed_is_acked_by_its_sending() -> None:
    downs = {"set_power": Downlink.model_validate({**DOWN, "confirmed": False})}
    dialect = LorawanDialect(SERVERS["chirpstack"], "app", downs)
    dialect.payload(COMMAND)
    result = dialect.result("application/app/device/x/event/txack", json.dumps({"queueItemId": key_of("c-1")}).encode())
    assert result is not None and result.state == "acked"


def test_gaps_and_new_beginnings_of_a_counter() -> None:
    counters = Counters("x", 4096)
    for count in (4090, 4091, 4091, 4095, 2, 3, 0):
        counters.note("d", count)
    assert (counters.missing, counters.restarts) == (3 + 2, 1)


async def test_other_events_are_answered_and_not_stored(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"ns:{hashlib.sha256(b'token').hexdigest()}\n")
    section = {"server": "chirpstack", "http": {"port": 0, "tokens_file": "tokens"}, "ports": PORTS}
    adapter = make_adapter("field", section, tmp_path, NoNativeCodec())
    assert isinstance(adapter, LorawanWebhook)
    sink = RecordingSink()
    async with (
        running(adapter, sink),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{adapter.port}", timeout=60) as server,
    ):
        server.headers["authorization"] = "Bearer token"
        for event in ("join", "status", "ack", "txack", "log"):
            assert (await server.post(f"/lorawan?event={event}", json={"x": 1})).status_code == 204
        for count in (1, 5):
            up = chirpstack_up(b"\0\0\0\1", count)
            assert (await server.post("/lorawan?event=up", json=up)).json()["outcome"] == "stored"
    assert sink.entered == 2 and sink.dead == [] and adapter.counters.missing == 3
    assert {frame.credential for frame in sink.frames} == {EUI}


def empty_uplinks(server: str) -> list[dict[str, Any]]:
    """Frames 2 to 7: MAC commands on port 0, an acknowledgement alone, no payload; as both servers may write them."""
    up, found = UPS[server], []
    for count, (port, data, has_data) in enumerate(
        [(0, b"", False), (0, b"", True), (0, b"\x02\x30", True), (2, b"", False), (2, b"", True), (9, b"", True)], 2
    ):
        document = up(data, count)
        holder = document if server == "chirpstack" else document["uplink_message"]
        names = ("fPort", "data") if server == "chirpstack" else ("f_port", "frm_payload")
        holder[names[0]] = port
        if count % 2 and not port:
            del holder[names[0]]  # left out, as protobuf's JSON leaves out zeros
        if not has_data:
            del holder[names[1]]
        found.append(document)
    return found


@pytest.mark.parametrize("server", UPS)
async def test_uplinks_without_anything_in_them_are_counted_and_no_dead_letters(tmp_path: Path, server: str) -> None:
    (tmp_path / "tokens").write_text(f"ns:{hashlib.sha256(b'token').hexdigest()}\n")
    section = {"server": server, "http": {"port": 0, "tokens_file": "tokens"}, "ports": PORTS}
    adapter, sink = make_adapter("field", section, tmp_path, NoNativeCodec()), RecordingSink()
    assert isinstance(adapter, LorawanWebhook)
    async with (
        running(adapter, sink),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{adapter.port}", timeout=60) as poster,
    ):
        poster.headers["authorization"] = "Bearer token"
        whole = [UPS[server](b"\0\0\0\1", 1), *empty_uplinks(server), UPS[server](b"\0\0\0\2", 8)]
        answers = [await poster.post("/lorawan/up", json=each) for each in whole]
    assert [answer.status_code for answer in answers] == [200, *[204] * 6, 200]
    assert sink.values() == [1, 2] and sink.dead == [] and sink.faults == []
    assert (adapter.counters.missing, adapter.counters.restarts) == (0, 0), "an empty uplink is none that is missing"


@pytest.mark.parametrize("server", UPS)
async def test_empty_uplinks_of_another_device_or_too_large_are_still_refused(tmp_path: Path, server: str) -> None:
    """By way of MQTT, where the topic says whose they are."""
    section = {
        "server": server,
        "client_id": "gw",
        "mqtt": {"host": "h", "application": "app" if server == "chirpstack" else "app@tenant",
                 "options": {"max_payload_bytes": 65_536}},
        "ports": PORTS,
    }  # fmt: skip
    adapter, sink = make_adapter("field", section, tmp_path, NoNativeCodec()), RecordingSink()
    assert isinstance(adapter, LorawanMqtt)
    own, other = TOPICS[server][0], TOPICS[server][0].replace(EUI, "0011223344556677")
    empty = empty_uplinks(server)
    large = {**empty[0], "padding": "x" * 70_000}
    messages = [(own, UPS[server](b"\0\0\0\1", 1)), *((own, each) for each in empty), (other, empty[0]), (own, large),
                (own, UPS[server](b"\0\0\0\2", 8))]  # fmt: skip
    inbound = [Message(topic, json.dumps(document).encode()) for topic, document in messages]
    adapter._sink = sink
    await adapter.take(inbound, 0)
    assert sink.values() == [1, 2] and sink.batches == [4]
    assert [reason for _, reason in sink.dead] == ["wrong_sender", "oversized"]
    assert (adapter.counters.missing, adapter.counters.restarts) == (0, 0)
    await adapter.take(inbound[1:3], 0)
    assert sink.entered == 1, "a batch of empty ones alone is none"
    sink.refuse = 1
    with pytest.raises(SinkUnavailable):
        await adapter.take([Message(own, json.dumps(UPS[server](b"\0\0\0\3", 20)).encode())], 0)
    assert adapter.counters.missing == 0, "what was not stored is not counted: it comes again"


def test_configurations_that_cannot_work_are_refused(tmp_path: Path) -> None:
    base: dict[str, Any] = {"server": "chirpstack", "ports": PORTS}
    http = {"port": 0, "tokens_file": "t"}
    mqtt = {"host": "h", "application": "a"}
    no_expiry = {"f_port": 1, "fields": {"power_w": {"offset": 0, "length": 2}}}
    for section, words in [
        (base, "mqtt or http"),
        ({**base, "http": http, "mqtt": mqtt}, "mqtt or http"),
        ({**base, "mqtt": mqtt}, "client_id"),
        ({**base, "http": http, "commands": {"set_power": DOWN}}, "commands go by mqtt"),
        ({**base, "mqtt": mqtt, "client_id": "c", "commands": {"set_power": no_expiry}}, "expires_at"),
        ({**base, "mqtt": mqtt, "client_id": "c", "commands": {"dance": DOWN}}, "no command"),
        ({**base, "http": http, "ports": PORTS * 2}, "twice"),
        ({**base, "http": http, "ports": [{**PORTS[0], "absent_is_zero": ["import_j"]}]}, "not mapped"),
        ({**base, "mqtt": {**mqtt, "options": {"no_such": 1}}, "client_id": "c"}, r"^mqtt\.options\.no_such"),
    ]:
        with pytest.raises(ValueError, match=words):
            make_adapter("field", section, tmp_path, NoNativeCodec())
