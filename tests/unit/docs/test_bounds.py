"""The numbers that the architecture page states are those of the code."""

import ast
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from flexrelay.commissioning import onboarding
from flexrelay.config import IngestConfig
from flexrelay.devices import discovered, gaps
from flexrelay.dispatch import dispatcher, ending
from flexrelay.ingest import Limits, registers
from flexrelay.journal import LetterBounds, consumer, decoded
from flexrelay.ledger.embedded import genesis, ledger, state, worker
from flexrelay.outbox import outbox
from flexrelay.relay import relay
from flexrelay.store import database
from flexrelay.windows import vault, windows
from flexrelay_adapters.http import HttpConfig
from flexrelay_adapters.iotagent import frame
from flexrelay_adapters.mqtt import MqttConfig, topics
from flexrelay_adapters.opcua import OpcuaConfig, guard
from flexrelay_adapters.opcua_pubsub import PubSubConfig, message
from flexrelay_contracts import runtime
from flexrelay_sdk.quality.installed import installed_adapters

ROOT = Path(__file__).parents[3]
MIB = 1024 * 1024
MQTT = MqttConfig(client_id="x", readings=("a/{device}",))
HTTP = HttpConfig(port=0, tokens_file=Path("tokens"))
INGEST = IngestConfig()
CUTTING = genesis.BlockCutting()


def _default(config: type[BaseModel], field: str) -> int:
    default: int = config.model_fields[field].default
    return default


BOUNDS: dict[str, list[int | str]] = {
    "MQTT messages that wait for the sink": [MQTT.max_pending, f"{MQTT.max_pending_bytes // MIB} MiB"],
    "frames pushed by HTTP that wait for the sink": [HTTP.max_pending, f"{HTTP.max_pending_bytes // MIB} MiB"],
    "one body pushed by HTTP": [
        f"{HTTP.max_body_bytes // MIB} MiB",
        f"{HTTP.body_timeout_s:g} s",
        f"{HTTP.max_batch:,} readings",
    ],
    "connections to one HTTP listener": [HTTP.max_connections],
    "answers kept for an Idempotency-Key": [
        HTTP.idempotency_keys,
        f"{HTTP.idempotency_bytes // MIB} MiB",
        f"{HTTP.idempotency_s // 3600} h",
    ],
    "one batch to the sink": [MQTT.batch],
    "window asked of an MQTT 5 broker": [MQTT.receive_maximum],
    "payload": [f"{MQTT.max_payload_bytes // 1024} KiB", f"{INGEST.max_frame_bytes // 1024} KiB"],
    "DataSetMessages in one PubSub message; publishers, writers of each that are remembered": [
        message.MAX_MESSAGES,
        _default(PubSubConfig, "max_publishers"),
        _default(PubSubConfig, "max_writers"),
    ],
    "a topic of Sparkplug or PubSub; the attribute that a topic of an IoT Agent names": [
        f"{topics.MAX_TOPIC:,} characters",
        frame.MAX_ATTRIBUTE,
    ],
    "one message of an OPC UA server": [
        f"{_default(OpcuaConfig, 'max_message_bytes') // MIB} MiB",
        f"{guard.BEFORE_SESSION_BYTES // MIB} MiB",
        f"{guard.MAX_CHUNK_BYTES // MIB} MiB",
    ],
    "ingest queue": [INGEST.queue_frames, f"{INGEST.queue_bytes // MIB} MiB"],
    "one journal batch": [Limits().batch_frames, f"{Limits().batch_ms} ms"],
    "dead letters": [INGEST.dead_letters, f"{INGEST.dead_letter_bytes // MIB} MiB"],
    "dead letters of one sender": [LetterBounds().per_sender, 2 * LetterBounds().per_sender],
    "register checks in memory": [registers.KEEP],
    "one read of a consumer": [consumer.BATCH],
    "decoded segments of the journal in memory": [decoded.ENTRIES, f"{decoded.BYTES // MIB} MiB"],
    "store: writes or reads that wait": [database.QUEUE],
    "store: writes in one commit": [database.GROUP],
    "windows closed in one commit": [windows.CLOSE_AT_ONCE],
    "devices of an onboarding under way": [onboarding.GROUP],
    "discovered credentials that wait for approval": [discovered.MOST],
    "gaps in readings that wait to be filled": [gaps.MOST, gaps.TRIES, f"{gaps.PATIENCE_S:g} s"],
    "how far back a gap is filled": [f"{INGEST.fill_gaps_days} days"],
    "secrets of the vault in memory": [vault._CACHED],
    "open entries of the outbox": [outbox.CAPACITY],
    "intents under way": [relay.RelayOptions().in_flight],
    "size of an intent": [f"{runtime.MAX_INTENT_BYTES // 1_000_000} MB"],
    "commands under way": [dispatcher.IN_FLIGHT],
    "commands being ended": [ending.IN_FLIGHT],
    "calls that wait for the ledger's engine": [worker._MAX_WAITING],
    "envelopes that wait for a block": [ledger._MAX_WAITING],
    "one block": [CUTTING.max_messages, f"{ledger._MAX_BLOCK_BYTES // 1_000_000} MB"],
    "one envelope": [f"{CUTTING.max_envelope_bytes // 1_000_000} MB"],
    "distance of a transaction's time from the ledger's clock": [
        f"{genesis.Genesis.model_fields['tx_time_guard_ms'].default // 60_000} min"
    ],
    "state cache": [state._CACHE_ENTRIES, f"{state._CACHE_BYTES // 1_000_000} MB"],
    "journal, ended intents and the twin's history in time": [f"{INGEST.retention_days} days"],
}


def stated() -> dict[str, str]:
    """What the table says, by its first column."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text[text.index("## Bounds") : text.index("## When something stops")]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")
    ]
    return {row[0]: row[1] for row in rows[2:]}


@pytest.mark.parametrize("name", BOUNDS)
def test_a_bound_is_what_the_code_says(name: str) -> None:
    said = stated()[name]
    for value in BOUNDS[name]:
        wanted = f"{value:,}" if isinstance(value, int) else value
        assert re.search(rf"(?<![\d,]){re.escape(wanted)}(?!,?\d)", said), f"{name}: {said!r}, the code says {wanted}"


def test_every_row_of_the_table_is_tested() -> None:
    unbounded = {name for name, bound in stated().items() if bound in ("the disk", "**none**")}
    assert set(stated()) - unbounded == set(BOUNDS)


def test_the_adapters_of_this_package_are_listed() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text[text.index("## Adapters") : text.index("## Life of a reading")]
    named = {name for line in table.splitlines() if line.startswith("| `")
             for name in re.findall(r"`(\w+)`", line.split("|")[1])}  # fmt: skip
    assert named == {each.name for each in installed_adapters() if each.distribution == "flexrelay"}


def test_the_tutorial_names_fields_of_the_report() -> None:
    source = ast.parse((ROOT / "middleware" / "flexrelay" / "demo" / "report.py").read_text())
    (compiled,) = (
        node for node in ast.walk(source) if isinstance(node, ast.AsyncFunctionDef) and node.name == "compile_report"
    )
    returned = next(node for node in ast.walk(compiled) if isinstance(node, ast.Return)).value
    assert isinstance(returned, ast.Dict)
    fields = {key.value for key in returned.keys if isinstance(key, ast.Constant)}
    text = (ROOT / "docs" / "tutorial.md").read_text()
    table = text[text.index("| field | what |") : text.index("What was ordered from B")]
    named = {
        name
        for line in table.splitlines()[2:]
        for name in re.findall(r"`(\w+)`", line.split("|")[1] if "|" in line else "")
    }
    assert named and named <= fields
