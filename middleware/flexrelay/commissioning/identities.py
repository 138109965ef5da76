"""What the ledger says about a DID."""

from typing import Any

from flexrelay.app import Gateway
from flexrelay_contracts.refusal import Refused


async def registered(gateway: Gateway, did: str) -> dict[str, Any] | None:
    """The ledger's record of a DID (status, version, controller, …); None when it is not registered."""
    try:
        record: dict[str, Any] = await gateway.ledger.evaluate("identity.show", {"did": did})
    except Refused as refused:
        if refused.code == "unknown_did":
            return None
        raise
    return record
