"""The MQTT adapter's counterpart: a real Mosquitto, a device on aiomqtt, and a proxy that notes acknowledgements."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiomqtt
from support.mqtt_device import MqttDevice, recorded
from support.mqtt_proxy import AckRecorder

from flexrelay.demo.broker import Mosquitto, device_account, gateway_account
from flexrelay_adapters.mqtt import MqttAdapter, make_adapter
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.testkit import Act, Behaviour, Rig

DEVICE, PASSWORD, SECRET = "meter1", "secret-1", "secret-of-the-gateway"
READINGS, COMMANDS, RESULTS = (f"flexrelay/v1/dso/{DEVICE}/{kind}" for kind in ("readings", "commands", "results"))
ACCOUNTS = (device_account(DEVICE, PASSWORD), gateway_account("dso", "gateway-dso", SECRET))


class MqttRig(MqttDevice, Rig):
    user, password, hears_on = DEVICE, PASSWORD, COMMANDS
    credential = DEVICE
    secret = SECRET

    def __init__(self, broker: Mosquitto, recorder: AckRecorder, protocol: str) -> None:
        super().__init__(broker)
        self._recorder = recorder
        self._protocol = protocol
        self._behaviour: Behaviour = "obey"
        self._acts: list[Act] = []
        self._answers: dict[str, bytes] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, protocol: str) -> AsyncIterator[MqttRig]:
        async with recorded(folder, ACCOUNTS, protocol, partial(cls, protocol=protocol)) as rig:
            yield rig

    def adapter(self, **changes: Any) -> MqttAdapter:
        section: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": self._recorder.port,
            "protocol": self._protocol,
            "client_id": "gw",
            "username": "gateway-dso",
            "password": SECRET,
            "readings": ["flexrelay/v1/dso/{device}/readings"],
            "commands": "flexrelay/v1/dso/{device}/commands",
            "results": "flexrelay/v1/dso/{device}/results",
            "codec": {
                "registers": {"power_w": {"pointer": "/p", "unit": "W"}},
                "observed_at": {"pointer": "/t", "form": "ms", "required": False},
            },
            "backoff_min_s": 0.05,
            "backoff_max_s": 0.4,
            **changes,
        }
        return make_adapter("plant", section, Path(), NoNativeCodec())

    def bounded_adapter(self) -> MqttAdapter:
        return self.adapter(max_pending=100, max_pending_bytes=2**18, max_payload_bytes=2**16)

    def adapter_with_wrong_credentials(self) -> MqttAdapter:
        return self.adapter(password=SECRET + "-mistyped")

    async def send(self, number: int) -> None:
        await self.send_raw(b'{"p": %d}' % number)

    async def send_at(self, number: int, at_ms: int) -> None:
        await self.send_raw(b'{"p": %d, "t": %d}' % (number, at_ms))

    async def send_raw(self, payload: bytes) -> None:
        await self.tell(READINGS, payload)

    async def flood(self, total_bytes: int) -> int:
        padding = "x" * 20_000
        count = total_bytes // len(padding)
        for number in range(count):
            await self.send_raw(json.dumps({"p": number, "x": padding}).encode())
        return count

    def acknowledged(self) -> set[int]:
        numbers = set()
        for payload in self._recorder.acknowledged:
            try:
                numbers.add(json.loads(payload)["p"])
            except (ValueError, KeyError, TypeError):
                continue
        assert self._recorder.foreign == 0, "acknowledged what was not delivered"
        return numbers

    def bad_frames(self) -> Sequence[tuple[bytes, str]]:
        return [
            (b"", "not_json"),
            (b"\xff\xfe", "not_utf8"),
            (b'{"p": 1', "not_json"),
            (b'{"p": NaN}', "not_a_number"),
            (b'{"p": "12"}', "not_a_number"),
            (b'{"q": 1}', "missing_field"),
            (b'{"p": 1, "p": 2}', "duplicate_name"),
            (b"[" * 50_000, "not_json"),
            (b'{"p": 1e99}', "out_of_range"),
            (b'{"p": 1,"x":"' + b"x" * 70_000 + b'"}', "oversized"),
        ]

    async def behave(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour

    def acts(self) -> Sequence[Act]:
        return self._acts

    async def hear(self, payload: bytes, client: aiomqtt.Client) -> None:
        answer = self._obey(json.loads(payload))
        if answer is not None:
            await client.publish(RESULTS, answer, qos=1)

    def _obey(self, command: Mapping[str, Any]) -> bytes | None:
        name = command["command_id"]
        if self._behaviour == "silent" or time.time_ns() // 1_000_000 >= command["expires_at"]:
            return None
        if name not in self._answers:
            state = "acked" if self._behaviour == "obey" else "failed"
            if state == "acked":
                self._acts.append((command["name"], command["parameters"]))
            self._answers[name] = json.dumps({"v": 1, "command_id": name, "state": state}).encode()
        return self._answers[name]
