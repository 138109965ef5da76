"""A connection to no broker: messages are put in by hand, acknowledgements and publications are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from flexrelay_adapters.mqtt._client import Session
from flexrelay_adapters.mqtt.config import BrokerConfig


class Message(NamedTuple):
    topic: str
    payload: bytes


class Hand:
    """`Connection`; give `open` to an adapter as its `connect`."""

    def __init__(self) -> None:
        self.batches: asyncio.Queue[Sequence[Message]] = asyncio.Queue()
        self.acknowledged: list[Message] = []
        self.published: list[tuple[str, bytes, int, bool]] = []
        """Topic, payload, QoS, retain."""
        self.closed = 0

    async def open(self, config: BrokerConfig, session: Session | None = None) -> Hand:
        return self

    async def subscribe(self, filters: Sequence[str]) -> None: ...

    async def gather(self, most: int) -> Sequence[Message]:
        return await self.batches.get()

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        self.acknowledged += messages

    async def publish(
        self, topic: str, payload: bytes, expiry_s: int | None, *, qos: int = 1, retain: bool = False
    ) -> None:
        self.published.append((topic, payload, qos, retain))

    async def close(self) -> None:
        self.closed += 1
