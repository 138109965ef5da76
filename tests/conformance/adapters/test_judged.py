"""What the gateway judges, through every adapter to the journal on disk: who it is, repetitions, order, and times.

The devices are those of the contract's rigs. Readings over Modbus have no time of their own, so of them only who it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conformance.adapters.files.rig import FilesRig
from conformance.adapters.http.rig import HttpRig
from conformance.adapters.iotagent.rig import HttpDeviceRig, JsonSpeech, MqttDeviceRig, UltralightSpeech
from conformance.adapters.lorawan.rig import BrokerRig, WebhookRig
from conformance.adapters.lwm2m.rig import Lwm2mRig
from conformance.adapters.modbus.rig import PymodbusRig
from conformance.adapters.mqtt.rig import MqttRig
from conformance.adapters.opcua_pubsub.rig import PubSubRig
from conformance.adapters.sigfox.rig import SigfoxRig
from conformance.adapters.sparkplug.rig import SparkplugRig
from support.contracts import Party
from support.opcua_rig import NodeOpcuaRig
from support.readings import IngestPath, ingest_path
from support.simulated import now_ms

from flexrelay.ingest import Enrolment
from flexrelay_sdk.testkit import running, until

PATIENCE_S = 90.0
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
EQUIVOCATION, FUTURE, STALE, REVOKED = 91, 92, 93, 94
"""Numbers of readings that must not be stored."""


class Way(NamedTuple):
    """How readings come. `tells_again`: by itself, what was taken already (a history that is read after an outage, a
    device that asks again after a refusal); `silent`: the protocol has no acknowledgement, so nothing is kept for a
    gateway that is away; `coarse`: values of one instant are normal, the next one goes to the next millisecond."""

    open: Callable[[Path], AbstractAsyncContextManager[Any]]
    tells_again: bool = False
    silent: bool = False
    coarse: bool = False


WAYS = {
    "mqtt": Way(lambda folder: MqttRig.open(folder, "5")),
    "http": Way(HttpRig.open),
    "files": Way(FilesRig.open),
    "ultralight by mqtt": Way(lambda folder: MqttDeviceRig.open(folder, UltralightSpeech())),
    "ultralight by http": Way(lambda folder: HttpDeviceRig.open(folder, UltralightSpeech())),
    "fiware_json by mqtt": Way(lambda folder: MqttDeviceRig.open(folder, JsonSpeech())),
    "fiware_json by http": Way(lambda folder: HttpDeviceRig.open(folder, JsonSpeech())),
    "sparkplug": Way(lambda folder: SparkplugRig.open(folder, "5"), silent=True),
    "chirpstack by mqtt": Way(lambda folder: BrokerRig.open("chirpstack", folder)),
    "things_stack by mqtt": Way(lambda folder: BrokerRig.open("things_stack", folder)),
    "chirpstack by webhook": Way(lambda folder: WebhookRig.open("chirpstack", folder)),
    "things_stack by webhook": Way(lambda folder: WebhookRig.open("things_stack", folder)),
    "sigfox": Way(SigfoxRig.open),
    "lwm2m": Way(Lwm2mRig.open, tells_again=True),
    "opcua": Way(NodeOpcuaRig.open, tells_again=True, coarse=True),
    "opcua_pubsub": Way(lambda folder: PubSubRig.open(folder, "5"), coarse=True),
}
BROKERS = ("mqtt", "sparkplug", "opcua_pubsub")


def marked(name: str) -> Any:
    needs = [pytest.mark.mosquitto] if name.startswith(BROKERS) or name.endswith("by mqtt") else []
    return pytest.param(name, marks=needs)


class Gateway:
    """A run of the adapter into an ingest path on the journal of the runs before."""

    def __init__(self, rig: Any, adapter: Any, path: IngestPath, party: Party) -> None:
        self.rig = rig
        self._adapter = adapter
        self._path = path
        self._party = party

    def enrol(self) -> None:
        bound = (self._adapter.protocol, self.rig.credential)
        self._path.registry.enrol(Enrolment(self._party.did, (bound,), unsigned=True))

    def revoke(self) -> None:
        self._path.registry.apply("identity.deactivated", {"did": self._party.did, "kind": "device"})

    def letters(self, reason: str) -> int:
        return self._path.ingest.outcomes[f"dead_letter:{reason}"]

    async def refused(self, reason: str) -> None:
        await until(lambda: self.letters(reason) > 0, PATIENCE_S, f"the dead letter {reason}")

    async def taken(self, *numbers: int) -> None:
        """Wait until these are on disk: a frame may hold several."""
        async with asyncio.timeout(PATIENCE_S):
            while not set(numbers) <= set((await self.readings()).values()):  # noqa: ASYNC110  # the journal tells nobody
                await asyncio.sleep(0.02)

    async def readings(self) -> dict[int, int]:
        """What the journal holds: power by instant. Each instant stands once."""
        found: dict[int, int] = {}
        for entry in await self._path.journal.read(0, 10_000):
            assert entry.did == self._party.did and entry.credential == self.rig.credential
            for measurement in entry.measurements:
                if "power_w" in measurement.registers:
                    assert measurement.observed_at not in found, "stored twice"
                    found[measurement.observed_at] = measurement.registers["power_w"]
        return found


@asynccontextmanager
async def started(folder: Path, rig: Any, party: Party, *, enrolled: bool) -> AsyncIterator[Gateway]:
    async with ingest_path(folder, party) as path:
        path.now[0] = now_ms()
        adapter = rig.adapter()
        gateway = Gateway(rig, adapter, path, party)
        if enrolled:
            gateway.enrol()
        async with running(adapter, path.ingest, connect_s=PATIENCE_S):
            yield gateway


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [marked(name) for name in WAYS])
async def test_who_when_and_how_often(name: str, tmp_path: Path) -> None:
    way, party = WAYS[name], Party.new("device")
    began = now_ms() // 1000 * 1000 - HOUR_MS

    def at(number: int) -> int:
        return began + number * 1000

    wrong = [(FUTURE, now_ms() + HOUR_MS, "future"), (STALE, now_ms() - 400 * DAY_MS, "stale")]
    if not way.coarse:
        wrong.append((EQUIVOCATION, at(1), "equivocation"))
    async with way.open(tmp_path) as rig:
        async with started(tmp_path, rig, party, enrolled=False) as gateway:
            await rig.send_at(1, at(1))
            await gateway.refused("unknown_device")
            assert await gateway.readings() == {}
            gateway.enrol()
            for number in (1, 4, 3, 3, 1):  # out of order, and again
                await rig.send_at(number, at(number))
            await gateway.taken(1, 3, 4)
            for number, instant, reason in wrong:
                await rig.send_at(number, instant)
                await gateway.refused(reason)
            await rig.send_at(5, at(5))
            await gateway.taken(5)
            told = {number: at(number) for number in (1, 3, 4, 5)}
            if not way.silent:
                await until(lambda: rig.acknowledged() >= told.keys(), PATIENCE_S, "the acknowledgements")

        if not way.silent:
            await rig.send_at(6, at(6))  # while nobody is there

        async with started(tmp_path, rig, party, enrolled=True) as gateway:  # it knows what is on disk
            for number, instant in told.items():
                await rig.send_at(number, instant)
            await rig.send_at(2, at(2))
            await gateway.taken(2, *((6,) if not way.silent else ()))
            if not way.tells_again:
                assert [gateway.letters(reason) for _, _, reason in wrong] == [0] * len(wrong), "it came again"
            gateway.revoke()
            await rig.send_at(REVOKED, at(7))
            await gateway.refused("device_deactivated")
            told[2] = at(2)
            found = {instant: number for instant, number in (await gateway.readings()).items() if number < 6}
            assert found.items() >= {instant: number for number, instant in told.items()}.items()
            assert len(found) == len(told) or way.coarse, "something was stored twice"
            assert not {EQUIVOCATION, FUTURE, STALE, REVOKED} & set((await gateway.readings()).values())


async def test_polled_devices_that_are_unknown_or_revoked(tmp_path: Path) -> None:
    party = Party.new("device")
    async with PymodbusRig.open() as rig, started(tmp_path, rig, party, enrolled=False) as gateway:
        await rig.send(1)
        await gateway.refused("unknown_device")
        gateway.enrol()
        await rig.send(2)
        await gateway.taken(2)
        gateway.revoke()
        await rig.send(3)
        await gateway.refused("device_deactivated")
        assert set((await gateway.readings()).values()) == {2}
