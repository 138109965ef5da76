"""JSON Schemas of Kubernetes' kinds, made strict: `python schemas.py SWAGGER FOLDER`.

SWAGGER is api/openapi-spec/swagger.json of the module k8s.io/kubernetes. FOLDER gets <kind>-<group>-<version>.json for
every kind, with all that it refers to, under the names that kubeconform asks for.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_REF = "#/definitions/"


def main(swagger: Path, folder: Path) -> None:
    definitions = json.loads(swagger.read_text())["definitions"]
    folder.mkdir(parents=True, exist_ok=True)
    for name, definition in definitions.items():
        for known in definition.get("x-kubernetes-group-version-kind", ()):
            parts = [known["kind"], known["group"].partition(".")[0], known["version"]]
            path = folder / ("-".join(part for part in parts if part).lower() + ".json")
            path.write_text(json.dumps(_schema(name, known, definitions)))


def _schema(name: str, known: dict[str, str], definitions: dict[str, Any]) -> dict[str, Any]:
    reached = {name}
    waiting = [name]
    while waiting:
        found = set(_refs(definitions[waiting.pop()])) - reached
        reached |= found
        waiting += found
    schema: dict[str, Any] = {"definitions": {each: _strict(each, definitions[each]) for each in sorted(reached)}}
    version = f"{known['group']}/{known['version']}".lstrip("/")
    root = schema["definitions"][name]
    root["properties"]["apiVersion"] = {"const": version}
    root["required"] = sorted({*root.get("required", ()), "apiVersion", "kind"})
    return {**schema, "$ref": f"{_REF}{name}"}


def _refs(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"].removeprefix(_REF)
        for item in value.values():
            yield from _refs(item)
    elif isinstance(value, list):
        for item in value:
            yield from _refs(item)


def _strict(name: str, definition: dict[str, Any]) -> dict[str, Any]:
    """Without what JSON Schema does not know, and refusing what the definition does not."""
    if name.endswith((".Quantity", ".IntOrString")):  # texts in the document, numbers in use
        return {"type": ["string", "number"]}
    kept = {key: value for key, value in definition.items() if key in ("type", "required", "properties", "items")}
    if "properties" in kept:
        kept["properties"] = {key: _field(value) for key, value in kept["properties"].items()}
        kept["additionalProperties"] = False
    return kept


def _field(value: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in value:
        return {"$ref": value["$ref"]}
    kept = {key: value[key] for key in ("type", "enum") if key in value}
    for key in ("items", "additionalProperties"):
        if key in value:
            kept[key] = _field(value[key])
    return kept


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
