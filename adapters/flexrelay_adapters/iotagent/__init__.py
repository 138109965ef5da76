"""What Ultralight 2.0 and the JSON protocol of the FIWARE IoT Agents share: topics, paths, API keys, provisioning.

`IotAgentAdapter` speaks one `Dialect` over MQTT, HTTP or both; a device that spoke to an IoT Agent needs no change. The
credential of a device is `<api key>/<device id>`.
"""

from flexrelay_adapters.iotagent.adapter import IotAgentAdapter
from flexrelay_adapters.iotagent.codec import DialectCodec
from flexrelay_adapters.iotagent.config import IotAgentConfig
from flexrelay_adapters.iotagent.dialect import Dialect

__all__ = ["Dialect", "DialectCodec", "IotAgentAdapter", "IotAgentConfig"]
