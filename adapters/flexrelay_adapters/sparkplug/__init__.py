"""Sparkplug B (3.0): a host application on MQTT. Births, data and deaths of edge nodes and their devices into the sink,
rebirth requests where sequence numbers show a gap, STATE, commands by NCMD and DCMD.

`SparkplugAdapter` and `SparkplugConfig`; `SparkplugCodec` decodes the frames, `frame` says what they carry.
"""

from flexrelay_adapters.sparkplug.adapter import SparkplugAdapter
from flexrelay_adapters.sparkplug.codec import SparkplugCodec
from flexrelay_adapters.sparkplug.config import SparkplugConfig
from flexrelay_adapters.sparkplug.factory import make_adapter

__all__ = ["SparkplugAdapter", "SparkplugCodec", "SparkplugConfig", "make_adapter"]
