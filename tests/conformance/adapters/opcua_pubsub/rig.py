"""The PubSub adapter's counterpart: a real Mosquitto and a publisher on aiomqtt, QoS 1, which writes what OPC 10000-14
documents. A proxy notes the acknowledgements."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiomqtt
from support.mqtt_device import MqttDevice, recorded
from support.mqtt_proxy import AckRecorder
from support.opcua_publisher import AT, data_set_message, network_message, value_at

from flexrelay.demo.broker import Account, Mosquitto
from flexrelay_adapters.opcua_pubsub import PubSubAdapter, make_adapter
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.testkit import Rig

PLC, PASSWORD, SECRET = "plc1", "secret-1", "secret-of-the-gateway"
TOPIC = f"opcua/json/data/{PLC}/group/meter"
ACCOUNTS = (
    Account(PLC, PASSWORD, read=("none",), write=(f"opcua/json/+/{PLC}", f"opcua/json/+/{PLC}/#")),
    Account("gateway", SECRET, read=("opcua/json/#",)),
)


def section(port: int, **changes: Any) -> dict[str, Any]:
    return {
        "host": "127.0.0.1",
        "port": port,
        "client_id": "gw",
        "username": "gateway",
        "password": SECRET,
        "datasets": [{"writers": ["1"], "registers": {"power_w": {"field": "Power", "unit": "W"}}}],
        "backoff_min_s": 0.05,
        "backoff_max_s": 0.4,
        **changes,
    }


def reading(number: int, at_ms: int | None = None, **more: Any) -> bytes:
    fields = {"Power": value_at(number, AT + number if at_ms is None else at_ms)}
    return network_message(data_set_message(fields, number % 2**32), **more)


class PubSubRig(MqttDevice, Rig):
    user, password, hears_on = PLC, PASSWORD, "none"
    credential = f"{PLC}/1"
    secret = SECRET

    def __init__(self, broker: Mosquitto, recorder: AckRecorder, protocol: str) -> None:
        super().__init__(broker)
        self._recorder = recorder
        self._protocol = protocol

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, protocol: str) -> AsyncIterator[PubSubRig]:
        async with recorded(folder, ACCOUNTS, protocol, partial(cls, protocol=protocol)) as rig:
            yield rig

    def adapter(self, **changes: Any) -> PubSubAdapter:
        made = section(self._recorder.port, protocol=self._protocol, **changes)
        return make_adapter("plant", made, Path(), NoNativeCodec())

    def bounded_adapter(self) -> PubSubAdapter:
        return self.adapter(max_pending=100, max_pending_bytes=2**18, max_payload_bytes=2**16)

    def adapter_with_wrong_credentials(self) -> PubSubAdapter:
        return self.adapter(password=SECRET + "-mistyped")

    async def send(self, number: int) -> None:
        await self.send_raw(reading(number))

    async def send_at(self, number: int, at_ms: int) -> None:
        await self.send_raw(reading(number, at_ms))

    async def send_raw(self, payload: bytes) -> None:
        await self.tell(TOPIC, payload)

    async def flood(self, total_bytes: int) -> int:
        count = total_bytes // 20_000
        for number in range(count):
            await self.send_raw(reading(number, Padding="x" * 20_000))
        return count

    def acknowledged(self) -> set[int]:
        numbers = set()
        for payload in self._recorder.acknowledged:
            try:
                numbers.add(json.loads(payload)["Messages"][0]["Payload"]["Power"]["Value"])
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
        assert self._recorder.foreign == 0, "acknowledged what was not delivered"
        return numbers

    def bad_frames(self) -> Sequence[tuple[bytes, str]]:
        def one(value: Any, **more: Any) -> bytes:
            return network_message(data_set_message({"Power": value}, None, **more))

        return [
            (b"", "not_json"),
            (b"\xff\xfe", "not_utf8"),
            (reading(1)[:-9], "not_json"),
            (b"[]", "not_pubsub"),
            (b"[" * 50_000, "not_json"),
            (reading(99, publisher="plc2"), "wrong_sender"),
            (b"[" + b",".join([b'{"Power":1}'] * 257) + b"]", "too_many"),
            (one("NaN"), "not_a_number"),
            (one(1e99), "out_of_range"),
            (one({"Value": 1, "Status": {"Code": 0x8000_0000}}), "bad_status"),
            (one(1, Status=0x8000_0000), "bad_status"),
            (one(1, Timestamp="soon"), "bad_time"),
            (reading(99, Padding="x" * 70_000), "oversized"),
        ]

    async def appear(self) -> str:
        """Another DataSetWriter of the same publisher."""
        await self.tell(f"opcua/json/data/{PLC}/group/battery", network_message(data_set_message({"P": 1}, 1, 2)))
        return f"{PLC}/2"

    async def hear(self, payload: bytes, client: aiomqtt.Client) -> None:
        raise AssertionError("a publisher is told nothing")
