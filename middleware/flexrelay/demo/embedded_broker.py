"""amqtt inside this process, where Mosquitto is not installed: MQTT 3.1.1 only, slower, sessions in memory only."""

import hmac
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

from amqtt.broker import Broker as AmqttBroker
from amqtt.contexts import Action
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin
from amqtt.session import Session

from flexrelay.demo.accounts import Account, BrokerError


class AccountsPlugin(BaseAuthPlugin):  # type: ignore[misc]  # amqtt carries no type information
    """Lets in the accounts that the broker was started with."""

    @dataclass
    class Config:
        passwords: dict[str, str] = field(default_factory=dict)

    async def authenticate(self, *, session: Session) -> bool | None:
        expected = self._get_config_option("passwords", {}).get(session.username)
        given = session.password or ""
        return expected is not None and hmac.compare_digest(expected.encode(), given.encode())


class TopicsPlugin(BaseTopicPlugin):  # type: ignore[misc]  # amqtt carries no type information
    """Holds each account to its topics."""

    @dataclass
    class Config:
        read: dict[str, list[str]] = field(default_factory=dict)
        write: dict[str, list[str]] = field(default_factory=dict)

    async def topic_filtering(
        self, *, session: Session | None = None, topic: str | None = None, action: Action | None = None
    ) -> bool | None:
        option = "write" if action == Action.PUBLISH else "read"
        allowed = self._get_config_option(option, {}).get(session.username, ()) if session is not None else ()
        return topic is not None and any(_covers(one.split("/"), topic.split("/")) for one in allowed)


def _covers(allowed: list[str], asked: list[str]) -> bool:
    """Whether everything that `asked` (a topic or filter) matches is within the filter `allowed`."""
    if len(allowed) != len(asked) or "#" in asked:
        return False
    return all(own in ("+", other) for own, other in zip(allowed, asked, strict=True))


class EmbeddedBroker:
    """An amqtt broker on loopback, with the accounts' topics enforced."""

    mqtt5 = False

    def __init__(self, accounts: Sequence[Account], *, port: int) -> None:
        self.host = "127.0.0.1"
        self.port = port
        self.kind = f"amqtt {version('amqtt')} (embedded)"
        self._accounts = tuple(accounts)
        self._broker: AmqttBroker | None = None

    async def start(self) -> None:
        """Raises BrokerError."""
        logging.getLogger("amqtt").setLevel(logging.ERROR)
        logging.getLogger("transitions").setLevel(logging.ERROR)
        plugins = {
            f"{__name__}.AccountsPlugin": {"passwords": {account.user: account.password for account in self._accounts}},
            f"{__name__}.TopicsPlugin": {
                "read": {account.user: list(account.read) for account in self._accounts},
                "write": {account.user: list(account.write) for account in self._accounts},
            },
        }
        listeners = {"default": {"type": "tcp", "bind": f"{self.host}:{self.port}", "max_connections": 0}}
        try:
            self._broker = AmqttBroker({"listeners": listeners, "plugins": plugins})
            await self._broker.start()
        except Exception as error:
            self._broker = None
            raise BrokerError(f"the embedded broker did not start on port {self.port}: {error!r}") from error

    async def stop(self) -> None:
        broker, self._broker = self._broker, None
        if broker is not None:
            await broker.shutdown()
