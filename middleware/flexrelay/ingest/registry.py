"""The devices that this gateway takes readings from: who is behind a credential, with which key, and whether still.

It is built from the ledger's identity events and from this gateway's own enrolments (bindings, permissions). An event
takes effect in the call of `apply`: every frame that is looked at afterwards is judged by it.
"""

import json
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from flexrelay.ingest.validity import Validity
from flexrelay.journal.port import PARTITIONS
from flexrelay_schemas.did import split_did


class DeviceStatus(Enum):
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DEACTIVATED = "deactivated"


class Device:
    """One registered device. `orgs` are the organisations whose gateways may receive it (empty: every one);
    `unsigned` permits readings without a signature, which the gateway then attests."""

    __slots__ = ("did", "network", "orgs", "partition", "refusal", "status", "unsigned", "validity")

    def __init__(self, did: str, network: str, key: str, key_version: int) -> None:
        self.did = did
        self.network = network
        self.validity = Validity(key, key_version)
        self.partition = partition_of(did)
        self.status = DeviceStatus.ACTIVE
        self.unsigned = False
        self.orgs: tuple[str, ...] = ()
        self.refusal: tuple[str, str] | None = None
        """(reason, message) why nothing of this device is taken now; None when it may come in."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What this gateway itself decides about a device; stored by the caller and given again at start."""

    did: str
    credentials: tuple[tuple[str, str], ...] = ()
    """(protocol, credential) pairs besides the scid, which is every protocol's default."""
    orgs: tuple[str, ...] = ()
    unsigned: bool = False


def partition_of(did: str) -> int:
    """The journal's partition of a DID: the same on every machine and in every release."""
    return zlib.crc32(did.encode()) % PARTITIONS


class Registry:
    """Devices of one network as one organisation's gateway sees them. All methods are for one thread."""

    def __init__(self, network: str, org: str) -> None:
        self.network: Final = sys.intern(network)
        self.org: Final = org
        self._prefix = f"did:flexrelay:{network}:"
        self._devices: dict[str, Device] = {}
        self._bound: dict[tuple[str, str], str] = {}
        self._enrolled: dict[str, Enrolment] = {}

    def __len__(self) -> int:
        return len(self._devices)

    def __iter__(self) -> Iterator[Device]:
        return iter(self._devices.values())

    def device(self, did: str) -> Device | None:
        return self._devices.get(did)

    def identify(self, protocol: str, credential: str) -> Device | None:
        """The device behind a transport's credential: bound by an enrolment, or named by its scid."""
        if self._bound:
            bound = self._bound.get((protocol, credential))
            if bound is not None:
                return self._devices.get(bound)
        return self._devices.get(self._prefix + credential)

    def apply(self, name: str, payload: Mapping[str, Any] | bytes) -> None:
        """A contract event; those that are not about devices' identities are passed over."""
        if not name.startswith("identity."):
            return
        values: Mapping[str, Any] = json.loads(payload) if isinstance(payload, bytes) else payload
        if values.get("kind", "device") != "device":
            return
        did = values["did"]
        at = values.get("market_ms", 0)
        match name:
            case "identity.registered":
                self._register(did, values["key"], values["version"])
            case "identity.rotated" | "identity.reinstated":
                self._register(did, values["key"], values["version"])
                device = self._devices.get(did)
                if device is not None:
                    device.validity.rotate(values["key"], values["version"], at)
                    if name == "identity.reinstated" and device.status is DeviceStatus.SUSPENDED:
                        device.status = DeviceStatus.ACTIVE
                        device.validity.reopen(at)
                        self._judge(device)
            case "identity.suspended":
                self._end(did, DeviceStatus.SUSPENDED, at)
            case "identity.deactivated":
                self._end(did, DeviceStatus.DEACTIVATED, at)

    def counts(self, did: str, observed_at: int) -> bool:
        """Whether a stored reading of this instant (market time) may be anchored: its device is known, may be
        received here, and was neither suspended nor deactivated then."""
        device = self._devices.get(did)
        return device is not None and self._permitted(device) and not device.validity.out_at(observed_at)

    def out(self, did: str) -> str:
        """Why a device is out, suspended or deactivated; "" for one that is neither."""
        device = self._devices.get(did)
        return "" if device is None or device.status is DeviceStatus.ACTIVE else f"{did} is {device.status.value}"

    def enrol(self, enrolment: Enrolment) -> None:
        """Take over this gateway's decisions about a device (also before the device's registration is seen).

        Raises ValueError when a credential is bound to another device.
        """
        for binding in enrolment.credentials:
            named = self._devices.get(self._prefix + binding[1])
            owner = self._bound.get(binding) or (named and named.did)
            if owner is not None and owner != enrolment.did:
                raise ValueError(f"{binding[0]} credential {binding[1]!r} is bound to {owner} already")
        before = self._enrolled.get(enrolment.did)
        if before is not None:
            for binding in before.credentials:
                self._bound.pop(binding, None)
        self._enrolled[enrolment.did] = enrolment
        for protocol, credential in enrolment.credentials:
            self._bound[sys.intern(protocol), credential] = enrolment.did
        device = self._devices.get(enrolment.did)
        if device is not None:
            self._take_over(device, enrolment)

    def enrolment(self, did: str) -> Enrolment | None:
        """What this gateway has decided about a device."""
        return self._enrolled.get(did)

    def withdraw(self, did: str) -> None:
        """As if the device had never been enrolled here."""
        enrolment = self._enrolled.pop(did, None)
        for binding in enrolment.credentials if enrolment is not None else ():
            self._bound.pop(binding, None)
        device = self._devices.get(did)
        if device is not None:
            self._take_over(device, Enrolment(did))

    def load(self, events: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Many events at once, e.g. from a projection at start."""
        for name, payload in events:
            self.apply(name, payload)

    def _register(self, did: str, key: str, version: int) -> None:
        """A device that is not known yet."""
        if did in self._devices or split_did(did)[0] != self.network:
            return
        device = self._devices[did] = Device(did, self.network, key, version)
        enrolment = self._enrolled.get(did)
        if enrolment is not None:
            self._take_over(device, enrolment)

    def _end(self, did: str, status: DeviceStatus, at: int) -> None:
        device = self._devices.get(did)
        if device is None or device.status in (status, DeviceStatus.DEACTIVATED):
            return
        if device.status is DeviceStatus.ACTIVE:
            device.validity.end(at)
        device.status = status
        self._judge(device)

    def _permitted(self, device: Device) -> bool:
        return not device.orgs or self.org in device.orgs

    def _judge(self, device: Device) -> None:
        if device.status is not DeviceStatus.ACTIVE:
            device.refusal = (f"device_{device.status.value}", f"{device.did} is {device.status.value}")
        elif not self._permitted(device):
            device.refusal = ("not_permitted", f"{device.did} may not be received by {self.org}")
        else:
            device.refusal = None

    def _take_over(self, device: Device, enrolment: Enrolment) -> None:
        device.orgs = tuple(sys.intern(org) for org in enrolment.orgs)
        device.unsigned = enrolment.unsigned
        self._judge(device)
