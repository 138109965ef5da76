"""OPC UA: data changes of a server's variables into the sink, writes and method calls as commands, history after an
outage.

`OpcuaAdapter` acknowledges a notification to the server only after the sink has returned. `OpcuaConfig` is the whole
configuration, `TrustList` the certificates of its `pki` folder, `NodeCodec` decodes the frames.
"""

from flexrelay_adapters.opcua.adapter import OpcuaAdapter
from flexrelay_adapters.opcua.codec import NodeCodec
from flexrelay_adapters.opcua.config import OpcuaConfig, Security
from flexrelay_adapters.opcua.factory import make_adapter
from flexrelay_adapters.opcua.refusals import ConnectionLost
from flexrelay_adapters.opcua.trust import TrustList, UntrustedServer

__all__ = [
    "ConnectionLost",
    "NodeCodec",
    "OpcuaAdapter",
    "OpcuaConfig",
    "Security",
    "TrustList",
    "UntrustedServer",
    "make_adapter",
]
