"""Intents: what an actor or device asks of the ledger, signed with its own key, carried by a gateway.

A gateway wraps an intent in its own ledger transaction. The contract verifies the signature, the actor's grants and
the gateway's grant, and refuses a second use of the intent id; so a conflict can be retried in a new transaction.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints

from flexrelay_schemas.canonical import MAX_INTEGER, canonical
from flexrelay_schemas.did import Did, NetworkId
from flexrelay_schemas.encoding import b64u_decode
from flexrelay_schemas.model import Model

IntentId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
FunctionName = Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,32}\.[a-z_]{1,48}$")]
Signature = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{85}[AQgw]$")]
WallMs = Annotated[int, Field(ge=0, le=MAX_INTEGER)]


INTENT_DOMAIN: Final = b"flexrelay-intent-v1"
"""Stands before the canonical intent in what its actor signs."""


class Intent(Model):
    """The signed content. `deadline` is a UTC instant in milliseconds since 1970 on the wall clock."""

    v: Literal[1] = 1
    network: NetworkId
    actor: Did
    key_version: Annotated[int, Field(ge=1, le=1_000_000)]
    intent_id: IntentId
    function: FunctionName
    args: dict[str, Any]
    deadline: WallMs

    def message(self) -> bytes:
        """The bytes that the actor signs."""
        return INTENT_DOMAIN + canonical(self.model_dump())


class SignedIntent(Model):
    """An intent and its signature (base64url, 64 bytes)."""

    intent: Intent
    signature: Signature

    def encode(self) -> bytes:
        """Canonical bytes, as they travel and stand on the ledger."""
        return canonical(self.model_dump())

    def signature_bytes(self) -> bytes:
        return b64u_decode(self.signature)
