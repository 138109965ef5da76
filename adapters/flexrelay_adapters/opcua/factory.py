"""The adapter of a configuration section: what the entry point `opcua` names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexrelay_adapters.opcua.adapter import OpcuaAdapter
from flexrelay_adapters.opcua.config import OpcuaConfig
from flexrelay_sdk import Codec
from flexrelay_sdk.config import below


def make_adapter(name: str, section: Mapping[str, Any], folder: Path, native: Codec) -> OpcuaAdapter:
    """See `flexrelay_sdk.AdapterFactory`. OPC UA servers do not sign readings, so `native` is not used."""
    config = OpcuaConfig.from_section(name, section)
    files = {field: below(folder, getattr(config, field)) for field in ("pki", "state", "user_certificate", "user_key")}
    return OpcuaAdapter(config.model_copy(update=files))
