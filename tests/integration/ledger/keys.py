"""A network whose keys outlive a process: written to a file and read back."""

import json
from pathlib import Path
from typing import Any

from conformance.ledger.embedded import EmbeddedNetwork
from conformance.ledger.harness import Gateway, Spec
from cryptography.hazmat.primitives import serialization
from support.contracts import Party

from flexrelay_schemas.did import Create

SPEC = Spec(orgs=("dso", "agga"), collections={"both": ("agga", "dso")})


def store(network: EmbeddedNetwork, path: Path) -> None:
    parties = {"operator": network.operator, **{org: gateway.party for org, gateway in network.gateways.items()}}
    path.write_text(json.dumps({name: _text(party) for name, party in parties.items()}))


def load(folder: Path, path: Path) -> EmbeddedNetwork:
    """The network of the stored keys on the ledger in `folder`."""
    stored = {name: _party(value) for name, value in json.loads(path.read_text()).items()}
    network = EmbeddedNetwork(SPEC, folder)
    network.operator = stored["operator"]
    network.gateways = {org: Gateway(org, stored[org]) for org in SPEC.orgs}
    network.make_genesis()
    return network


def _text(party: Party) -> dict[str, Any]:
    pem = party.private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {"pem": pem.decode(), "operation": party.operation.model_dump()}


def _party(stored: dict[str, Any]) -> Party:
    private: Any = serialization.load_pem_private_key(stored["pem"].encode(), None)
    operation = Create.model_validate(stored["operation"])
    return Party(operation.kind, private, private, operation)
