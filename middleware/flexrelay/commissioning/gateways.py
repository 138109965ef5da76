"""Gateways of other processes: what their operator must know of them, and their registration by him."""

from typing import Any

from pydantic import ValidationError

from flexrelay.app import Gateway, Site
from flexrelay.commissioning.errors import CommissioningError
from flexrelay.commissioning.operator import operator_desk
from flexrelay.founding import GATEWAY
from flexrelay_contracts.gateways import GatewayEntry


async def gateway_card(site: Site, gateway: Gateway) -> dict[str, Any]:
    """{operation, proof, org, identity}: no secret in it. Raises CommissioningError."""
    identity = gateway.wallet.find(GATEWAY)
    if identity is None:
        raise CommissioningError(f"{gateway.org} has no gateway key in this folder")
    signer = gateway.wallet.signer(identity.did)
    proven = await gateway.wallet.proven(identity.did)
    return {**proven, "org": gateway.org, "identity": await site.ledger.identity(gateway.org, signer)}


async def register_gateway(site: Site, card: Any) -> dict[str, Any]:
    """The operator puts a gateway onto the ledger; its DID. Raises CommissioningError, Refused."""
    try:
        entry = GatewayEntry.model_validate(card)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CommissioningError(f"the card cannot be used: {where}: {first['msg']}") from None
    did = entry.operation.did()
    known = await next(iter(site.gateways.values())).ledger.evaluate("gateways.list", {})
    if any(record["gateway"] == did for record in known):
        return {"gateway": did, "org": entry.org, "registered": False}
    await operator_desk(site).do("gateways.register", entry.model_dump(mode="json"))
    return {"gateway": did, "org": entry.org, "registered": True}
