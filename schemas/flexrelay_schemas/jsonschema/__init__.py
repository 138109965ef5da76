"""The exported JSON Schemas (2020-12) and our JSON-LD context, as files beside this one.

They are made from the code by `python -m flexrelay_schemas.export` and never edited; a test fails when they drift.
"""

from importlib.resources import files
from typing import Any

from flexrelay_schemas.canonical import parse


def load(name: str) -> dict[str, Any]:
    """The document of this name, e.g. "signed-intent" or "entities/ACMeasurement". Raises FileNotFoundError."""
    suffix = ".jsonld" if name == "context" else ".schema.json"
    resource = files(__name__)
    for part in f"{name}{suffix}".split("/"):
        resource = resource.joinpath(part)
    document: dict[str, Any] = parse(resource.read_bytes())
    return document
