"""The adapter of a configuration section: what the entry point `sigfox` names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexrelay_adapters.sigfox.adapter import SigfoxAdapter
from flexrelay_adapters.sigfox.config import SigfoxConfig
from flexrelay_sdk import Codec
from flexrelay_sdk.config import below


def make_adapter(name: str, section: Mapping[str, Any], folder: Path, native: Codec) -> SigfoxAdapter:
    """See `flexrelay_sdk.AdapterFactory`. Sigfox devices do not sign, so `native` is not used."""
    config = SigfoxConfig.from_section(name, section)
    changes = {
        "tokens_file": below(folder, config.tokens_file),
        "tls": config.tls.within(folder) if config.tls is not None else None,
    }
    return SigfoxAdapter(config.model_copy(update=changes))
