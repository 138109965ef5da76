"""The JSON protocol of the FIWARE IoT Agent over MQTT and HTTP: measures into the sink, commands and
results, provisioning. What it shares with Ultralight is `flexrelay_adapters.iotagent`.
"""

from flexrelay_adapters.fiware_json.dialect import FiwareJson
from flexrelay_adapters.fiware_json.factory import make_adapter

__all__ = ["FiwareJson", "make_adapter"]
