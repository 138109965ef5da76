"""Ultralight 2.0 over MQTT and HTTP, as devices of the FIWARE IoT Agent speak it: measures into the sink, commands and
results, provisioning. What it shares with the JSON protocol is `flexrelay_adapters.iotagent`.
"""

from flexrelay_adapters.ultralight.dialect import Ultralight
from flexrelay_adapters.ultralight.factory import make_adapter

__all__ = ["Ultralight", "make_adapter"]
