"""Signing intents: what an actor or device asks of the ledger."""

from collections.abc import Mapping
from typing import Any

from flexrelay.identity.signer import Signer
from flexrelay_schemas.encoding import b64u
from flexrelay_schemas.intent import Intent, SignedIntent


async def sign_intent(
    signer: Signer, network: str, function: str, args: Mapping[str, Any], deadline_ms: int, intent_id: str
) -> bytes:
    """The signed intent's canonical bytes. `deadline_ms` is wall-clock UTC ms. Raises ValueError for a bad form."""
    intent = Intent(
        network=network,
        actor=signer.did,
        key_version=signer.key_version,
        intent_id=intent_id,
        function=function,
        args=dict(args),
        deadline=deadline_ms,
    )
    signature = b64u(await signer.sign(intent.message()))
    return SignedIntent(intent=intent, signature=signature).encode()
