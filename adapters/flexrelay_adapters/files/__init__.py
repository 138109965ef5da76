"""Meter data as files: a watched folder of CSV, JSON or OCMF, moved when taken, each with a report.

`FilesConfig` is the whole configuration; the move to `done` or `failed` is the acknowledgement.
"""

from flexrelay_adapters.files.adapter import FilesAdapter
from flexrelay_adapters.files.config import FilesConfig
from flexrelay_adapters.files.factory import make_adapter

__all__ = ["FilesAdapter", "FilesConfig", "make_adapter"]
