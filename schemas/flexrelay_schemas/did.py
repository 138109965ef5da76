"""Decentralised identifiers `did:flexrelay:<network>:<scid>` and the operations of their logs.

A log is a chain of operations: create, rotate…, deactivate. Each names the hash of the one before, one signing key
(Multikey) and the hash of the next key (pre-rotation). The scid is the multibase SHA-256 multihash of the canonical
create operation, so an identifier commits to its first key. See `docs/decisions/` and DID Core 1.0.
"""

import hashlib
import re
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from flexrelay_schemas.canonical import canonical
from flexrelay_schemas.encoding import multibase
from flexrelay_schemas.model import Model

_DID = re.compile(r"did:flexrelay:([a-z0-9][a-z0-9-]{0,31}):(z[1-9A-HJ-NP-Za-km-z]{40,60})")

Did = Annotated[str, StringConstraints(pattern=rf"^{_DID.pattern}$", max_length=120)]
Multikey = Annotated[str, StringConstraints(pattern=r"^z[1-9A-HJ-NP-Za-km-z]{40,60}$")]
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

NetworkId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]

Kind = Literal["actor", "device", "gateway"]


class Create(Model):
    """The genesis operation of a DID. `controller` is empty for an actor or gateway, the actor's DID for a device."""

    v: Literal[1] = 1
    op: Literal["create"] = "create"
    network: NetworkId
    kind: Kind
    controller: Did | Literal[""] = ""
    key: Multikey
    next_key_hash: Hash
    nonce: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]

    def did(self) -> str:
        """The identifier that this operation creates."""
        multihash = b"\x12\x20" + hashlib.sha256(canonical(self.model_dump())).digest()
        return f"did:flexrelay:{self.network}:{multibase(multihash)}"


class Rotate(Model):
    """Replaces the signing key by the pre-committed next one; signed with the new key."""

    v: Literal[1] = 1
    op: Literal["rotate"] = "rotate"
    did: Did
    version: Annotated[int, Field(ge=2, le=1_000_000)]
    previous: Hash
    key: Multikey
    next_key_hash: Hash


def key_hash(key: str) -> str:
    """The pre-rotation commitment to a Multikey text."""
    return hashlib.sha256(key.encode()).hexdigest()


def operation_hash(operation: Create | Rotate) -> str:
    """Hex SHA-256 of the canonical operation; the next operation names it as `previous`."""
    return hashlib.sha256(canonical(operation.model_dump())).hexdigest()


def operation_message(operation: Create | Rotate) -> bytes:
    """What the key named in the operation signs."""
    return b"flexrelay-did-v1" + canonical(operation.model_dump())


def split_did(did: str) -> tuple[str, str]:
    """(network, scid) of a DID. Raises ValueError."""
    match = _DID.fullmatch(did)
    if match is None:
        raise ValueError(f"not a did:flexrelay identifier: {did[:80]!r}")
    return match[1], match[2]
