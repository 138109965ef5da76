"""OPC UA PubSub messages as a publisher writes them: by hand, and by the encoder of node-opcua."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from support.opcua_server import HOME, need_node_opcua

ENCODER = Path(__file__).parent / "node-opcua" / "publisher.js"
CAPTURED = ENCODER.with_name("published.json")
AT = 1_700_000_000_123
"""UTC ms."""


def iso(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}0000Z"


def value_at(value: Any, at_ms: int, **more: Any) -> dict[str, Any]:
    """A DataValue (1.05, verbose)."""
    return {"Value": value, "SourceTimestamp": iso(at_ms), **more}


def data_set_message(fields: dict[str, Any], sequence: int | None = 1, writer: Any = 1, **more: Any) -> dict[str, Any]:
    """OPC 10000-14 §7.2.5.4.1."""
    header = {"DataSetWriterId": writer, "MessageType": "ua-keyframe", "Timestamp": iso(AT + 1000)}
    if sequence is not None:
        header["SequenceNumber"] = sequence
    return {**header, "Payload": fields, **more}


def network_message(*messages: dict[str, Any], publisher: Any = "plc1", **more: Any) -> bytes:
    """OPC 10000-14 §7.2.5.3."""
    header = {"MessageId": "m-1", "MessageType": "ua-data", "PublisherId": publisher}
    return json.dumps({**header, "Messages": list(messages), **more}).encode()


def metadata_message(
    units: dict[str, int], *, major: int = 7, writer: Any = 1, publisher: str = "plc1", kinds: int = 11
) -> bytes:
    """OPC 10000-14 §7.2.5.5.2; `units` are UnitIds by field, 0 for none."""
    fields = [
        {
            "Name": name,
            "BuiltInType": kinds,
            "Properties": [
                {
                    "Key": "EngineeringUnits",
                    "Value": {"UaType": 22, "Value": {"UaTypeId": "i=887", "UnitId": unit, "DisplayName": {}}},
                }
            ]
            if unit
            else [],
        }
        for name, unit in units.items()
    ]
    version = {"MajorVersion": major, "MinorVersion": major}
    told = {"Name": "meter", "Fields": fields, "ConfigurationVersion": version}
    header = {"MessageId": "m-2", "MessageType": "ua-metadata", "PublisherId": publisher, "DataSetWriterId": writer}
    return json.dumps({**header, "MetaData": told}).encode()


@cache
def encoded_by_node_opcua() -> dict[str, dict[str, Any]]:
    """encoding → its messages, as node-opcua 2.186's encoder wrote them (`encode_with_node_opcua`)."""
    found: dict[str, dict[str, Any]] = json.loads(CAPTURED.read_text())
    return found


def encode_with_node_opcua() -> dict[str, dict[str, Any]]:
    """The same from the encoder itself. Skips the test where node-opcua is not installed."""
    need_node_opcua()
    done = subprocess.run(
        ["node", str(ENCODER)],
        env={**os.environ, "NODE_OPCUA_HOME": str(HOME)},
        capture_output=True,
        check=True,
        timeout=240,
    )
    (line,) = [line for line in done.stdout.decode().splitlines() if line.startswith("{")]
    found: dict[str, dict[str, Any]] = json.loads(line)
    return found
