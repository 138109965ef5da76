"""The MQTT broker of the demo and the tests: Mosquitto as a child process when it is installed, else amqtt embedded.

Both bind to loopback, know the same accounts and hold each account to its topics. What was started here is stopped
here, nothing else.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol

from flexrelay.demo.accounts import TOPICS, Account, BrokerError, Tls, device_account, gateway_account
from flexrelay.demo.mosquitto import Mosquitto, free_port, mosquitto_path

__all__ = [
    "TOPICS",
    "Account",
    "Broker",
    "BrokerError",
    "Mosquitto",
    "Tls",
    "device_account",
    "free_port",
    "gateway_account",
    "mosquitto_path",
    "start_broker",
]


class Broker(Protocol):
    """A broker that `start_broker` runs."""

    kind: str
    """Which program it is and its version, for people."""
    mqtt5: bool
    host: str
    port: int

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


@contextlib.asynccontextmanager
async def start_broker(
    folder: Path, accounts: Sequence[Account], *, port: int | None = None, embedded: bool = False
) -> AsyncIterator[Broker]:
    """Run Mosquitto when it is installed (and not `embedded`), else amqtt inside this process. Raises BrokerError."""
    program = None if embedded else mosquitto_path()
    broker: Broker
    if program is not None:
        broker = Mosquitto(folder, accounts, program=program, port=port)
    else:
        from flexrelay.demo.embedded_broker import EmbeddedBroker

        broker = EmbeddedBroker(accounts, port=port or free_port())
    try:
        await broker.start()
        yield broker
    finally:
        await broker.stop()
