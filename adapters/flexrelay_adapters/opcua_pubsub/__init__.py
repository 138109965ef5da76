"""OPC UA PubSub over MQTT in JSON (OPC 10000-14 §7.2.5, §7.3.4): DataSetMessages of publishers into the sink.

`PubSubAdapter` acknowledges a NetworkMessage to the broker only after the sink has returned. `PubSubConfig` is the
whole configuration, `PubSubCodec` decodes the frames. Works without the OPC UA library.
"""

from flexrelay_adapters.opcua_pubsub.adapter import PubSubAdapter
from flexrelay_adapters.opcua_pubsub.codec import PubSubCodec
from flexrelay_adapters.opcua_pubsub.config import DataSet, PubSubConfig
from flexrelay_adapters.opcua_pubsub.factory import make_adapter

__all__ = ["DataSet", "PubSubAdapter", "PubSubCodec", "PubSubConfig", "make_adapter"]
