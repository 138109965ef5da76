"""The rig of the adapter contract: a node-opcua server, secured, with a user, history on disk and commands."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from flexrelay_adapters.opcua import OpcuaAdapter, OpcuaConfig, TrustList
from flexrelay_adapters.opcua.trust import self_signed
from flexrelay_sdk import DeviceFacts
from flexrelay_sdk.facts import cleaned
from flexrelay_sdk.port import Adapter
from flexrelay_sdk.testkit import Act, Behaviour, Rig, until
from support.opcua_server import NAMESPACE, NodeServer, free_port, need_node_opcua, now_ms, section

NEIGHBOUR = "neighbour"
"""An object of the server that is in no configuration."""
USER, PASSWORD = "gateway", "correct horse"
APPLICATION = "urn:test:gateway"


def certificate_pair(
    folder: Path, uri: str, valid_from: datetime | None = None, days: int = 30
) -> tuple[Path, Path, bytes]:
    """(certificate as PEM, key, certificate as DER) of a server."""
    folder.mkdir(parents=True, exist_ok=True)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    certificate = self_signed(key, uri, "127.0.0.1", valid_from or datetime.now(UTC) - timedelta(hours=1), days)
    pem, private = folder / "certificate.pem", folder / "key.pem"
    pem.write_bytes(certificate.public_bytes(Encoding.PEM))
    private.write_bytes(
        key.private_bytes(Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pem, private, certificate.public_bytes(Encoding.DER)


@functools.cache
def shared() -> Path:
    """Keys for the whole test process: they take their time."""
    folder = Path(tempfile.mkdtemp(prefix="flexrelay-opcua-"))
    TrustList(folder / "gateway").make_own(APPLICATION, socket.gethostname())
    certificate_pair(folder / "server", NAMESPACE)
    return folder


def secured(server: NodeServer, folder: Path, policy: str = "Basic256Sha256", **more: Any) -> dict[str, Any]:
    """A section with the shared keys, the server trusted."""
    pki = folder / "pki-gateway"
    if not pki.exists():
        shutil.copytree(shared() / "gateway", pki)
        TrustList(pki).add((shared() / "server" / "certificate.pem").read_bytes())
    values = {
        "security": policy,
        "server": NAMESPACE,
        "application_uri": APPLICATION,
        "username": USER,
        "password": PASSWORD,
    }
    return section(server, folder, **{**values, **more})


def server_options(policy: str = "Basic256Sha256", **more: Any) -> dict[str, Any]:
    return {
        "security": policy,
        "users": {USER: PASSWORD},
        "certificate": str(shared() / "server" / "certificate.pem"),
        "key": str(shared() / "server" / "key.pem"),
        "pki": str(shared() / "pki"),
        "trusted": [str(shared() / "gateway" / "own" / "certificate.der")],
        **more,
    }


class NodeOpcuaRig(Rig):
    """Reading n is `power` n."""

    credential = f"{NAMESPACE}/meter"
    secret = PASSWORD
    memory_bound_bytes = 2**20
    flood_bytes = 2 * 2**20
    _ITEM_BYTES = 30
    _WINDOW = 4000

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._newest = -1
        devices = {"meter": ["power", "import"], NEIGHBOUR: ["power"]}
        self.server = NodeServer(folder / "server", free_port(), server_options(devices=devices))

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, folder: Path) -> AsyncIterator[NodeOpcuaRig]:
        need_node_opcua()
        rig = cls(folder)
        try:
            await rig.server.start()
            yield rig
        finally:
            await rig.server.stop()

    def section(self, **more: Any) -> dict[str, Any]:
        arguments = [
            {"parameter": "command_id"},
            {"parameter": "power_w", "unit": "kW"},
            {"parameter": "from_ms", "type": "Int64"},
            {"parameter": "until_ms", "type": "Int64"},
        ]
        route = {"object": self.server.node("plant"), "method": self.server.node("SetPower"), "arguments": arguments}
        values = secured(self.server, self.folder, keys=("power",), **more)
        values["devices"]["meter"]["commands"] = {"set_power": route}
        return values

    def adapter(self) -> Adapter:
        return OpcuaAdapter(OpcuaConfig.from_section("plant", self.section()))

    def bounded_adapter(self) -> Adapter:
        return OpcuaAdapter(OpcuaConfig.from_section("plant", self.section(publish_requests=1)))

    def adapter_with_wrong_credentials(self) -> Adapter:
        return OpcuaAdapter(OpcuaConfig.from_section("plant", self.section(password=PASSWORD + "!")))

    async def send(self, number: int) -> None:
        self._newest = number
        await self.server.set("meter.power", number)

    async def send_at(self, number: int, at_ms: int) -> None:
        await self.server.set("meter.power", number, time_ms=at_ms)

    async def repeat(self, number: int) -> None:
        """A server repeats a value when it is asked for the subscription again."""
        await self.server.tell("cut")
        await asyncio.sleep(0.3)

    def acknowledged(self) -> set[int]:
        return {int(value) for value in self.server.acknowledged if value >= 0}

    async def flood(self, total_bytes: int) -> int:
        count = total_bytes // self._ITEM_BYTES
        start = now_ms() - count - 10_000
        sent = 0
        while sent < count:
            part = min(1000, count - sent)
            while sent - len(self.server.acknowledged) > self._WINDOW - part:  # noqa: ASYNC110  # another task's state
                await asyncio.sleep(0.02)
            await self.server.tell("many", key="meter.power", **{"from": sent}, count=part, time=start + sent)
            sent += part
        return count

    def bad_frames(self) -> Sequence[tuple[bytes, str]]:
        return [
            (b'"NaN"', "not_a_number"),
            (b'"Infinity"', "not_a_number"),
            (b"1e300", "out_of_range"),
            (b"[1, 2]", "no_value"),
            (b"BadSensorFailure", "bad_status"),
        ]

    async def send_raw(self, payload: bytes) -> None:
        """A value (JSON) or a StatusCode, in a notification of its own."""
        await until(lambda: self._newest in self.acknowledged(), what="the acknowledgement of the reading before")
        before = self.server.notifications
        if payload.startswith(b"Bad"):
            await self.server.set("meter.power", 1, status=payload.decode())
        else:
            await self.server.set("meter.power", json.loads(payload))
        await until(lambda: self.server.notifications > before, what="its acknowledgement")

    @contextlib.asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        await self.server.stop()
        yield
        await self.server.start()

    async def appear(self) -> str:
        return f"{NAMESPACE}/{NEIGHBOUR}"

    async def keep(self, readings: Mapping[int, int]) -> None:
        for number, at in readings.items():
            await self.server.set("meter.power", number, time_ms=at)

    async def introduce(self, facts: DeviceFacts) -> DeviceFacts:
        """The nameplate at the device's object."""
        names = ("Manufacturer", "Model", "SerialNumber", "SoftwareRevision")
        await self.server.tell("introduce", device="meter", properties=dict(zip(names, facts, strict=False)))
        return cleaned(facts._replace(battery_permille=None))

    async def behave(self, behaviour: Behaviour) -> None:
        await self.server.tell("behave", behaviour=behaviour)

    def acts(self) -> Sequence[Act]:
        return [
            ("set_power", {"power_w": int(act["power"] * 1000), "from_ms": act["from"], "until_ms": act["until"]})
            for act in self.server.acts
        ]

    def command(self) -> tuple[str, Mapping[str, int]]:
        return "set_power", {"power_w": 1200, "from_ms": 1_700_000_000_000, "until_ms": 1_700_000_900_000}
