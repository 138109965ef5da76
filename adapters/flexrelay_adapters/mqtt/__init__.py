"""MQTT 5 and 3.1.1: readings from a broker into the sink, commands to devices and their results back.

`MqttAdapter` acknowledges a message to the broker only after the sink has returned its receipt. `MqttConfig` is the
whole configuration; `JsonMapping` describes plain JSON payloads declaratively (`MappingCodec`).
"""

from flexrelay_adapters.mqtt.adapter import MqttAdapter
from flexrelay_adapters.mqtt.config import MqttConfig
from flexrelay_adapters.mqtt.factory import make_adapter
from flexrelay_sdk.mapping import JsonMapping, MappingCodec

__all__ = ["JsonMapping", "MappingCodec", "MqttAdapter", "MqttConfig", "make_adapter"]
