"""The LoRaWAN adapter's counterparts: a real Mosquitto on which a stand-in writes what a network server is documented
to write, and a client that posts the same to the webhook. The network servers themselves do not run here."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
from support.http_device import HttpDevice, free_port
from support.mqtt_device import MqttDevice, recorded
from support.mqtt_proxy import AckRecorder
from support.opcua_publisher import iso

from flexrelay.demo.accounts import Account
from flexrelay.demo.broker import Mosquitto
from flexrelay_adapters.lorawan import LorawanMqtt, LorawanWebhook, make_adapter
from flexrelay_sdk import Adapter, DeviceFacts
from flexrelay_sdk.facts import cleaned
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.testkit import Act, Behaviour, Rig

EUI, SECRET = "a84041ffff1840c3", "secret-of-the-gateway"
ACCOUNTS = (
    Account("server", "secret-s", read=("application/#", "v3/#"), write=("application/#", "v3/#")),
    Account("gateway", SECRET, read=("application/#", "v3/#"), write=("application/#", "v3/#")),
)
DOWN = {
    "f_port": 10,
    "prefix": "01",
    "fields": {
        "power_w": {"offset": 1, "length": 4, "type": "int"},
        "from_ms": {"offset": 5, "length": 4, "scale": 3},
        "until_ms": {"offset": 9, "length": 4, "scale": 3},
        "expires_at": {"offset": 13, "length": 8},
    },
}
PROTOCOLS = {"chirpstack": "5", "things_stack": "3.1.1"}
PORTS = [
    {
        "f_ports": [2],
        "binary": {"fields": {"p": {"offset": 0, "length": 4, "type": "int"}}},
        "registers": {"power_w": {"pointer": "/p", "unit": "W"}},
    }
]


def chirpstack_up(data: bytes, count: int = 7, extra: str = "") -> dict[str, Any]:
    return {
        "deduplicationId": "3ac7e3c4-4401-4b8d-9386-a5c902f9202d",
        "time": "2022-07-18T09:34:15.775023242+00:00",
        "deviceInfo": {"applicationId": "app", "devEui": EUI, "tags": {"key": extra}},
        "devAddr": "00189440",
        "dr": 1,
        "fCnt": count,
        "fPort": 2,
        "data": base64.b64encode(data).decode(),
    }


def things_up(data: bytes, count: int = 7, extra: str = "") -> dict[str, Any]:
    return {
        "end_device_ids": {"device_id": EUI, "application_ids": {"application_id": "app"}, "dev_addr": extra},
        "received_at": "2020-02-12T15:15:45.787Z",
        "uplink_message": {
            "f_port": 2,
            "f_cnt": count,
            "frm_payload": base64.b64encode(data).decode(),
            "received_at": "2020-02-12T15:15:45.787123456Z",
        },
    }


UPS = {"chirpstack": chirpstack_up, "things_stack": things_up}


def up_at(server: str, number: int, at_ms: int) -> bytes:
    """Reading `number` as the network server received it then."""
    document = UPS[server](number.to_bytes(4, "big"), number)
    holder, name = (document, "time") if server == "chirpstack" else (document["uplink_message"], "received_at")
    holder[name] = iso(at_ms)
    return json.dumps(document).encode()


TOPICS = {
    "chirpstack": (f"application/app/device/{EUI}/event/up", f"application/app/device/{EUI}/command/down"),
    "things_stack": (f"v3/app@tenant/devices/{EUI}/up", f"v3/app@tenant/devices/{EUI}/down/push"),
}


def number_of(payload: bytes) -> int:
    document = json.loads(payload)
    data = document.get("data") or document["uplink_message"]["frm_payload"]
    return int.from_bytes(base64.b64decode(data)[:4], "big")


class About:
    """What a device is: `said` of it by the network server, as its uplinks and status carry it."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._facts: DeviceFacts | None = None

    def introduce(self, facts: DeviceFacts) -> DeviceFacts:
        """What of it can be told."""
        self._facts = facts
        battery = facts.battery_permille
        told = facts._replace(serial="", battery_permille=None if battery is None or battery > 1000 else battery)
        if self._server == "chirpstack":
            told = told._replace(manufacturer="", firmware="")
        return cleaned(told)

    def up(self, number: int) -> bytes:
        document = UPS[self._server](number.to_bytes(4, "big"), number)
        if self._facts is not None:
            maker, model, _, firmware, battery = self._facts
            if self._server == "chirpstack":
                document["deviceInfo"]["deviceProfileName"] = model
            else:
                version = {"brand_id": maker, "model_id": model, "firmware_version": firmware}
                level = {"f_cnt": 3, "value": (battery or 0) / 10, "received_at": "2020-02-12T15:00:00Z"}
                document["uplink_message"] |= {"version_ids": version, "last_battery_percentage": level}
        return json.dumps(document).encode()

    def status(self) -> bytes | None:
        """ChirpStack's event; None where there is none."""
        if self._facts is None or self._server != "chirpstack":
            return None
        level = (self._facts.battery_permille or 0) / 10
        return json.dumps({"deviceInfo": {"devEui": EUI}, "margin": 10, "batteryLevel": level}).encode()


class BrokerRig(MqttDevice, Rig):
    """By way of MQTT."""

    user, password = "server", "secret-s"

    credential = EUI
    secret = SECRET

    def __init__(self, server: str, broker: Mosquitto, recorder: AckRecorder) -> None:
        super().__init__(broker)
        self._server = server
        self.hears_on = TOPICS[server][1]
        self._recorder = recorder
        self._behaviour: Behaviour = "obey"
        self._acts: list[Act] = []
        self._answers: dict[str, tuple[str, bytes]] = {}
        self._about = About(server)

    @classmethod
    @asynccontextmanager
    async def open(cls, server: str, folder: Path) -> AsyncIterator[Rig]:
        async with recorded(folder, ACCOUNTS, PROTOCOLS[server], partial(cls, server)) as rig:
            yield rig

    def adapter(self, password: str = SECRET, **options: Any) -> Adapter:
        made = make_adapter(
            "field",
            {
                "server": self._server,
                "client_id": "gw",
                "username": "gateway",
                "password": password,
                "mqtt": {
                    "host": "127.0.0.1",
                    "port": self._recorder.port,
                    "application": "app" if self._server == "chirpstack" else "app@tenant",
                    "options": {"backoff_min_s": 0.05, "backoff_max_s": 0.4, **options},
                },
                "ports": PORTS,
                "commands": {"set_power": DOWN},
            },
            Path(),
            NoNativeCodec(),
        )
        assert isinstance(made, LorawanMqtt)
        return made

    def bounded_adapter(self) -> Adapter:
        return self.adapter(max_pending=100, max_pending_bytes=2**18, max_payload_bytes=2**16)

    def adapter_with_wrong_credentials(self) -> Adapter:
        return self.adapter(SECRET + "-mistyped")

    async def send(self, number: int) -> None:
        await self.send_raw(self._about.up(number))
        status = self._about.status()
        if status is not None:
            await self.tell(f"application/app/device/{EUI}/event/status", status)

    async def introduce(self, facts: DeviceFacts) -> DeviceFacts:
        return self._about.introduce(facts)

    async def send_at(self, number: int, at_ms: int) -> None:
        await self.send_raw(up_at(self._server, number, at_ms))

    async def send_raw(self, payload: bytes) -> None:
        await self.tell(TOPICS[self._server][0], payload)

    async def flood(self, total_bytes: int) -> int:
        count = total_bytes // 20_000
        for number in range(count):
            up = UPS[self._server](number.to_bytes(4, "big"), number, "x" * 20_000)
            await self.send_raw(json.dumps(up).encode())
        return count

    def acknowledged(self) -> set[int]:
        numbers = set()
        for payload in self._recorder.acknowledged:
            try:
                numbers.add(number_of(payload))
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
        assert self._recorder.foreign == 0, "acknowledged what was not delivered"
        return numbers

    def bad_frames(self) -> Sequence[tuple[bytes, str]]:
        return bad_frames(self._server)

    async def behave(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour

    def acts(self) -> Sequence[Act]:
        return self._acts

    async def hear(self, payload: bytes, client: aiomqtt.Client) -> None:
        for topic, answer in self._answer(json.loads(payload)):
            await client.publish(topic, answer, qos=1)

    def _answer(self, down: Mapping[str, Any]) -> list[tuple[str, bytes]]:
        """What the network server says of the downlink, in its order; the device does one downlink once."""
        item = down if self._server == "chirpstack" else down["downlinks"][0]
        data = base64.b64decode(item["data"] if self._server == "chirpstack" else item["frm_payload"])
        key = item["id"] if self._server == "chirpstack" else item["correlation_ids"][0]
        if self._behaviour == "silent" or time.time_ns() // 1_000_000 >= int.from_bytes(data[13:21], "big"):
            return []
        assert data[0] == 1 and item["confirmed"] and (item.get("fPort") or item.get("f_port")) == 10
        if key not in self._answers:
            obeys = self._behaviour == "obey"
            if obeys:
                parts = [int.from_bytes(data[at : at + 4], "big") for at in (1, 5, 9)]
                told = {"power_w": parts[0], "from_ms": parts[1] * 1000, "until_ms": parts[2] * 1000}
                self._acts.append(("set_power", told))
            self._answers[key] = self._said(key, obeys, item)
        return [self._sent(key), self._answers[key]]

    def _sent(self, key: str) -> tuple[str, bytes]:
        if self._server == "chirpstack":
            base = f"application/app/device/{EUI}/event"
            return f"{base}/txack", json.dumps({"downlinkId": 5, "queueItemId": key, "gatewayId": "01"}).encode()
        sent = {"end_device_ids": {"device_id": EUI}, "downlink_sent": {"correlation_ids": [key]}}
        return f"v3/app@tenant/devices/{EUI}/down/sent", json.dumps(sent).encode()

    def _said(self, key: str, obeys: bool, item: Mapping[str, Any]) -> tuple[str, bytes]:
        if self._server == "chirpstack":
            ack = {"queueItemId": key, "fCntDown": 3, **({"acknowledged": True} if obeys else {})}
            return f"application/app/device/{EUI}/event/ack", json.dumps(ack).encode()
        event = "ack" if obeys else "nack"
        told = {"end_device_ids": {"device_id": EUI}, f"downlink_{event}": dict(item)}
        return f"v3/app@tenant/devices/{EUI}/down/{event}", json.dumps(told).encode()


def bad_frames(server: str) -> list[tuple[bytes, str]]:
    up = UPS[server]

    def changed(old: str, new: str) -> bytes:
        whole = json.dumps(up(b"\0\0\0\1"))
        assert old in whole
        return whole.replace(old, new).encode()

    port = '"fPort": 2' if server == "chirpstack" else '"f_port": 2'
    return [
        (b"", "not_json"),
        (b"\xff\xfe", "not_utf8"),
        (json.dumps(up(b"\0\0\0\1")).encode()[:-9], "not_json"),
        (b"[]", "not_an_uplink"),
        (changed(port, port[:-1] + "9"), "unknown_port"),
        (changed("AAAAAQ==", "AAAAAQ="), "not_base64"),
        (changed("AAAAAQ==", "AAAA"), "too_short"),
        (json.dumps(up(b"\0\0\0\1", 1, "x" * 70_000)).encode(), "oversized"),
    ]


class WebhookRig(Rig):
    """By way of HTTP."""

    credential = EUI
    secret = "a-long-token-of-the-server"
    memory_bound_bytes = 6 * 2**20
    flood_bytes = 12 * 2**20

    def __init__(self, server: str, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._port = free_port()
        digest = hashlib.sha256(self.secret.encode()).hexdigest()
        (folder / "tokens").write_text(f"server:{digest}\n")
        self._acknowledged: set[int] = set()
        headers = {"authorization": f"Bearer {self.secret}"}
        self._device = HttpDevice(f"http://127.0.0.1:{self._port}", headers, self._taken)
        self._about = About(server)
        self._path = "/lorawan?event=up" if server == "chirpstack" else "/lorawan/up"

    def _taken(self, payload: bytes) -> None:
        try:
            self._acknowledged.add(number_of(payload))
        except (ValueError, KeyError, TypeError, AttributeError):
            pass  # a dead letter is acknowledged, too

    @classmethod
    @asynccontextmanager
    async def open(cls, server: str, folder: Path) -> AsyncIterator[Rig]:
        rig = cls(server, folder)
        async with rig._device.sending(rig._path):
            yield rig

    def adapter(self, **changes: Any) -> Adapter:
        http = {"port": self._port, "tokens_file": "tokens", "max_body_bytes": 2**16, **changes}
        section = {"server": self._server, "http": http, "ports": PORTS}
        made = make_adapter("field", section, self._folder, NoNativeCodec())
        assert isinstance(made, LorawanWebhook)
        return made

    def bounded_adapter(self) -> Adapter:
        return self.adapter(max_pending=100, max_pending_bytes=2**18)

    async def send(self, number: int) -> None:
        status = self._about.status()
        if status is not None:
            await self._device.deliver("/lorawan?event=status", status)
        await self.send_raw(self._about.up(number))

    async def introduce(self, facts: DeviceFacts) -> DeviceFacts:
        return self._about.introduce(facts)

    async def send_at(self, number: int, at_ms: int) -> None:
        await self.send_raw(up_at(self._server, number, at_ms))

    async def send_raw(self, payload: bytes) -> None:
        self._device.queue.put_nowait(payload)

    async def flood(self, total_bytes: int) -> int:
        def payload(number: int, padding: str) -> bytes:
            return json.dumps(UPS[self._server](number.to_bytes(4, "big"), number, padding)).encode()

        return await self._device.flood(self._path, payload, total_bytes)

    def acknowledged(self) -> set[int]:
        return self._acknowledged

    def bad_frames(self) -> Sequence[tuple[bytes, str]]:
        return [(payload, "" if reason == "oversized" else reason) for payload, reason in bad_frames(self._server)]

    async def intrude(self, adapter: Adapter) -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self._port}", timeout=60) as stranger:
            for headers in ({}, {"authorization": f"Bearer {self.secret}x"}):
                payload = json.dumps(UPS[self._server](b"\0\0\0\x63")).encode()
                answer = await stranger.post(self._path, content=payload, headers=headers)
                assert answer.status_code == 401
