"""The adapter of a configuration section: what the entry point `http` names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexrelay_adapters.http.adapter import HttpAdapter
from flexrelay_adapters.http.config import HttpConfig
from flexrelay_adapters.ocmf import OcmfCodec, OcmfConfig, read_keys
from flexrelay_sdk import Codec
from flexrelay_sdk.config import below
from flexrelay_sdk.mapping import JsonMapping, MappingCodec


def make_adapter(name: str, section: Mapping[str, Any], folder: Path, native: Codec) -> HttpAdapter:
    """See `flexrelay_sdk.AdapterFactory`. `codec` in the section chooses signed readings, a JSON mapping or OCMF."""
    config = HttpConfig.from_section(name, section)
    changes = {
        "tokens_file": below(folder, config.tokens_file),
        "state": below(folder, config.state),
        "tls": config.tls.within(folder) if config.tls is not None else None,
    }
    return HttpAdapter(config.model_copy(update=changes), codec_of(config.codec, folder, native))


def codec_of(chosen: Any, folder: Path, native: Codec) -> Codec:
    """The codec that a configuration names. Raises ValueError when a file of it cannot be read."""
    if isinstance(chosen, JsonMapping):
        return MappingCodec(chosen)
    if isinstance(chosen, OcmfConfig):
        path = below(folder, chosen.keys_file)
        return OcmfCodec(chosen, read_keys(path) if path is not None else None)
    return native
