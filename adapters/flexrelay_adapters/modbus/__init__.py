"""Modbus TCP and SunSpec: registers of inverters, batteries and meters polled into the sink, writes as commands,
discovery of SunSpec devices.

`ModbusAdapter` and `ModbusConfig`; `ModbusCodec` decodes the frames, `frame` says what they carry, `sunspec` holds the
models.
"""

from flexrelay_adapters.modbus.adapter import ModbusAdapter
from flexrelay_adapters.modbus.codec import ModbusCodec
from flexrelay_adapters.modbus.config import ModbusConfig
from flexrelay_adapters.modbus.factory import make_adapter

__all__ = ["ModbusAdapter", "ModbusCodec", "ModbusConfig", "make_adapter"]
