"""An LwM2M 1.1 server: registration, Send, observation and commands, over CoAP and DTLS, into the sink.

`Lwm2mAdapter` answers a device only after the sink has returned its receipt. `Lwm2mConfig` is the whole
configuration, `Lwm2mCodec` reads payloads. The CoAP message layer lies in `coap`, the content formats in `formats`.
"""

from flexrelay_adapters.lwm2m.adapter import Lwm2mAdapter
from flexrelay_adapters.lwm2m.codec import Lwm2mCodec
from flexrelay_adapters.lwm2m.config import Lwm2mConfig
from flexrelay_adapters.lwm2m.factory import make_adapter

__all__ = ["Lwm2mAdapter", "Lwm2mCodec", "Lwm2mConfig", "make_adapter"]
