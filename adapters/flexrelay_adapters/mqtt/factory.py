"""The adapter of a configuration section: what the entry point `mqtt` names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexrelay_adapters.mqtt.adapter import MqttAdapter
from flexrelay_adapters.mqtt.config import MqttConfig
from flexrelay_sdk import Codec
from flexrelay_sdk.mapping import JsonMapping, MappingCodec


def make_adapter(name: str, section: Mapping[str, Any], folder: Path, native: Codec) -> MqttAdapter:
    """See `flexrelay_sdk.AdapterFactory`. `codec` in the section chooses signed readings or a JSON mapping."""
    config = MqttConfig.from_section(name, section).below(folder)
    return MqttAdapter(config, MappingCodec(config.codec) if isinstance(config.codec, JsonMapping) else native)
