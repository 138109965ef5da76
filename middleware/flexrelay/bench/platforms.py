"""From a broker to the journal in the protocols of IoT platforms: Sparkplug B, Ultralight 2.0, FIWARE IoT Agent JSON,
OPC UA PubSub.

As in `flexrelay.bench.mqtt` the messages wait in a real Mosquitto for the gateway's session (for Sparkplug too, which a
host application would not ask for), so the gateway is the bottleneck; counted is the CPU time of its one process until
the last acknowledgement. The bare client does nothing with the same messages but acknowledge them; Sparkplug's parses
each payload with protobuf, PubSub's with `json`.
"""

import asyncio
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from mqttium import MQTTProtocolVersion
from mqttium.api import AsyncClient, PublishMessage

from flexrelay.bench import Result, in_process
from flexrelay.bench.mqtt import NoBroker, bare_client
from flexrelay.collector import settle
from flexrelay.demo.accounts import Account
from flexrelay.demo.mosquitto import Mosquitto, mosquitto_path
from flexrelay.ingest import Enrolment, Ingest, NativeCodec, NoHistory, RegisterChecks, Registry
from flexrelay.journal import SqliteJournal
from flexrelay_adapters import fiware_json, opcua_pubsub, sparkplug, ultralight
from flexrelay_adapters.iotagent import IotAgentAdapter
from flexrelay_adapters.mqtt._client import KEPT, Session
from flexrelay_adapters.sparkplug.sparkplug_b_pb2 import Payload
from flexrelay_schemas.did import Create, key_hash

NETWORK: Final = "bench"
START: Final = 1_700_000_000_000
READINGS: Final = 40_000
MESSAGES: Final = 8_000
REGISTERS: Final = {"import_j": "Wh", "export_j": "Wh", "power_w": "W", "voltage_mv": "V", "current_ma": "A"}
INSTANTS: Final = 4
METRICS: Final = len(REGISTERS) * INSTANTS
"""In a Sparkplug message: five meter values at four instants."""
_METER: Final = ("import_j", "export_j", "power_w")
DEVICES: Final = 500
ROUNDS: Final = 3
KEY: Final = "benchkey"
_NOBODY: Final = "z" + "1" * 45
"""Nobody signs here."""


def run() -> list[Result]:
    """bare_… and sparkplug_metrics, ultralight, fiware_json, opcua_pubsub; the best of a few rounds.

    Raises NoBroker.
    """
    results: list[Result] = []
    for what, name, count, each, unit, bare_does in (
        ("sparkplug", "sparkplug_metrics", MESSAGES, METRICS, "metrics/CPU-s", "parsing with protobuf"),
        ("ultralight", "ultralight", READINGS, 1, "readings/CPU-s", "acknowledging only"),
        ("fiware_json", "fiware_json", READINGS, 1, "readings/CPU-s", "acknowledging only"),
        ("opcua_pubsub", "opcua_pubsub", READINGS, 1, "readings/CPU-s", "parsing JSON"),
    ):
        bare = each * max(_measure("bare", what, count) for _ in range(ROUNDS))
        value = each * max(_measure("receive", what, count) for _ in range(ROUNDS))
        against = f"the bare client, {bare_does}"
        results += [
            {"name": f"bare_{what}", "value": bare, "unit": unit, "ratio": 0.0, "against": ""},
            {"name": name, "value": value, "unit": unit, "ratio": value / bare, "against": against},
        ]
    return results


def _measure(role: str, what: str, count: int) -> float:
    """Messages per CPU-second of the receiving process."""
    program = mosquitto_path()
    if program is None:
        raise NoBroker("Mosquitto is not installed (Debian: apt install mosquitto); these figures need a real broker")
    with tempfile.TemporaryDirectory(prefix="flexrelay-bench-") as folder:
        return asyncio.run(_with_broker(program, Path(folder), role, what, count))


async def _with_broker(program: str, folder: Path, role: str, what: str, count: int) -> float:
    accounts = [
        Account("gateway", "gateway", read=("#",), write=("spBv1.0/#", "/#")),
        Account("load", "load", write=("spBv1.0/#", "/#", "opcua/json/#")),
    ]
    broker = Mosquitto(folder / "broker", accounts, program=program, max_inflight=2000)
    await broker.start()
    try:
        session = bare_client()
        await session.connect(broker.host, broker.port)
        for topic in _adapter(what, broker.port).filters():
            await session.subscribe(topic, qos=1)
        await session.disconnect()
        await asyncio.to_thread(_other, "load", what, str(broker.port), str(count))
        seconds = float(await asyncio.to_thread(_other, role, what, str(broker.port), str(count), str(folder)))
    finally:
        await broker.stop()
    return count / seconds


def _other(*arguments: str) -> str:
    return in_process("flexrelay.bench.platforms", *arguments)


class _Kept(sparkplug.SparkplugAdapter):
    """Takes what waits in its session."""

    def session(self) -> Session:
        super().session()
        return KEPT


def _adapter(what: str, port: int) -> Any:
    broker = {"port": port, "client_id": "gateway", "username": "gateway", "password": "gateway"}
    if what == "sparkplug":
        registers = {name: {"metric": f"Meter/{name}", "unit": unit} for name, unit in REGISTERS.items()}
        return _Kept(
            sparkplug.SparkplugConfig.from_section("bench", {**broker, "host_id": "bench", "registers": registers})
        )
    if what == "opcua_pubsub":
        registers = {name: {"field": name, "unit": REGISTERS[name]} for name in _METER}
        return opcua_pubsub.PubSubAdapter(
            opcua_pubsub.PubSubConfig.from_section("bench", {**broker, "datasets": [{"registers": registers}]})
        )
    make = ultralight.make_adapter if what == "ultralight" else fiware_json.make_adapter
    mapping = {name: {"pointer": f"/{name}", "unit": REGISTERS[name]} for name in _METER}
    made: IotAgentAdapter = make("bench", {"mqtt": broker, "codec": {"registers": mapping}}, Path(), NativeCodec())
    return made


def _credential(what: str, number: int) -> str:
    if what == "opcua_pubsub":
        return f"plc{number // 50}/{number}"
    return f"plant/n{number // 50}/d{number}" if what == "sparkplug" else f"{KEY}/d{number}"


def _messages(what: str, count: int) -> Iterator[PublishMessage]:
    if what == "sparkplug":
        yield from _sparkplug(count)
        return
    if what == "opcua_pubsub":
        yield from _pubsub(count)
        return
    for index in range(count):
        seq = index // DEVICES
        at = _iso(START + seq)
        head = f"/{'ul' if what == 'ultralight' else 'json'}/{_credential(what, index % DEVICES)}/attrs"
        if what == "ultralight":
            text = f"{at}|import_j|{seq * 7}|export_j|{seq}|power_w|1234.5"
        else:
            text = f'{{"TimeInstant":"{at}","import_j":{seq * 7},"export_j":{seq},"power_w":1234.5}}'
        yield PublishMessage(head, text, 1)


def _sparkplug(count: int) -> Iterator[PublishMessage]:
    nodes = DEVICES // 50
    sequence = [0] * nodes
    sent = 0
    for node in range(nodes):
        yield PublishMessage(f"spBv1.0/plant/NBIRTH/n{node}", Payload(timestamp=START, seq=0).SerializeToString(), 1)
    for number in range(DEVICES):
        node = number // 50
        sequence[node] = (sequence[node] + 1) % 256
        birth = Payload(timestamp=START, seq=sequence[node])
        for alias, name in enumerate(REGISTERS):
            birth.metrics.add(name=f"Meter/{name}", alias=alias, datatype=10, is_null=True)
        yield PublishMessage(f"spBv1.0/plant/DBIRTH/n{node}/d{number}", birth.SerializeToString(), 1)
    while sent < count - nodes - DEVICES:
        number, turn = sent % DEVICES, sent // DEVICES
        node = number // 50
        sequence[node] = (sequence[node] + 1) % 256
        payload = Payload(timestamp=START + 1000 * turn, seq=sequence[node])
        for instant in range(INSTANTS):
            at = START + (turn * INSTANTS + instant + 1) * 100
            for alias in range(len(REGISTERS)):
                payload.metrics.add(alias=alias, timestamp=at, double_value=1000.5 + turn * INSTANTS + instant)
        yield PublishMessage(f"spBv1.0/plant/DDATA/n{node}/d{number}", payload.SerializeToString(), 1)
        sent += 1


def _pubsub(count: int) -> Iterator[PublishMessage]:
    """Metadata of every writer, then key frames of DataValues, one in a NetworkMessage."""
    unit = {"UaType": 22, "Value": {"UaTypeId": "i=887", "UnitId": int.from_bytes(b"WHR", "big")}}
    energy = {"BuiltInType": 11, "Properties": [{"Key": "EngineeringUnits", "Value": unit}]}
    fields = [{"Name": name, **(energy if name.endswith("_j") else {"BuiltInType": 11})} for name in _METER]
    version = {"MajorVersion": 1, "MinorVersion": 1}
    for index in range(count):
        number, seq = index % DEVICES, index // DEVICES
        publisher, _, writer = _credential("opcua_pubsub", number).partition("/")
        header = {"MessageId": f"{index}", "PublisherId": publisher}
        named = {"DataSetWriterId": number, "DataSetWriterName": "meter"}
        if not seq:
            told = {**header, "MessageType": "ua-metadata", **named}
            told["MetaData"] = {"Name": "meter", "Fields": fields, "ConfigurationVersion": version}
            yield PublishMessage(f"opcua/json/metadata/{publisher}/g/{writer}", json.dumps(told), 1)
            continue
        at = _iso(START + seq)
        values = zip(_METER, (seq * 7, seq, 1234.5), strict=True)
        message = {
            **named,
            "SequenceNumber": seq,
            "MetaDataVersion": version,
            "Timestamp": at,
            "MessageType": "ua-keyframe",
            "Payload": {name: {"UaType": 11, "Value": value, "SourceTimestamp": at} for name, value in values},
        }
        told = {**header, "MessageType": "ua-data", "Messages": [message]}
        yield PublishMessage(f"opcua/json/data/{publisher}/g/{writer}", json.dumps(told), 1)


def _iso(at_ms: int) -> str:
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def _load(what: str, port: int, count: int) -> None:
    client = AsyncClient("load", protocol=MQTTProtocolVersion.MQTTv5, username="load", password="load")  # noqa: S106
    await client.connect("127.0.0.1", port)
    receipt = await client.publish_many(_messages(what, count))
    await receipt.wait()
    await client.disconnect()


async def _bare(what: str, port: int, count: int) -> float:
    """CPU seconds of a client that acknowledges (and parses)."""
    client = bare_client()
    begin = time.process_time()
    await client.connect("127.0.0.1", port)
    left = count
    async for message in client.messages():
        if what == "sparkplug":
            Payload().ParseFromString(bytes(message.payload))
        elif what == "opcua_pubsub":
            json.loads(message.payload)
        await client.ack(message)
        left -= 1
        if not left:
            break
    seconds = time.process_time() - begin
    await client.disconnect()
    return seconds


async def _gateway(what: str, port: int, count: int, folder: Path) -> float:
    """CPU seconds of the whole path."""
    registry = Registry(NETWORK, "bench")
    adapter = _adapter(what, port)
    for number in range(DEVICES):
        create = Create(
            network=NETWORK, kind="device", key=_NOBODY, next_key_hash=key_hash("-"), nonce=f"{number:032x}"
        )
        did = create.did()
        registry.apply("identity.registered", {"did": did, "kind": "device", "key": _NOBODY, "version": 1})
        registry.enrol(Enrolment(did, ((adapter.protocol, _credential(what, number)),), unsigned=True))
    async with SqliteJournal(folder / "journal.db") as journal:
        ingest = Ingest(registry, journal, RegisterChecks(NoHistory(), journal.traces), lambda: START + 10_000_000)
        settle()  # as `flexrelay run` does it
        begin = time.process_time()
        running = asyncio.create_task(adapter.run(ingest))
        while adapter.link.acknowledged < count:
            await asyncio.wait({running}, timeout=0.01)
            if running.done():
                running.result()
        seconds = time.process_time() - begin
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await ingest.close()
        births = {"sparkplug": DEVICES + DEVICES // 50, "opcua_pubsub": DEVICES}  # and metadata: no readings
        frames = count - births.get(what, 0)
        if dict(ingest.outcomes) != {"stored": frames, "duplicate": 0} or journal.end != frames:
            raise AssertionError(f"not everything was stored: {ingest.outcomes}, {adapter.stats}")
        await journal.verify()
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB at most", file=sys.stderr)
    return seconds


def _main(role: str, what: str, port: str, count: str, folder: str = "") -> None:
    if role == "load":
        asyncio.run(_load(what, int(port), int(count)))
    elif role == "bare":
        print(asyncio.run(_bare(what, int(port), int(count))))
    else:
        print(asyncio.run(_gateway(what, int(port), int(count), Path(folder))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
