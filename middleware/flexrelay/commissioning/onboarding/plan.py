"""Every row checked against the network, the gateways and the other rows, before anything is done."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

from flexrelay.app import Site
from flexrelay.commissioning.actors import gateway_of
from flexrelay.commissioning.claims import Operations, SignedCreate, claim_code, read_code, read_operations
from flexrelay.commissioning.devicekeys import read_key, stored_operation
from flexrelay.commissioning.devices import FOLDER, NAME
from flexrelay.commissioning.errors import CommissioningError
from flexrelay.commissioning.identities import registered
from flexrelay.commissioning.onboarding import presharedkeys
from flexrelay.commissioning.onboarding.presharedkeys import Account, KeyBook, Places, places_of
from flexrelay.commissioning.onboarding.problem import Problem
from flexrelay.commissioning.onboarding.table import Row, read_table
from flexrelay.commissioning.onboarding.wanted import OnboardingPlan, Step, Wanted
from flexrelay.config import load
from flexrelay.devices import DeviceRecord
from flexrelay.ingest.registry import DeviceStatus
from flexrelay_schemas.entities.mapping import DEVICE_KINDS
from flexrelay_schemas.keys import multikey

_PROTOCOL: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_URI: Final = re.compile(r"coaps://[^\s/]+(:\d+)?/?")
_MOST_URI: Final = 200
_YES: Final = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False, "": False}
_MOST_PROBLEMS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Source:
    """`org` and `controller` stand for empty columns. `operations`: signed create operations of devices with claim
    codes, a file or a folder. `lwm2m_uri`: where bootstrapped devices register, e.g. coaps://gateway.example:5684."""

    table: Path
    org: str = ""
    controller: str = ""
    operations: Path | None = None
    lwm2m_uri: str = ""


async def plan_onboarding(site: Site, source: Source) -> OnboardingPlan:
    """Check everything; nothing is changed. Raises CommissioningError when the file cannot be read at all."""
    table = read_table(source.table)
    check = await _Check.of(site, source)
    wanted = [found for row in table.rows if (found := await check.row(row)) is not None]
    problems = sorted([*table.problems, *check.problems])
    if not table.rows and not problems:
        raise CommissioningError(f"{source.table} has no devices")
    return OnboardingPlan(tuple(wanted), tuple(problems[:_MOST_PROBLEMS]), tuple(check.notes), source.lwm2m_uri)


@dataclass
class _Check:
    site: Site
    source: Source
    known: frozenset[str]
    """Organisations of the network."""
    operations: Operations
    places: dict[str, Places]
    book: KeyBook
    protocols: frozenset[str]
    problems: list[Problem] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)
    _controllers: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    _taken: dict[tuple[str, str], int] = field(default_factory=dict)

    @classmethod
    async def of(cls, site: Site, source: Source) -> "_Check":
        gateway = next(iter(site.gateways.values()))
        network = await gateway.ledger.evaluate("network.show", {})
        operations = read_operations(source.operations) if source.operations is not None else {}
        if source.lwm2m_uri and (not _URI.fullmatch(source.lwm2m_uri) or len(source.lwm2m_uri) > _MOST_URI):
            raise CommissioningError(f"--lwm2m-uri {source.lwm2m_uri}: write e.g. coaps://gateway.example:5684")
        places = places_of(site.folder, load(site.folder))
        spoken = {adapter.protocol for each in site.gateways.values() for adapter in each.adapters.values()}
        spoken |= {point.name for point in entry_points(group="flexrelay.adapters")}
        known = frozenset(network["organisations"])
        return cls(site, source, known, operations, places, KeyBook(places.values()), frozenset(spoken))

    async def row(self, row: Row) -> Wanted | None:
        """None when something is wrong with it."""
        before = len(self.problems)
        org = row["org"] or self.source.org
        if org not in self.site.gateways:
            here = ", ".join(sorted(self.site.gateways))
            self._say(row, "org", f"{org!r} has no gateway here; there are {here}" if org else "is missing (or --org)")
            return None
        if not NAME.fullmatch(row["name"]):
            self._say(row, "name", f"{row['name']!r}: use letters, digits, . _ and -, 64 characters at most")
        if row["kind"] not in DEVICE_KINDS:
            self._say(row, "kind", f"{row['kind']!r} is unknown; there are {', '.join(DEVICE_KINDS)}")
        if row["unsigned"].lower() not in _YES:
            self._say(row, "unsigned", f"{row['unsigned']!r}: write yes or no")
        label, controller = await self._controller(row, org)
        receivers = self._receivers(row, org)
        credentials = self._credentials(row, receivers)
        account = self._account(row, receivers, credentials)
        signed = self._claimed(row, controller)
        key = self._key(row)
        if len(self.problems) > before:
            return None
        wanted = Wanted(
            line=row.line, org=org, name=row["name"], kind=row["kind"], controller=label, controller_did=controller,
            receivers=receivers, unsigned=_YES[row["unsigned"].lower()], credentials=credentials, key=key,
            signed=signed, account=account, did="", step=Step.NEW,
        )  # fmt: skip
        self._alone(row, wanted)
        placed = await self._placed(row, wanted)
        return placed if len(self.problems) == before else None

    async def _controller(self, row: Row, org: str) -> tuple[str, str]:
        """(label, DID); an actor that the ledger knows as active."""
        label = row["controller"] or self.source.controller
        if not label:
            self._say(row, "controller", "is missing (or --controller)")
            return "", ""
        if (org, label) not in self._controllers:
            gateway = gateway_of(self.site, org)
            identity = gateway.wallet.find(label)
            if identity is None or identity.kind != "actor":
                found = "", f"the wallet of {org} has no actor {label!r}: flexrelay actor add"
            else:
                record = await registered(gateway, identity.did)
                status = "not registered" if record is None else record["status"]
                found = identity.did, "" if status == "active" else f"{label!r} of {org} is {status}"
            self._controllers[org, label] = found
        did, wrong = self._controllers[org, label]
        if wrong:
            self._say(row, "controller", wrong)
        return label, did

    def _receivers(self, row: Row, org: str) -> tuple[str, ...]:
        receivers = tuple(dict.fromkeys(row["receivers"].replace(";", " ").split())) or (org,)
        unknown = [name for name in receivers if name not in self.known]
        if unknown:
            self._say(row, "receivers", f"{', '.join(unknown)}: no organisation of this network")
        elif not any(name in self.site.gateways for name in receivers):
            self._say(row, "receivers", f"none of {', '.join(receivers)} has a gateway here")
        return receivers

    def _credentials(self, row: Row, receivers: Iterable[str]) -> tuple[tuple[str, str], ...]:
        protocol, credential = row["protocol"], row["credential"]
        if not protocol:
            if credential:
                self._say(row, "protocol", "is missing: of which protocol is the credential?")
            return ()
        if protocol not in self.protocols or not _PROTOCOL.fullmatch(protocol):
            self._say(
                row, "protocol", f"{protocol!r}: no adapter speaks it; there are {', '.join(sorted(self.protocols))}"
            )
            return ()
        if protocol == "opcua" and "/" not in credential:
            self._say(row, "credential", "of OPC UA is SERVER/DEVICE, e.g. urn:plant:server/battery-1")
        elif protocol == "opcua":
            self.notes[
                f"OPC UA server {credential.rpartition('/')[0]}: see flexrelay opcua list, it must be trusted"
            ] = None
        if protocol == presharedkeys.PROTOCOL and not credential:
            credential = row["name"]
        if not credential:
            return ()  # the scid, which every protocol takes
        for org in receivers:
            if org in self.site.gateways:
                spoken = {adapter.protocol for adapter in self.site.gateways[org].adapters.values()}
                if protocol not in spoken:
                    self.notes[f"{org} has no adapter that speaks {protocol} yet"] = None
        return ((protocol, credential),)

    def _account(self, row: Row, receivers: Iterable[str], credentials: tuple[tuple[str, str], ...]) -> Account | None:
        bootstrap, bootstrap_key = row["bootstrap"], row["bootstrap_key"]
        identity = dict(credentials).get(presharedkeys.PROTOCOL, "")
        places = [self.places[org] for org in receivers if org in self.places]
        if not identity or identity.startswith("udp:") or not any(place.keys for place in places):
            if bootstrap:
                self._say(row, "bootstrap", "is for LwM2M devices with a pre-shared key, and an adapter with psk_file")
            return None
        for column, name in (("credential", identity), ("bootstrap", bootstrap)):
            if (wrong := presharedkeys.unfit(name)) and name:
                self._say(row, column, wrong)
            if name:  # whoever knows the key of an identity is that device
                self._once(row, column, "pre-shared key of", name)
        if self.book.account(identity) is not None:
            self._say(row, "credential", f"{identity!r} is a bootstrap identity already")
        if bootstrap_key and not bootstrap:
            self._say(row, "bootstrap_key", "is the key of which bootstrap identity?")
        elif bootstrap_key and (wrong := presharedkeys.unfit_key(bootstrap_key)):
            self._say(row, "bootstrap_key", wrong)
        elif bootstrap_key and (file := self.book.clash(bootstrap, bootstrap_key)) is not None:
            self._say(row, "bootstrap_key", f"{file} has another key of {bootstrap!r}")
        if bootstrap:
            self._bootstrap(row, bootstrap, identity, places)
        return Account(identity, self.book.key(identity), bootstrap, bootstrap_key or self.book.key(bootstrap))

    def _bootstrap(self, row: Row, bootstrap: str, identity: str, places: list[Places]) -> None:
        account = self.book.account(bootstrap)
        if not self.source.lwm2m_uri:
            self._say(row, "bootstrap", "needs --lwm2m-uri: where the device is to register")
        elif not any(place.accounts for place in places):
            self._say(row, "bootstrap", "no receiver's LwM2M adapter has a bootstrap_file")
        elif bootstrap == identity:
            self._say(row, "bootstrap", "must be another identity than the credential")
        elif account is not None and account.get("identity") != identity:
            self._say(row, "bootstrap", f"{bootstrap!r} has an account of {account.get('identity')!r} already")
        elif self._is_device(bootstrap):
            self._say(row, "bootstrap", f"{bootstrap!r} is a device's credential already, with that device's key")

    def _is_device(self, identity: str) -> bool:
        bound = (gateway.registry.identify(presharedkeys.PROTOCOL, identity) for gateway in self.site.gateways.values())
        return self.book.gives(identity) or any(device is not None for device in bound)

    def _claimed(self, row: Row, controller: str) -> SignedCreate | None:
        if not row["claim"]:
            return None
        if row["key"]:
            self._say(row, "key", "a device with a claim code keeps its key to itself: leave one of them empty")
        try:
            code = read_code(row["claim"])
        except ValueError as error:
            self._say(row, "claim", str(error))
            return None
        self._once(row, "claim", "claim", code)
        signed = self.operations.get((code, controller))
        if signed is None:
            others = any(of == code for of, _ in self.operations)
            told = "names another controller" if others else "is not there (--operations)"
            self._say(
                row, "claim", f"the create operation that this device signed {told}; its controller is {controller}"
            )
        elif signed.operation.network != self.site.network or signed.operation.kind != "device":
            self._say(row, "claim", f"its operation does not create a device of network {self.site.network}")
        return signed

    def _key(self, row: Row) -> Path | None:
        if not row["key"] or row["claim"]:
            return None
        path = self.source.table.parent / row["key"]
        try:
            key = multikey(read_key(path).public_key())
        except CommissioningError as error:
            self._say(row, "key", str(error))
            return None
        self._once(row, "key", "key", claim_code(key))
        return path

    def _alone(self, row: Row, wanted: Wanted) -> None:
        """No other row wants the same name or credential."""
        for org in dict.fromkeys((*wanted.receivers, wanted.org)):
            self._once(row, "name", f"name at {org}", wanted.name)
        for binding in wanted.credentials:
            for org in wanted.receivers:
                self._once(row, "credential", f"{binding[0]} credential at {org}", binding[1])

    async def _placed(self, row: Row, wanted: Wanted) -> Wanted | None:
        """With its DID and how far it is, as gateways and files know it."""
        here = [self.site.gateways[org] for org in wanted.receivers if org in self.site.gateways]
        holders = {record.did for gateway in here if (record := gateway.devices.named(wanted.name)) is not None}
        did = wanted.signed.operation.did() if wanted.signed else self._stored(row, wanted)
        if len(holders) > 1 or (did and holders - {did}):
            self._say(row, "name", f"{wanted.name!r} is enrolled as {', '.join(sorted(holders - {did}))} already")
            return None
        if not did and holders:  # its files have gone to the device: only the ledger knows whose it is
            did = next(iter(holders))
            known = await registered(self.site.gateways[wanted.org], did)
            if known is not None and known["controller"] != wanted.controller_did:
                self._say(row, "name", f"{wanted.name!r} is enrolled as {did}, of {known['controller']}, already")
                return None
        registry = here[0].registry
        device = registry.device(did) if did else None
        if device is not None and device.status is not DeviceStatus.ACTIVE:
            self._say(row, "name", f"{did} is {device.status.value}: give the device another name")
        record = DeviceRecord(did, wanted.name, wanted.kind, wanted.credentials, wanted.receivers, wanted.unsigned)
        enrolled = 0
        for gateway in here if wanted.account is None else self.site.gateways.values():  # a key is known by identity
            for protocol, credential in wanted.credentials:
                bound = gateway.registry.identify(protocol, credential)
                if bound is not None and bound.did != did:
                    self._say(row, "credential", f"{protocol}:{credential} is bound to {bound.did} at {gateway.org}")
        for gateway in here:
            before = gateway.devices.get(did) if did else None
            if before is not None and before != record:
                self._differs(row, gateway.org, before, record)
            enrolled += before == record
        step = Step.DONE if enrolled == len(here) else Step.COMPLETE
        return replace(wanted, did=did, step=Step.NEW if device is None else step)

    def _stored(self, row: Row, wanted: Wanted) -> str:
        """The DID of an operation that an earlier onboarding left."""
        document = self.site.folder / FOLDER / wanted.org / f"{wanted.name}.json"
        if not document.exists():
            return ""
        try:
            operation, _ = stored_operation(document)
        except CommissioningError as error:
            self._say(row, "name", str(error))
            return ""
        if operation.controller != wanted.controller_did:
            self._say(row, "controller", f"{document} is of another controller, {operation.controller}")
        elif wanted.key is not None and multikey(read_key(wanted.key).public_key()) != operation.key:
            self._say(row, "key", f"{document} is of another key")
        return operation.did()

    def _differs(self, row: Row, org: str, before: DeviceRecord, record: DeviceRecord) -> None:
        columns = {
            "name": "name",
            "kind": "kind",
            "credential": "credentials",
            "receivers": "orgs",
            "unsigned": "unsigned",
        }
        for column, attribute in columns.items():
            held, wanted = getattr(before, attribute), getattr(record, attribute)
            if held != wanted:
                self._say(row, column, f"{org} has enrolled it with {held!r}; flexrelay device add changes that")

    def _once(self, row: Row, column: str, what: str, value: str) -> None:
        line = self._taken.setdefault((what, value), row.line)
        if line != row.line:
            self._say(row, column, f"{what} {value!r} stands in line {line} already")

    def _say(self, row: Row, column: str, message: str) -> None:
        self.problems.append(Problem(row.line, column, message))
