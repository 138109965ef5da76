"""The MQTT way: uplinks with something in them go to the sink; empty ones are counted and acknowledged."""

from collections.abc import Sequence

from flexrelay_adapters._counters import Counters
from flexrelay_adapters.lorawan.servers import LorawanDialect, Server, Uplink
from flexrelay_adapters.lorawan.webhook import PROTOCOL
from flexrelay_adapters.mqtt._client import Inbound
from flexrelay_adapters.mqtt.adapter import MqttAdapter
from flexrelay_adapters.mqtt.config import MqttConfig
from flexrelay_adapters.mqtt.topics import TopicPattern
from flexrelay_sdk import Codec, DecodeError
from flexrelay_sdk.mapping import parse_json


class LorawanMqtt(MqttAdapter):
    """`Adapter` and `CommandTarget` over the network server's broker."""

    def __init__(
        self, config: MqttConfig, codec: Codec, server: Server, dialect: LorawanDialect, counters: Counters
    ) -> None:
        super().__init__(config, codec, protocol=PROTOCOL, dialect=dialect)
        self.counters = counters
        self._server = server
        self._uplinks = TopicPattern(config.readings[0])

    async def take(self, gathered: Sequence[Inbound], now_ms: int) -> None:
        uplinks = [self._uplink(message) for message in gathered]
        carrying = [
            message for message, uplink in zip(gathered, uplinks, strict=True) if uplink is None or not uplink.empty
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
            uplink = self._server.uplink(parse_json(message.payload))
        except DecodeError:
            return None
        return uplink if uplink.device == credential else None
