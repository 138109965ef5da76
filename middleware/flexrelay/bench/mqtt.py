"""From an MQTT broker to the journal and back: QoS 1 → identified → decoded, validated → journalled → acknowledged.

The readings wait in a real Mosquitto for the gateway's session, put there by another process, as after an outage: so
the gateway is the bottleneck, and what is counted is the CPU time of its one process from connecting to the last
acknowledgement. The bare client does nothing with the same messages but acknowledge them. Telegraf, when it is on PATH
or named by FLEXRELAY_TELEGRAF, writes them to a file, without a check and without fsync.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from mqttium import MQTTProtocolVersion
from mqttium.api import AsyncClient, Properties, PublishMessage

from flexrelay.bench import Result, in_process
from flexrelay.collector import settle
from flexrelay.demo.accounts import TOPICS, Account, gateway_account
from flexrelay.demo.mosquitto import Mosquitto, mosquitto_path
from flexrelay.ingest import Enrolment, Ingest, NativeCodec, NoHistory, RegisterChecks, Registry
from flexrelay.journal import SqliteJournal
from flexrelay_adapters.mqtt import JsonMapping, MappingCodec, MqttAdapter, MqttConfig
from flexrelay_schemas.canonical import canonical
from flexrelay_schemas.did import Create, key_hash
from flexrelay_schemas.encoding import b64u
from flexrelay_schemas.keys import multikey
from flexrelay_schemas.reading import Reading, SignedReading
from flexrelay_sdk import Codec

NETWORK: Final = "bench"
START: Final = 1_700_000_000_000
READINGS: Final = 60_000
SIGNED: Final = 12_000
DEVICES: Final = 1_000
ROUNDS: Final = 3
UNIT: Final = "readings/CPU-s"

MAPPING: Final = JsonMapping.model_validate(
    {
        "registers": {
            "import_j": {"pointer": "/import", "unit": "Wh"},
            "export_j": {"pointer": "/export", "unit": "Wh"},
            "power_w": {"pointer": "/power", "unit": "W"},
        },
        "observed_at": {"pointer": "/time", "form": "ms"},
        "seq": "/count",
    }
)
_KEY: Final = 0x5EED_0F_A_BE9C  # a key of the benchmark, known to the loading and to the checking process


class NoBroker(RuntimeError):
    """There is no Mosquitto to measure with."""


def run() -> list[Result]:
    """bare_mqtt, ingest_mqtt, ingest_mqtt_signed; the best of a few rounds. Raises NoBroker."""
    bare = max(_measure("bare", READINGS) for _ in range(ROUNDS))
    plain = max(_measure("plain", READINGS) for _ in range(ROUNDS))
    signed = max(_measure("signed", SIGNED) for _ in range(ROUNDS))
    telegraf = max(_measure("telegraf", READINGS) for _ in range(ROUNDS)) if _telegraf_path() else 0.0
    against = "the bare client, acknowledging only"
    results: list[Result] = [
        {"name": "bare_mqtt", "value": bare, "unit": UNIT, "ratio": 0.0, "against": ""},
        {"name": "ingest_mqtt", "value": plain, "unit": UNIT, "ratio": plain / bare, "against": against},
        {"name": "ingest_mqtt_signed", "value": signed, "unit": UNIT, "ratio": signed / bare, "against": against},
    ]
    if telegraf:
        results.append(
            {"name": "telegraf_mqtt", "value": telegraf, "unit": UNIT, "ratio": telegraf / bare, "against": against}
        )
    return results


def _telegraf_path() -> str | None:
    return os.environ.get("FLEXRELAY_TELEGRAF") or shutil.which("telegraf")


def _measure(what: str, count: int) -> float:
    """Readings per CPU-second of the receiving process."""
    program = mosquitto_path()
    if program is None:
        raise NoBroker("Mosquitto is not installed (Debian: apt install mosquitto); these figures need a real broker")
    with tempfile.TemporaryDirectory(prefix="flexrelay-bench-") as folder:
        return asyncio.run(_with_broker(program, Path(folder), what, count))


async def _with_broker(program: str, folder: Path, what: str, count: int) -> float:
    accounts = [
        gateway_account("bench", "gateway", "gateway"),
        Account("load", "load", write=(f"{TOPICS}/bench/+/readings",)),
    ]
    broker = Mosquitto(folder / "broker", accounts, program=program, max_inflight=2000)
    await broker.start()
    try:
        session = bare_client()
        await session.connect(broker.host, broker.port)
        await session.subscribe(f"{TOPICS}/bench/+/readings", qos=1)
        await session.disconnect()
        await asyncio.to_thread(_other, "load", what, str(broker.port), str(count))
        if what == "telegraf":
            return count / await asyncio.to_thread(_telegraf, broker.port, count, folder)
        seconds = float(await asyncio.to_thread(_other, "receive", what, str(broker.port), str(count), str(folder)))
    finally:
        await broker.stop()
    return count / seconds


def _other(*arguments: str) -> str:
    return in_process("flexrelay.bench.mqtt", *arguments)


def bare_client() -> AsyncClient:
    """The session of the gateway, kept by the broker; nothing is acknowledged by itself."""
    return AsyncClient(
        "gateway",
        protocol=MQTTProtocolVersion.MQTTv5,
        clean_start=False,
        username="gateway",
        password="gateway",  # noqa: S106  # of a broker that lives for the benchmark
        connect_properties=Properties({"session_expiry_interval": 3600}),
        max_inbound_inflight=65535,
        max_iterator_messages=4000,
        manual_ack=True,
    )


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(_KEY, ec.SECP256R1())


def _dids() -> list[str]:
    public = multikey(_key().public_key())
    return [
        Create(network=NETWORK, kind="device", key=public, next_key_hash=key_hash("-"), nonce=f"{number:032x}").did()
        for number in range(DEVICES)
    ]


def _messages(what: str, count: int) -> Iterator[PublishMessage]:
    key = _key()
    dids = _dids()
    for index in range(count):
        did, seq = dids[index % DEVICES], index // DEVICES
        topic = f"{TOPICS}/bench/{did.rpartition(':')[2]}/readings"
        if what == "signed":
            payload = _signed(did, seq, key)
        else:
            values = {"time": START + seq, "count": seq, "import": seq * 7, "export": seq, "power": 1234}
            payload = json.dumps(values).encode()
        yield PublishMessage(topic, payload, 1)


def _signed(did: str, seq: int, key: ec.EllipticCurvePrivateKey) -> bytes:
    registers = {"import_j": seq * 25_200, "export_j": seq * 3600, "power_w": 1234}
    reading = Reading(did=did, key_version=1, network=NETWORK, observed_at=START + seq, registers=registers, seq=seq)
    r, s = decode_dss_signature(key.sign(reading.message(), ec.ECDSA(hashes.SHA256())))
    signature = b64u(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    return canonical(SignedReading(reading=reading, signature=signature).model_dump())


async def _load(what: str, port: int, count: int) -> None:
    """Give the readings to the broker."""
    client = AsyncClient("load", protocol=MQTTProtocolVersion.MQTTv5, username="load", password="load")  # noqa: S106
    await client.connect("127.0.0.1", port)
    receipt = await client.publish_many(_messages(what, count))
    await receipt.wait()
    await client.disconnect()


async def _bare(port: int, count: int) -> float:
    """CPU seconds of a client that only acknowledges."""
    client = bare_client()
    begin = time.process_time()
    await client.connect("127.0.0.1", port)
    left = count
    async for message in client.messages():
        await client.ack(message)
        left -= 1
        if not left:
            break
    seconds = time.process_time() - begin
    await client.disconnect()
    return seconds


async def _gateway(what: str, port: int, count: int, folder: Path) -> float:
    """CPU seconds of the whole path."""
    public = multikey(_key().public_key())
    registry = Registry(NETWORK, "bench")
    for did in _dids():
        registry.apply("identity.registered", {"did": did, "kind": "device", "key": public, "version": 1})
        registry.enrol(Enrolment(did, unsigned=what == "plain"))
    config = MqttConfig.model_validate(
        {
            "port": port,
            "client_id": "gateway",
            "username": "gateway",
            "password": "gateway",
            "readings": (f"{TOPICS}/bench/{{device}}/readings",),
        }
    )
    codec: Codec = MappingCodec(MAPPING) if what == "plain" else NativeCodec()
    async with SqliteJournal(folder / "journal.db") as journal:
        ingest = Ingest(registry, journal, RegisterChecks(NoHistory(), journal.traces), lambda: START + 1000)
        adapter = MqttAdapter(config, codec)
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
        if dict(ingest.outcomes) != {"stored": count, "duplicate": 0} or journal.end != count:
            raise AssertionError(f"not everything was stored: {ingest.outcomes}")
        await journal.verify()
        print(f"{adapter.stats.batches} batches", file=sys.stderr)
    return seconds


TELEGRAF: Final = """
[agent]
  interval = "1s"
  flush_interval = "200ms"
  metric_batch_size = 2000
  metric_buffer_limit = 200000
  omit_hostname = true
  quiet = true
[[inputs.mqtt_consumer]]
  servers = ["tcp://127.0.0.1:{port}"]
  topics = ["{topics}/bench/+/readings"]
  qos = 1
  persistent_session = true
  client_id = "gateway"
  username = "gateway"
  password = "gateway"
  max_undelivered_messages = 2000
  data_format = "json"
[[outputs.file]]
  files = ["{file}"]
  data_format = "json"
"""


def _telegraf(port: int, count: int, folder: Path) -> float:
    """CPU seconds of Telegraf until the file has all readings."""
    program = _telegraf_path()
    if program is None:
        raise RuntimeError("telegraf is neither on PATH nor named by FLEXRELAY_TELEGRAF")
    lines, settings = folder / "lines", folder / "telegraf.conf"
    settings.write_text(TELEGRAF.format(port=port, topics=TOPICS, file=lines))
    process = subprocess.Popen([program, "--config", str(settings)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            time.sleep(0.1)
            if lines.exists() and lines.read_bytes().count(b"\n") >= count:
                ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
                return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        raise RuntimeError("telegraf did not write all readings within 120 s")
    finally:
        process.terminate()
        process.wait()


def _main(role: str, what: str, port: str, count: str, folder: str = "") -> None:
    if role == "load":
        asyncio.run(_load(what, int(port), int(count)))
    elif what == "bare":
        print(asyncio.run(_bare(int(port), int(count))))
    else:
        print(asyncio.run(_gateway(what, int(port), int(count), Path(folder))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
