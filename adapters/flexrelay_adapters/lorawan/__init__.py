"""LoRaWAN by way of its network servers: ChirpStack v4 and The Things Stack v3, over MQTT or webhook.

`LorawanConfig` is the whole configuration; payloads are decoded declaratively.
"""

from flexrelay_adapters.lorawan.broker import LorawanMqtt
from flexrelay_adapters.lorawan.config import LorawanConfig
from flexrelay_adapters.lorawan.factory import make_adapter
from flexrelay_adapters.lorawan.webhook import LorawanWebhook

__all__ = ["LorawanConfig", "LorawanMqtt", "LorawanWebhook", "make_adapter"]
