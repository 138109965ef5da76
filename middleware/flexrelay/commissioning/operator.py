"""The network's operator: who issues the first roles and publishes what markets need."""

from flexrelay.app import Gateway, Site
from flexrelay.commissioning.errors import CommissioningError
from flexrelay.founding import OPERATOR
from flexrelay.identity import Identity
from flexrelay.market.desk import Desk


def operator_of(site: Site) -> tuple[Gateway, Identity]:
    """The gateway whose wallet holds the operator's key. Raises CommissioningError when none of this folder does."""
    for gateway in site.gateways.values():
        identity = gateway.wallet.find(OPERATOR)
        if identity is not None:
            return gateway, identity
    raise CommissioningError(f"no wallet in {site.folder} holds the operator's key; ask where the network was founded")


def operator_desk(site: Site) -> Desk:
    """Where the operator signs."""
    gateway, identity = operator_of(site)
    return gateway.desk(identity.did)
