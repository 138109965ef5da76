"""Simulated devices as ordinary clients of a broker (aiomqtt): what all of them do the same, whatever they say.

They share nothing with the adapters' client, so that adapter and devices do not agree on a common mistake.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Annotated, Any, Final, Literal

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from pydantic import Field, SecretStr

from flexrelay_sdk.config import AdapterConfig
from flexrelay_sdk.simulation import SimulatorStats

log = logging.getLogger(__name__)

SESSION_S: Final = 3600
_TURNED_AWAY: Final = frozenset({134, 135})
"""Bad user name or password, not authorised: reason codes of MQTT 5, to which paho translates 3.1.1's."""


def session(protocol: Literal["5", "3.1.1"], *, kept: bool = True) -> dict[str, Any]:
    """Arguments of `aiomqtt.Client`. `kept`: the broker keeps the session while the client is away."""
    common: dict[str, Any] = {"timeout": 30}
    if protocol == "3.1.1":
        return common | {"protocol": aiomqtt.ProtocolVersion.V311, "clean_session": not kept}
    common |= {"protocol": aiomqtt.ProtocolVersion.V5, "clean_start": not kept}
    if kept:
        common["properties"] = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho has none here
        common["properties"].SessionExpiryInterval = SESSION_S
    return common


class DeviceBroker(AdapterConfig):
    """The broker at which simulated devices send."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    protocol: Literal["5", "3.1.1"] = "5"
    username: str | None = None
    """`{device}` in it and in `password` is the client's identifier."""
    password: SecretStr | None = None
    backoff_s: Annotated[float, Field(gt=0, le=60)] = 1.0

    def client(self, identifier: str, *, kept: bool = True, will: aiomqtt.Will | None = None) -> aiomqtt.Client:
        """For one connection. `kept`: the session outlives it."""

        def filled(text: str | None) -> str | None:
            return None if text is None else text.replace("{device}", identifier)

        return aiomqtt.Client(
            self.host,
            self.port,
            identifier=identifier,
            username=filled(self.username),
            password=filled(None if self.password is None else self.password.get_secret_value()),
            will=will,
            **session(self.protocol, kept=kept),
        )

    async def hold(self, who: str, connected: Callable[[], Awaitable[None]], stats: SimulatorStats) -> None:
        """Live one connection after the other, until cancelled: `connected` connects, and ends with the connection.

        Raises ConnectionError when the broker turns `who` away.
        """
        while True:
            lost = await asyncio.create_task(_until_lost(connected))
            check_cancelled()
            if lost is not None:
                check_lost(lost, f"{self.host}:{self.port}", who)
            stats.reconnects += 1
            await asyncio.sleep(self.backoff_s)


async def _until_lost(connected: Callable[[], Awaitable[None]]) -> BaseException | None:
    lost: BaseException | None = None
    try:
        await connected()
    except* aiomqtt.MqttError as errors:
        lost = errors
    return lost


def check_cancelled() -> None:
    """Python 3.11's wait_for, in aiomqtt, can lose a cancellation that comes together with what it waits for; then a
    loop would go on for ever. Not for a task that has had a TaskGroup: its count keeps what the group did to it.
    So a connection lives in a task of its own, which asks before its group, and the task that waits for it after."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def check_lost(errors: BaseException, where: str, who: str) -> None:
    """Raises ConnectionError when the broker has turned `who` away; any other end of the connection is only logged."""
    error = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    for told in _told(errors):
        code = getattr(told, "rc", None)  # a number is paho's own: its 4 says that there is no connection
        if isinstance(code, ReasonCode) and code.value in _TURNED_AWAY:
            raise ConnectionError(f"{where} turns {who} away: {told}; check username and password")
    log.info("%s: connection to %s lost: %s", who, where, error)


def _told(error: BaseException) -> Iterator[BaseException]:
    """An error, or those of a group, each with what it came from."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _told(each)
        return
    yield error
    if error.__cause__ is not None:
        yield error.__cause__
