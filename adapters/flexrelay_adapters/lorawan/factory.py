"""The adapter of a configuration section: what the entry point `lorawan` names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexrelay_adapters._counters import Counters
from flexrelay_adapters.lorawan.broker import LorawanMqtt
from flexrelay_adapters.lorawan.codec import LorawanCodec
from flexrelay_adapters.lorawan.config import LorawanConfig
from flexrelay_adapters.lorawan.servers import SERVERS, LorawanDialect
from flexrelay_adapters.lorawan.webhook import LorawanWebhook
from flexrelay_sdk import Codec
from flexrelay_sdk.config import below


def make_adapter(name: str, section: Mapping[str, Any], folder: Path, native: Codec) -> LorawanMqtt | LorawanWebhook:
    """See `flexrelay_sdk.AdapterFactory`. `mqtt` or `http` in the section chooses the way."""
    config = LorawanConfig.from_section(name, section)
    server = SERVERS[config.server]
    counters = Counters(name)
    codec = LorawanCodec(server, config.ports)
    if config.http is not None:
        http = config.http.model_copy(
            update={
                "tokens_file": below(folder, config.http.tokens_file),
                "tls": config.http.tls.within(folder) if config.http.tls is not None else None,
            }
        )
        return LorawanWebhook(config.model_copy(update={"http": http}), server, codec, counters)
    assert config.mqtt is not None
    application = config.mqtt.application
    topics = [
        each.replace("{application}", application)
        for each in (server.readings, server.commands, server.answers[0], server.status)
    ]
    broker = config.broker(*topics[:3])
    if broker.tls is not None:
        files = {field: below(folder, getattr(broker.tls, field)) for field in ("ca", "certificate", "key")}
        broker = broker.model_copy(update={"tls": broker.tls.model_copy(update=files)})
    dialect = LorawanDialect(server, application, config.commands)
    return LorawanMqtt(broker, codec, server, dialect, counters, topics[3])
