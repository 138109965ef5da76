"""The adapter of a configuration section: what the entry point `fiware_json` names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexrelay_adapters.fiware_json.dialect import FiwareJson
from flexrelay_adapters.iotagent import IotAgentAdapter, IotAgentConfig
from flexrelay_sdk import Codec


def make_adapter(name: str, section: Mapping[str, Any], folder: Path, native: Codec) -> IotAgentAdapter:
    """See `flexrelay_sdk.AdapterFactory`. The protocol has no signed readings, so `native` is not used."""
    return IotAgentAdapter(IotAgentConfig.from_section(name, section).at(folder), FiwareJson())
