"""A protocol upon MQTT, held to its broker: connect, subscribe, take, acknowledge, reconnect; and publish.

What the messages mean is the protocol's (`take`); that they are acknowledged only after `take` has returned is decided
here.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Protocol
from weakref import WeakValueDictionary

from flexrelay_adapters.mqtt._client import KEPT, Connection, ConnectionLost, DirectConnection, Inbound, Session
from flexrelay_adapters.mqtt.config import BrokerConfig
from flexrelay_sdk import Sink, SinkUnavailable
from flexrelay_sdk.clock import wall_ms

log = logging.getLogger(__name__)

Connect = Callable[[BrokerConfig, Session], Awaitable[Connection]]
Clock = Callable[[], int]


class Upon(Protocol):
    """The protocol upon MQTT."""

    def session(self) -> Session:
        """Of the connection that is about to be opened."""
        ...

    def filters(self) -> Sequence[str]: ...

    async def opened(self, connection: Connection) -> None:
        """Connected and subscribed. Raises ConnectionLost."""
        ...

    async def take(self, gathered: Sequence[Inbound], now_ms: int) -> None:
        """Return when all of it is on disk or told to whom it concerns. Raises SinkUnavailable."""
        ...

    async def closing(self, connection: Connection) -> None:
        """The connection ends; it may be lost already. Raises ConnectionLost."""
        ...


class BrokerLink:
    """`run` until cancelled. `clock` is wall-clock UTC ms."""

    def __init__(
        self,
        config: BrokerConfig,
        upon: Upon,
        *,
        connect: Connect = DirectConnection.connect,
        clock: Callable[[], int] = wall_ms,
    ) -> None:
        self.config = config
        self.clock = clock
        self.connections = 0
        self.acknowledged = 0
        self.sink_refusals = 0
        self.trouble = ""
        """Why there is no connection; empty while there is one."""
        self._upon = upon
        self._connect = connect
        self._connection: Connection | None = None
        self._online = asyncio.Event()
        self._failures = 0
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By topic, while something is published to it: what goes out again does not follow a newer one."""

    @property
    def connected(self) -> bool:
        """Connected and subscribed."""
        return self._online.is_set()

    async def wait_connected(self) -> None:
        await self._online.wait()

    async def run(self) -> None:
        """Serve and reconnect with back-off. What else `take` raises ends it."""
        while True:
            try:
                await self._serve()
            except ConnectionLost as error:
                self.trouble = str(error)
                log.warning("%s: %s", self.config.name, error)
            except SinkUnavailable as error:
                self.sink_refusals += 1
                self.trouble = "the gateway cannot store"
                log.warning("%s: the gateway cannot store (%s); backing off", self.config.name, error)
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # Python 3.11's wait_for lets a cancellation get lost in an exception that comes at the same moment
                raise asyncio.CancelledError
            most = min(self.config.backoff_max_s, self.config.backoff_min_s * 2 ** min(self._failures, 20))
            self._failures += 1
            await asyncio.sleep(most * (0.5 + random.random() / 2))  # noqa: S311  # jitter, not a secret

    async def publish(
        self, topic: str, payload: bytes, expires_at: int | None = None, *, qos: int = 1, retain: bool = False
    ) -> bool:
        """Hand it to the broker, waiting for a connection until `expires_at` (UTC ms); False when that came first. To
        one topic they go out in the order in which they came here.

        Without `expires_at` one attempt is made, at once. Raises ConnectionLost then.
        """
        if expires_at is None:
            await self._publish(topic, payload, None, qos, retain)
            return True
        turn = self._turns.setdefault(topic, asyncio.Lock())
        if not await self._until(turn.acquire(), expires_at):
            return False
        try:
            while await self._until(self._online.wait(), expires_at):
                try:
                    await self._publish(topic, payload, max(1, (expires_at - self.clock()) // 1000), qos, retain)
                except ConnectionLost as error:
                    log.info("%s: %s goes out again: %s", self.config.name, topic, error)
                    await asyncio.sleep(self.config.backoff_min_s)
                    continue
                return True
            return False
        finally:
            turn.release()

    async def _until(self, waiting: Coroutine[object, object, bool], expires_at: int) -> bool:
        """Whether it came before `expires_at` (UTC ms)."""
        left_ms = expires_at - self.clock()
        if left_ms <= 0:
            waiting.close()
            return False
        try:
            async with asyncio.timeout(left_ms / 1000):
                return await waiting
        except TimeoutError:
            return False

    async def _publish(self, topic: str, payload: bytes, expiry_s: int | None, qos: int, retain: bool) -> None:
        connection = self._connection
        if connection is None:
            raise ConnectionLost(f"there is no connection to {self.config.host}:{self.config.port}")
        await connection.publish(topic, payload, expiry_s, qos=qos, retain=retain)

    async def _serve(self) -> None:
        connection = self._connection = await self._connect(self.config, self._upon.session())
        # A resumed session delivers at once, and what it delivers may fill every bound before the broker's answer to
        # the subscription: so both go on side by side.
        pumping = asyncio.create_task(self._pump(connection), name=f"{self.config.name} readings")
        opening = asyncio.create_task(self._open(connection), name=f"{self.config.name} subscription")
        try:
            done, _ = await asyncio.wait({pumping, opening}, return_when=asyncio.FIRST_COMPLETED)
            if opening in done:
                opening.result()
            await pumping
        finally:
            self._online.clear()
            self._connection = None
            for task in (pumping, opening):
                task.cancel()
            await asyncio.gather(pumping, opening, return_exceptions=True)
            try:
                async with asyncio.timeout(1.0):
                    await self._upon.closing(connection)
            except (ConnectionLost, TimeoutError):
                pass  # it was lost already, or does not answer
            await connection.close()

    async def _open(self, connection: Connection) -> None:
        await connection.subscribe(self._upon.filters())
        await self._upon.opened(connection)
        self.connections += 1
        self.trouble = ""
        self._online.set()

    async def _pump(self, connection: Connection) -> None:
        while True:
            gathered = await connection.gather(self.config.batch)
            await self._upon.take(gathered, self.clock())
            await connection.acknowledge(gathered)
            self.acknowledged += len(gathered)
            self._failures = 0


class UponBroker:
    """The part of `Adapter`, and of `Upon`, that is the same for most protocols that stand on one broker. The adapter
    is the link's `Upon`; `_sink` is there when `take` is called."""

    def __init__(
        self, config: BrokerConfig, upon: Upon, *, connect: Connect = DirectConnection.connect, clock: Clock = wall_ms
    ) -> None:
        self.name = config.name
        self.link = BrokerLink(config, upon, connect=connect, clock=clock)
        self._sink: Sink | None = None

    def validate(self) -> None:
        """Check what the model cannot: that the files exist. Raises ValueError naming the field."""
        self.link.config.check_files()

    @property
    def endpoint(self) -> str:
        """The broker, and why it is not connected."""
        broker = f"{self.link.config.host}:{self.link.config.port}"
        return f"{broker} ({self.link.trouble})" if self.link.trouble else broker

    @property
    def connected(self) -> bool:
        return self.link.connected

    async def wait_connected(self) -> None:
        """Return once the adapter is connected, subscribed, and has said what its protocol says then."""
        await self.link.wait_connected()

    async def run(self, sink: Sink) -> None:
        """Until cancelled. What the sink raises besides SinkUnavailable ends it."""
        self._sink = sink
        await self.link.run()

    def session(self) -> Session:
        """One that the broker keeps: what was not acknowledged comes again."""
        return KEPT

    async def opened(self, connection: Connection) -> None: ...

    async def closing(self, connection: Connection) -> None: ...
