"""The adapter of a configuration section: what the entry point `modbus` names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexrelay_adapters.modbus.adapter import ModbusAdapter
from flexrelay_adapters.modbus.config import ModbusConfig
from flexrelay_sdk import Codec


def make_adapter(name: str, section: Mapping[str, Any], folder: Path, native: Codec) -> ModbusAdapter:
    """See `flexrelay_sdk.AdapterFactory`. Modbus devices do not sign readings, so `native` is not used."""
    return ModbusAdapter(ModbusConfig.from_section(name, section))
