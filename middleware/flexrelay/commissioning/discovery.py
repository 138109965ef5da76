"""Devices that adapters found: approved one by one, by becoming an enrolled device."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from flexrelay.app import Site
from flexrelay.commissioning.actors import gateway_of
from flexrelay.commissioning.devices import Enrolled, NewDevice, enrol_device
from flexrelay.commissioning.errors import CommissioningError
from flexrelay.devices import Found, channels


@dataclass(frozen=True, slots=True)
class Waiting:
    """A credential that an organisation's gateway has heard of and no device is bound to."""

    org: str
    found: Found


async def list_discovered(site: Site, org: str = "", *, dismissed: bool = False) -> list[Waiting]:
    """By organisation, protocol and credential."""
    return [
        Waiting(name, found)
        for name, gateway in sorted(site.gateways.items())
        if org in ("", name)
        for found in await gateway.discovered.waiting(dismissed=dismissed)
    ]


async def approve_discovered(site: Site, protocol: str, credential: str, new: NewDevice) -> Enrolled:
    """Enrol a device under a credential that was discovered at a receiver. Raises CommissioningError, Refused."""
    receivers = new.receivers or (new.org,)
    waiting = await list_discovered(site, dismissed=True)
    asked = [w for w in waiting if (w.found.protocol, w.found.credential) == (protocol, credential)]
    if not any(w.org in receivers for w in asked):
        where = f"it was at {', '.join(w.org for w in asked)}" if asked else "see device discovered"
        raise CommissioningError(f"{protocol}:{credential} was not discovered at {', '.join(receivers)}: {where}")
    done = await enrol_device(site, replace(new, credentials=((protocol, credential), *new.credentials)))
    for each in asked:
        await site.gateways[each.org].discovered.forget(protocol, credential)
    return done


def to_configure(site: Site, orgs: Iterable[str], protocol: str, credential: str) -> list[str]:
    """Adapters (organisation.name) that speak the protocol and have no place for this credential in their configuration
    yet: registers and nodes are somebody's to choose, so such a device is not read before."""
    return [
        f"{org}.{name}"
        for org in orgs
        for name, adapter in sorted(site.gateways[org].adapters.items())
        if adapter.protocol == protocol and not channels(adapter, credential)
    ]


async def dismiss_discovered(site: Site, org: str, protocol: str, credential: str) -> None:
    """Do not show it again at this gateway. Raises CommissioningError when it was never found there."""
    if not await gateway_of(site, org).discovered.dismiss(protocol, credential):
        raise CommissioningError(f"{protocol}:{credential} was not discovered at {org}")
