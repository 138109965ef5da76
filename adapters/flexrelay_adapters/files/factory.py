"""The adapter of a configuration section: what the entry point `files` names."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flexrelay_adapters.files.adapter import FilesAdapter
from flexrelay_adapters.files.codec import CsvCodec, documents, rows, texts
from flexrelay_adapters.files.config import CsvMapping, FilesConfig
from flexrelay_adapters.ocmf import OcmfCodec, OcmfConfig, read_keys
from flexrelay_sdk import Codec
from flexrelay_sdk.config import below
from flexrelay_sdk.mapping import JsonMapping, MappingCodec


def make_adapter(name: str, section: Mapping[str, Any], folder: Path, native: Codec) -> FilesAdapter:
    """See `flexrelay_sdk.AdapterFactory`. `codec` in the section says what a file holds."""
    config = FilesConfig.from_section(name, section)
    codec, split = _reader(config.codec, folder, native)
    return FilesAdapter(config.model_copy(update={"folder": folder / config.folder}), codec, split)


def _reader(chosen: Any, folder: Path, native: Codec) -> tuple[Codec, Callable[[bytes], list[bytes]]]:
    if isinstance(chosen, CsvMapping):
        return CsvCodec(chosen), rows
    if isinstance(chosen, JsonMapping):
        return MappingCodec(chosen), documents
    if isinstance(chosen, OcmfConfig):
        path = below(folder, chosen.keys_file)
        return OcmfCodec(chosen, read_keys(path) if path is not None else None), texts
    return native, documents
