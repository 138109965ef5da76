"""What the entry point names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexrelay_acme_hub.adapter import AcmeHubAdapter
from flexrelay_acme_hub.config import AcmeHubConfig
from flexrelay_sdk import Codec
from flexrelay_sdk.config import below
from flexrelay_sdk.mapping import MappingCodec


def make_adapter(name: str, section: Mapping[str, Any], folder: Path, native: Codec) -> AcmeHubAdapter:
    """See `flexrelay_sdk.AdapterFactory`."""
    config = AcmeHubConfig.from_section(name, section)
    if (config.token is None) == (config.token_file is None):
        raise ValueError("token: give either token or token_file")
    config = config.model_copy(update={"token_file": below(folder, config.token_file)})
    return AcmeHubAdapter(config, MappingCodec(config.codec))
