"""The adapter of a configuration section: what the entry point `opcua_pubsub` names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexrelay_adapters.opcua_pubsub.adapter import PubSubAdapter
from flexrelay_adapters.opcua_pubsub.config import PubSubConfig
from flexrelay_sdk import Codec


def make_adapter(name: str, section: Mapping[str, Any], folder: Path, native: Codec) -> PubSubAdapter:
    """See `flexrelay_sdk.AdapterFactory`. PubSub has no signed readings, so `native` is not used."""
    return PubSubAdapter(PubSubConfig.from_section(name, section).below(folder))
