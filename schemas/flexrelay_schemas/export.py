"""Write the JSON Schemas and the JSON-LD context: `python -m flexrelay_schemas.export [--check]`.

With --check nothing is written; the exit code is 1 and the files are named when they differ from the code.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from flexrelay_schemas.credentials import SignedRoleCredential
from flexrelay_schemas.did import Create, Rotate
from flexrelay_schemas.entities import FLEXIBILITY_TYPES, TYPES
from flexrelay_schemas.entities.attribute import TERMS
from flexrelay_schemas.entities.jsonschema import key_values_schema, normalized_schema
from flexrelay_schemas.evidence import InclusionProof, Window
from flexrelay_schemas.intent import SignedIntent
from flexrelay_schemas.intervals import CalendarDay
from flexrelay_schemas.model import Model
from flexrelay_schemas.product import Product
from flexrelay_schemas.reading import AnchoredAttestation, SignedAttestation, SignedReading

FOLDER: Final = Path(__file__).parent / "jsonschema"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

WIRE: Final[dict[str, type[Model]]] = {
    "anchored-attestation": AnchoredAttestation,
    "calendar-day": CalendarDay,
    "did-create": Create,
    "did-rotate": Rotate,
    "inclusion-proof": InclusionProof,
    "product": Product,
    "role-credential": SignedRoleCredential,
    "signed-attestation": SignedAttestation,
    "signed-intent": SignedIntent,
    "signed-reading": SignedReading,
    "window": Window,
}
"""Every wire document by the name of its schema."""


def documents() -> dict[str, str]:
    """File name (relative to FOLDER) → text, for everything that is exported."""
    result = {f"{name}.schema.json": _text(_schema(name, model.model_json_schema())) for name, model in WIRE.items()}
    for name, entity_type in TYPES.items():
        for suffix, schema in (("", key_values_schema(entity_type)), (".normalized", normalized_schema(entity_type))):
            stem = f"entities/{name}{suffix}"
            result[f"{stem}.schema.json"] = _text(_schema(stem, {"title": name, **schema}))
    result["context.jsonld"] = _text({"@context": context()})
    return result


def context() -> dict[str, Any]:
    """Our terms: the flexibility entities, their attributes, and the quality of a value."""
    terms: dict[str, Any] = {"quality": TERMS + "quality", "notices": TERMS + "notices"}
    for entity_type in FLEXIBILITY_TYPES:
        own = entity_type.context[0]
        if isinstance(own, dict):
            terms |= own
    return dict(sorted(terms.items()))


def drift(folder: Path = FOLDER) -> list[str]:
    """Names of files that are missing, differ from the code, or are no longer made."""
    wanted = documents()
    there = {str(path.relative_to(folder)) for path in folder.rglob("*.json*")}
    wrong = [n for n, text in wanted.items() if n not in there or (folder / n).read_text("utf-8") != text]
    return sorted({*wrong, *(there - wanted.keys())})


def write(folder: Path = FOLDER) -> list[str]:
    """Bring the files up to date; returns the names of those that changed."""
    changed, wanted = drift(folder), documents()
    for name in changed:
        path = folder / name
        if name in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[name], "utf-8")
        else:
            path.unlink()
    return changed


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m flexrelay_schemas.export", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when files differ from the code")
    check = parser.parse_args(arguments).check
    changed = drift() if check else write()
    for name in changed:
        print(f"{'differs' if check else 'written'}: {name}")
    if check and changed:
        print("run: python -m flexrelay_schemas.export", file=sys.stderr)
        return 1
    return 0


def _schema(name: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"$schema": DIALECT, "$id": f"urn:flexrelay:schema:{name.replace('/', ':')}:1", **body}


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
