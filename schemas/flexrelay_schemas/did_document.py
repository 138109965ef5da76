"""DID documents (DID Core 1.0) with Multikey verification methods, built from the ledger's records."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

CONTEXT = ("https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1")


def method_id(did: str, version: int) -> str:
    """The DID URL of a key version, as proofs name it in `verificationMethod`."""
    return f"{did}#v{version}"


def did_document(record: Mapping[str, Any], version: Mapping[str, Any], newest: Mapping[str, Any]) -> dict[str, Any]:
    """{didDocument, didDocumentMetadata} for one version; an ended identity's document has no keys.

    `record` is the DID's current record, `version` the key record that is asked for, `newest` the last one.
    """
    did = record["did"]
    current = version["version"] == newest["version"]
    usable = not current or record["status"] == "active"
    document: dict[str, Any] = {"@context": list(CONTEXT), "id": did}
    if record["controller"]:
        document["controller"] = record["controller"]
    if usable:
        name = method_id(did, version["version"])
        document["verificationMethod"] = [
            {"id": name, "type": "Multikey", "controller": did, "publicKeyMultibase": version["key"]}
        ]
        document["authentication"] = [name]
        document["assertionMethod"] = [name]
    metadata: dict[str, Any] = {
        "created": timestamp(record["created_ms"]),
        "updated": timestamp(version["wall_ms"]),
        "versionId": str(version["version"]),
        "deactivated": record["status"] == "deactivated",
    }
    if not current:
        metadata["nextVersionId"] = str(version["version"] + 1)
    return {"didDocument": document, "didDocumentMetadata": metadata}


def timestamp(wall_ms: int) -> str:
    """An XML Schema dateTime in UTC, whole seconds."""
    return datetime.fromtimestamp(wall_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
