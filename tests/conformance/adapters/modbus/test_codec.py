"""The codec's contract, on frames captured from a pymodbus server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexrelay_adapters.modbus import ModbusCodec, ModbusConfig
from flexrelay_sdk import Codec
from flexrelay_sdk.testkit import CodecContract


class TestModbusCodec(CodecContract):
    protocol = "modbus"
    frames = Path(__file__).parent / "frames"

    def codec(self, config: Mapping[str, Any]) -> Codec:
        return ModbusCodec(ModbusConfig.from_section("captured", config))
