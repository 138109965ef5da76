"""Campaigns of kill -9: a gateway under load dies at random moments; what it had acknowledged is in its journal, and
what it was to command is done once.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Protocol

import aiomqtt
import httpx

from flexrelay_sdk.clock import wall_ms
from flexrelay_sdk.testkit import Behaviour, until
from support.any_gateway import KilledGateway
from support.commanding_gateway import CommandingGateway
from support.load import JournalChecker
from support.mqtt_proxy import AckRecorder

PATIENCE_S = 120.0
HOUR_MS = 3_600_000
LONGEST_S = 0.5
"""From the first acknowledgement of a process to its end."""


@dataclass(frozen=True)
class Pushing:
    """Devices that post one reading after the other to `path`, each again until it is answered with a 2xx."""

    port: int
    path: str
    devices: int
    headers: Callable[[int], Mapping[str, str]]
    payload: Callable[[int, int], bytes]
    """Of a device, and the count of its reading."""


async def kills_over_http(gateway: KilledGateway, load: Pushing, kills: int, chance: random.Random) -> None:
    """Each process lives until every device has had two answers of it on the average, and a random time longer."""
    answers: list[list[bytes]] = [[] for _ in range(load.devices)]
    lives = [asyncio.create_task(_live(load, number, answers[number])) for number in range(load.devices)]
    checker = JournalChecker(gateway.journal)
    acknowledged: Counter[bytes] = Counter()
    try:
        for _ in range(kills):
            before = sum(map(len, answers))
            async with gateway.running():
                await _until(gateway, lambda n=before: sum(map(len, answers)) >= n + 2 * load.devices, "the answers")
                await asyncio.sleep(chance.uniform(0, LONGEST_S))
            acknowledged = Counter(payload for each in answers for payload in each)
            await checker.check(acknowledged)
            assert not any(task.done() for task in lives), "a device gave up"
    finally:
        for task in lives:
            task.cancel()
        await asyncio.gather(*lives, return_exceptions=True)
    _tell(kills, acknowledged, checker)


async def _live(load: Pushing, number: int, acknowledged: list[bytes]) -> None:
    url = f"http://127.0.0.1:{load.port}"
    async with httpx.AsyncClient(base_url=url, headers=dict(load.headers(number)), timeout=30) as client:
        while True:
            payload = load.payload(number, len(acknowledged))
            with suppress(httpx.TransportError):
                answer = await client.post(load.path, content=payload)
                if answer.is_success:
                    acknowledged.append(payload)
                    continue
                assert answer.status_code == 503, answer.text
            await asyncio.sleep(0.05)


@dataclass(frozen=True)
class Publishing:
    """A client that publishes at QoS 1: the topic and payload of its n-th message, which is one reading."""

    port: int
    username: str
    password: str
    message: Callable[[int], tuple[str, bytes]]


async def kills_behind_a_broker(
    gateway: KilledGateway, recorder: AckRecorder, load: Publishing, kills: int, chance: random.Random
) -> None:
    """The gateway goes to the broker by way of `recorder`. In the end all that the broker took is in the journal."""
    sent: list[bytes] = []
    enough = asyncio.Event()
    checker = JournalChecker(gateway.journal)
    async with aiomqtt.Client(
        "127.0.0.1", load.port, username=load.username, password=load.password, timeout=60
    ) as client:

        async def publish() -> None:
            while not enough.is_set():
                messages = [load.message(len(sent) + number) for number in range(50)]
                await asyncio.gather(*[client.publish(topic, payload, qos=1) for topic, payload in messages])
                sent.extend(payload for _, payload in messages)
                await asyncio.sleep(0.05)

        async with gateway.running():
            topic, first = load.message(0)
            while first not in recorder.acknowledged:  # from then on the broker keeps what is sent for the gateway
                gateway.check()
                await client.publish(topic, first, qos=1)
                await asyncio.sleep(0.1)
            publishing = asyncio.create_task(publish())
            try:
                for _ in range(kills):
                    before = recorder.acknowledged.total()
                    await _until(gateway, lambda n=before: recorder.acknowledged.total() > n, "an acknowledgement")
                    await asyncio.sleep(chance.uniform(0, LONGEST_S))
                    await gateway.kill()
                    await recorder.settled()
                    await checker.check(recorder.acknowledged)
                    await gateway.start()
            finally:
                enough.set()
                await publishing
            await _until(gateway, lambda: set(sent) <= recorder.acknowledged.keys(), "what the broker has kept")
        await recorder.settled()
    await checker.check(recorder.acknowledged)
    assert checker.stored.keys() == set(sent), "the journal holds what was never sent"
    assert recorder.foreign == 0
    _tell(kills, recorder.acknowledged, checker)


class CommandedDevice(Protocol):
    """A device, or what stands before it, that outlives the gateway and does what has one id once."""

    @property
    def heard(self) -> int:
        """Commands that came, also again."""
        ...

    @property
    def done(self) -> list[int]:
        """The `power_w` of each that was done."""
        ...

    async def behave(self, behaviour: Behaviour) -> None: ...


async def kills_amid_commands(
    device: CommandedDevice,
    start: Callable[..., AbstractAsyncContextManager[CommandingGateway]],
    kills: int,
    chance: random.Random,
) -> None:
    """`start` a gateway with one command more each time; it dies a random time after something has come to the device,
    which says nothing to half of it. In the end each command is done once, and the gateway knows it."""
    expires_at = (wall_ms() + HOUR_MS) // 1000 * 1000
    commands = [
        {
            "order": f"order {number}",
            "name": "set_power",
            "parameters": {"power_w": 100 + number, "from_ms": expires_at - 2 * HOUR_MS, "until_ms": expires_at},
            "expires_at": expires_at,
        }
        for number in range(kills + 1)
    ]
    for number in range(1, kills + 1):
        await device.behave(chance.choice(("obey", "silent")))
        heard = device.heard
        async with start(*commands[:number]) as gateway:
            await gateway.until(lambda n=heard: device.heard > n or not _open(gateway), "that a command is heard")
            await asyncio.sleep(chance.uniform(0, 0.2))
    await device.behave("obey")
    async with start(*commands) as gateway:
        await gateway.until(lambda: len(gateway.states) > kills and not _open(gateway), "the ends of all")
        assert set(gateway.states.values()) == {"acked"}, gateway.states
    assert sorted(device.done) == [100 + number for number in range(kills + 1)]
    print(f"\n{kills} kills, {len(commands)} commands, heard {device.heard} times, each done once")


def _open(gateway: CommandingGateway) -> bool:
    return any(state in ("queued", "sent") for state in gateway.states.values()) or not gateway.states


async def _until(gateway: KilledGateway, condition: Callable[[], bool], what: str) -> None:
    def done() -> bool:
        gateway.check()
        return condition()

    await until(done, PATIENCE_S, what)


def _tell(kills: int, acknowledged: Counter[bytes], checker: JournalChecker) -> None:
    print(f"\n{kills} kills, {len(acknowledged):,} acknowledged, {len(checker.stored):,} in the journal")
