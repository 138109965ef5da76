"""The adapter of a configuration section: what the entry point `lwm2m` names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexrelay_adapters.lwm2m.adapter import Lwm2mAdapter
from flexrelay_adapters.lwm2m.config import Lwm2mConfig
from flexrelay_sdk import Codec
from flexrelay_sdk.config import below


def make_adapter(name: str, section: Mapping[str, Any], folder: Path, native: Codec) -> Lwm2mAdapter:
    """See `flexrelay_sdk.AdapterFactory`. LwM2M devices do not sign, so `native` is not used."""
    config = Lwm2mConfig.from_section(name, section)
    coaps = config.coaps
    if coaps is not None:
        files = {field: below(folder, getattr(coaps, field)) for field in ("psk_file", "ca", "certificate", "key")}
        coaps = coaps.model_copy(update=files)
    changes = {
        "state": folder / (config.state or f"lwm2m-{name}.db"),
        "bootstrap_file": below(folder, config.bootstrap_file),
        "coaps": coaps,
    }
    return Lwm2mAdapter(config.model_copy(update=changes))
