"""Devices of a network: registration by their controller, enrolment at the gateways that receive them, revocation."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from flexrelay.app import Gateway, Site
from flexrelay.commissioning.actors import find, gateway_of
from flexrelay.commissioning.claims import SignedCreate, claim_code, read_code, read_operations
from flexrelay.commissioning.devicekeys import proven_operation
from flexrelay.commissioning.errors import CommissioningError
from flexrelay.commissioning.identities import registered
from flexrelay.devices import DeviceRecord, channels
from flexrelay.twin.energy import Exchange
from flexrelay_schemas.did import Create, split_did
from flexrelay_schemas.entities.mapping import DEVICE_KINDS

FOLDER: Final = "devices"
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class NewDevice:
    """What to enrol. `controller` is the label of an actor of `org`. `key`: the device's own private key in PEM; None
    makes one. `credentials` are (protocol, credential) pairs besides the DID's scid. `receivers`: organisations that
    may receive it, `org` alone when empty. `unsigned` lets readings without a signature in, attested by the gateway.
    `signed`: the create operation that the device signed itself; then no keys are made here."""

    org: str
    name: str
    kind: str
    controller: str
    key: Path | None = None
    unsigned: bool = False
    credentials: tuple[tuple[str, str], ...] = ()
    receivers: tuple[str, ...] = ()
    signed: SignedCreate | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """An enrolled device as one organisation's gateway sees it; `last_reading` is UTC ms of market time."""

    org: str
    name: str
    kind: str
    did: str
    status: str
    key_version: int
    unsigned: bool
    credentials: tuple[tuple[str, str], ...]
    receivers: tuple[str, ...]
    last_reading: int | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What to tell the installer. `topics` are the topics or paths of the device's readings, by organisation;
    `key_file` is None where the device keeps its key to itself."""

    device: Device
    key_file: Path | None
    topics: dict[str, tuple[str, ...]]


async def enrol_device(site: Site, new: NewDevice) -> Enrolled:
    """Register the device on the ledger and enrol it at the receivers' gateways of this folder.

    Asked again with the same values it completes what an interruption left. Raises CommissioningError, Refused.
    """
    receivers = tuple(dict.fromkeys(new.receivers or (new.org,)))
    await _check(site, new, receivers)
    gateway, controller = find(site, new.org, new.controller)
    key_file: Path | None = None
    if new.signed is not None:
        operation, proof = new.signed.operation, new.signed.proof
        _check_claimed(operation, site.network, controller.did)
    else:
        home = site.folder / FOLDER / new.org
        operation, proof, key_file = proven_operation(home, new.name, site.network, controller.did, new.key)
    record = DeviceRecord(operation.did(), new.name, new.kind, new.credentials, receivers, new.unsigned)
    for org in receivers:
        if org in site.gateways:
            _check_free(site.gateways[org], record)
    await register_device(site, gateway, operation, proof)
    here = await receive_device(site, record)
    topics = {receiver.org: _topics(receiver, record) for receiver in here}
    return Enrolled(await describe(here[0], record), key_file, topics)


async def register_device(site: Site, gateway: Gateway, operation: Create, proof: str) -> None:
    """Put a device's signed create operation on the ledger, signed by its controller, whose key `gateway` has.

    Returns when every gateway of this folder knows the device. Raises Refused.
    """
    if await registered(gateway, operation.did()) is None:
        args = {"operation": operation.model_dump(), "proof": proof}
        done = await gateway.desk(operation.controller).do("identity.register_device", args)
        for each in site.gateways.values():
            await each.projections.reached(done.block)


async def receive_device(site: Site, record: DeviceRecord) -> list[Gateway]:
    """Enrol a device at its receivers' gateways of this folder; which. Raises CommissioningError: name or credential is
    another device's at one of them; then it is enrolled at none."""
    here = [site.gateways[org] for org in record.orgs if org in site.gateways]
    for gateway in here:
        _check_free(gateway, record)
    for gateway in here:
        try:
            await gateway.devices.add(record)
        except ValueError as error:
            raise CommissioningError(f"{gateway.org}: {error}") from None
    return here


async def list_devices(site: Site, org: str = "") -> list[Device]:
    """Enrolled devices by organisation and name."""
    return [
        await describe(gateway, record)
        for name, gateway in sorted(site.gateways.items())
        if org in ("", name)
        for record in gateway.devices
    ]


def find_device(site: Site, named: str, org: str = "") -> tuple[Gateway, DeviceRecord]:
    """By name or DID. Raises CommissioningError when no gateway (of `org`, or any) has enrolled it, or two have
    enrolled two devices under the name: each organisation gives its own."""
    found = [
        (gateway, record)
        for name, gateway in sorted(site.gateways.items())
        if org in ("", name)
        if (record := gateway.devices.named(named) or gateway.devices.get(named)) is not None
    ]
    if not found:
        where = f" at {org}" if org else ""
        raise CommissioningError(f"no device {named!r} is enrolled{where}; see device list")
    if len({record.did for _, record in found}) > 1:
        told = ", ".join(f"{gateway.org}'s {record.did}" for gateway, record in found)
        raise CommissioningError(f"{named!r} is the name of several devices: {told}; say --org, or the DID")
    return found[0]


async def describe(gateway: Gateway, record: DeviceRecord) -> Device:
    """Status and key version are the ledger's, as far as the gateway has followed it."""
    known = await gateway.views.identity(record.did)
    newest = await gateway.twin.newest(record.did)
    return Device(
        org=gateway.org,
        name=record.name,
        kind=record.kind,
        did=record.did,
        status="unregistered" if known is None else known.status,
        key_version=0 if known is None else known.version,
        unsigned=record.unsigned,
        credentials=record.credentials,
        receivers=record.orgs,
        last_reading=None if newest is None else newest.observed_at,
    )


async def revoke_device(site: Site, named: str, org: str = "", reason: str = "") -> Device:
    """Deactivate the device's DID for ever, signed by its controller. Raises CommissioningError, Refused."""
    gateway, record = find_device(site, named, org)
    shown = await gateway.ledger.evaluate("identity.show", {"did": record.did})
    for each in site.gateways.values():
        held = next((found for found in each.wallet.identities() if found.did == shown["controller"]), None)
        if held is not None:
            args = {"did": record.did, "reason": reason}
            done = await each.desk(held.did).do("identity.deactivate", args)
            await gateway.projections.reached(done.block)
            return await describe(gateway, record)
    raise CommissioningError(f"no wallet here holds {shown['controller']}, which controls {record.name}")


async def declare_exchange(site: Site, named: str, exchange: Exchange, org: str = "") -> list[str]:
    """A meter was exchanged or rolled over at an instant of market time: its registers may fall there. At every
    receiver of this folder (or at `org`); which. Raises CommissioningError."""
    _, record = find_device(site, named, org)
    told = [g for name, g in sorted(site.gateways.items()) if org in ("", name) and g.devices.get(record.did)]
    for gateway in told:
        await gateway.twin.declare(record.did, exchange)
    return [gateway.org for gateway in told]


async def _check(site: Site, new: NewDevice, receivers: Sequence[str]) -> None:
    if not NAME.fullmatch(new.name):
        raise CommissioningError(f"device name {new.name!r}: use letters, digits, . _ and -, 64 characters at most")
    if new.kind not in DEVICE_KINDS:
        raise CommissioningError(f"device kind {new.kind!r} is unknown; there are {', '.join(DEVICE_KINDS)}")
    gateway_of(site, new.org)
    network = await site.gateways[new.org].ledger.evaluate("network.show", {})
    known = network["organisations"]
    for org in receivers:
        if org not in known:
            raise CommissioningError(f"receiver {org!r} is not an organisation of this network")
    if not any(org in site.gateways for org in receivers):
        raise CommissioningError(f"none of the receivers {', '.join(receivers)} has a gateway here")


def claimed_create(site: Site, org: str, controller: str, code: str, operations: Path) -> SignedCreate:
    """The create operation of the device with this claim code, for a controller of `org`. Raises CommissioningError."""
    try:
        wanted = read_code(code)
    except ValueError as error:
        raise CommissioningError(f"claim code {code!r}: {error}") from None
    _, identity = find(site, org, controller)
    found = read_operations(operations)
    signed = found.get((wanted, identity.did))
    if signed is not None:
        return signed
    others = [operation for (of, _), operation in found.items() if of == wanted]
    if others:
        named = others[0].operation.controller
        raise CommissioningError(f"the device with that code has named {named} as its controller, not {identity.did}")
    here = ", ".join(claim_code(each.operation.key) for each in list(found.values())[:3]) or "none"
    raise CommissioningError(f"{operations} has no create operation of the device with that code; there are {here}")


def _check_claimed(operation: Create, network: str, controller: str) -> None:
    if operation.kind != "device" or operation.network != network:
        raise CommissioningError(f"the operation does not create a device of network {network}")
    if operation.controller != controller:
        raise CommissioningError(f"the device has named {operation.controller} as its controller, not {controller}")


def _check_free(gateway: Gateway, record: DeviceRecord) -> None:
    """Before anything stands on the ledger."""
    holder = gateway.devices.named(record.name)
    if holder is not None and holder.did != record.did:
        raise CommissioningError(f"{gateway.org} has enrolled {holder.did} as {record.name!r} already")
    for protocol, credential in record.credentials:
        bound = gateway.registry.identify(protocol, credential)
        if bound is not None and bound.did != record.did:
            raise CommissioningError(f"{gateway.org}: {protocol} credential {credential!r} is bound to {bound.did}")


def _topics(gateway: Gateway, record: DeviceRecord) -> tuple[str, ...]:
    bound = dict(record.credentials)
    scid = split_did(record.did)[1]
    return tuple(
        channel
        for adapter in gateway.adapters.values()
        for channel in channels(adapter, bound.get(adapter.protocol, scid))
    )
