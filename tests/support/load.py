"""Load of signed readings at QoS 1, and what the journal must hold of it after a kill."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiomqtt

from flexrelay.demo.broker import Mosquitto
from flexrelay.demo.devices import Device
from flexrelay.journal.sqlite import SqliteJournal


class Load:
    """Signed readings at QoS 1 from one aiomqtt client; `sent` are those that the broker confirmed."""

    def __init__(self, broker: Mosquitto, devices: list[Device], per_second: int) -> None:
        self.sent: list[bytes] = []
        self._broker, self._devices, self._per_second = broker, devices, per_second
        self._boundary = 0
        self._stopped = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        task = asyncio.create_task(self._run())
        try:
            yield self
        finally:
            self._stopped.set()
            await task

    async def _run(self) -> None:
        client = aiomqtt.Client(
            self._broker.host,
            self._broker.port,
            username="load",
            password="secret-l",
            identifier="load",
            protocol=aiomqtt.ProtocolVersion.V5,
        )
        async with client:
            while not self._stopped.is_set():
                for first in range(0, len(self._devices), 10):
                    messages = [
                        message
                        for device in self._devices[first : first + 10]
                        for message in device.messages(self._boundary)
                    ]
                    await asyncio.gather(*(client.publish(topic, payload, qos=1) for topic, payload in messages))
                    self.sent += [payload for _, payload in messages]
                    await asyncio.sleep(10 / self._per_second)
                self._boundary += 1


class JournalChecker:
    """Reads the journal as it lies on disk after a kill and holds it against the acknowledgements."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.stored: Counter[bytes] = Counter()
        self._position = 0

    async def check(self, acknowledged: Counter[bytes]) -> None:
        async with SqliteJournal(self._path) as journal:
            await journal.verify()  # nothing is torn: every segment gives its hash and follows the one before
            while entries := await journal.read(self._position, 5000):
                self.stored.update(entry.payload for entry in entries)
                self._position = entries[-1].position
            letters = await journal.letters()
        assert not letters, f"dead letter: {letters[0].reason} {letters[0].message}"
        lost = [payload for payload in acknowledged if payload not in self.stored]
        assert not lost, f"{len(lost)} acknowledged readings are not in the journal, e.g. {lost[0][:200]!r}"
        twice = [payload for payload, count in self.stored.items() if count > 1]
        assert not twice, f"{len(twice)} readings are in the journal more than once, e.g. {twice[0][:200]!r}"
