"""The MQTT way: uplinks with something in them go to the sink; empty ones are counted and acknowledged, and what a
device is, is remembered."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from flexrelay_adapters._counters import Counters
from flexrelay_adapters.lorawan.nameplate import Nameplates
from flexrelay_adapters.lorawan.servers import LorawanDialect, Server, Uplink
from flexrelay_adapters.lorawan.webhook import PROTOCOL
from flexrelay_adapters.mqtt._client import Inbound
from flexrelay_adapters.mqtt.adapter import MqttAdapter
from flexrelay_adapters.mqtt.config import MqttConfig
from flexrelay_adapters.mqtt.topics import TopicPattern
from flexrelay_sdk import Codec, DecodeError, DeviceFacts
from flexrelay_sdk.mapping import parse_json


class LorawanMqtt(MqttAdapter):
    """`Adapter`, `CommandTarget` and `FactTeller` over the network server's broker. `status` is the topic of what
    devices answer about themselves, "" for none."""

    def __init__(
        self,
        config: MqttConfig,
        codec: Codec,
        server: Server,
        dialect: LorawanDialect,
        counters: Counters,
        status: str = "",
    ) -> None:
        super().__init__(config, codec, protocol=PROTOCOL, dialect=dialect)
        self.counters = counters
        self._server = server
        self._uplinks = TopicPattern(config.readings[0])
        self._status = TopicPattern(status) if status else None
        self._nameplates = Nameplates()

    def facts(self) -> Sequence[tuple[str, DeviceFacts]]:
        """See `FactTeller`."""
        return self._nameplates.told()

    def filters(self) -> Sequence[str]:
        return [*super().filters(), *([self._status.filter] if self._status is not None else [])]

    async def take(self, gathered: Sequence[Inbound], now_ms: int) -> None:
        rest = [message for message in gathered if not self._heard_status(message)]
        uplinks = [self._uplink(message) for message in rest]
        carrying = [
            message for message, uplink in zip(rest, uplinks, strict=True) if uplink is None or not uplink.empty
        ]
        await super().take(carrying, now_ms)
        for uplink in uplinks:  # in the order of their arrival, once they are on disk
            if uplink is not None:
                self.counters.note(uplink.device, uplink.f_cnt)

    def _uplink(self, message: Inbound) -> Uplink | None:
        """None for everything else, and for what is to become a dead letter: the codec says why."""
        credential = self._uplinks.credential_of(message.topic)
        if credential is None or len(message.payload) > self.config.max_payload_bytes:
            return None
        try:
            document = parse_json(message.payload)
            uplink = self._server.uplink(document)
        except DecodeError:
            return None
        if uplink.device != credential:
            return None
        self._learn("up", credential, document)
        return uplink

    def _heard_status(self, message: Inbound) -> bool:
        """Whether it is one; what cannot be read of it is nobody's loss."""
        credential = self._status.credential_of(message.topic) if self._status is not None else None
        if credential is None:
            return False
        if len(message.payload) <= self.config.max_payload_bytes:
            with suppress(DecodeError):
                self._learn("status", credential, parse_json(message.payload))
        return True

    def _learn(self, event: str, credential: str, document: Any) -> None:
        device, facts = self._server.about(event, document)
        if device == credential:
            self._nameplates.learn(device, facts)
