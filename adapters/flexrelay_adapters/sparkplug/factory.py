"""The adapter of a configuration section: what the entry point `sparkplug` names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexrelay_adapters.sparkplug.adapter import SparkplugAdapter
from flexrelay_adapters.sparkplug.config import SparkplugConfig
from flexrelay_sdk import Codec


def make_adapter(name: str, section: Mapping[str, Any], folder: Path, native: Codec) -> SparkplugAdapter:
    """See `flexrelay_sdk.AdapterFactory`. Sparkplug has no signed readings, so `native` is not used."""
    return SparkplugAdapter(SparkplugConfig.from_section(name, section).below(folder))
