"""A bootstrapped network in memory: operator, organisations with gateways, actors with roles, calendar, connections.

net = Network.start()                       # organisations dso, agg-a, agg-b; market time 2016-05-19 08:00 local
dso = net.actor("dso", org="dso")           # registered through its organisation's gateway, role enrolled by VC
home = net.connection("c1", dso=dso, owner=net.actor("prosumer"), meter=True)
net.call(dso, "market.something", ...)      # signed intent, carried by the party's gateway, run twice
net.to(net.day("2016-05-20").start)         # move the clock to a market time
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from flexrelay_contracts.clock import market_of
from flexrelay_contracts.context import Creator
from flexrelay_schemas.credentials import (
    RoleCredential,
    Subject,
    hash_data,
    instant,
    instant_text,
    proof_options,
    sealed,
)
from flexrelay_schemas.did import Rotate, key_hash, operation_hash
from flexrelay_schemas.encoding import b64u_decode
from flexrelay_schemas.intervals import CalendarDay
from flexrelay_schemas.keys import multikey
from support.contracts import NETWORK, MemoryLedger, Party, sign

YEAR_MS = 365 * 86_400_000


@dataclass
class Connection:
    name: str
    owner: Party
    meter: Party | None
    devices: tuple[Party, ...] = ()


@dataclass
class Network:
    """`gateways` and `creators` by organisation; `home` maps a DID to the organisation whose gateway carries it."""

    ledger: MemoryLedger
    operator: Party
    gateways: dict[str, Party]
    creators: dict[str, Creator]
    home: dict[str, str] = field(default_factory=dict)
    parties: dict[str, Party] = field(default_factory=dict)

    @classmethod
    def start(
        cls,
        orgs: Sequence[str] = ("dso", "agg-a", "agg-b"),
        *,
        market: str = "2016-05-19T06:00:00Z",
        rate: tuple[int, int] = (1, 1),
        first_day: str = "2016-05-12",
        days: int = 14,
    ) -> "Network":
        ledger = MemoryLedger()
        operator = Party.new()
        gateways = {org: Party.new("gateway") for org in orgs}
        creators = {org: Creator(org, hashlib.sha256(org.encode()).hexdigest()) for org in orgs}
        net = cls(ledger, operator, gateways, creators)
        net.home[operator.did] = orgs[0]
        net.home |= {gateway.did: org for org, gateway in gateways.items()}
        net.parties |= {party.did: party for party in (operator, *gateways.values())}
        net.call(operator, "network.bootstrap", **net.genesis(market=market, rate=rate))
        if days:
            net.publish(first_day, days)
        return net

    def genesis(self, *, market: str = "2016-05-19T06:00:00Z", rate: tuple[int, int] = (1, 1)) -> dict[str, Any]:
        """The arguments of network.bootstrap."""
        return {
            "network": NETWORK,
            "simulation": True,
            "clock": {
                "wall_ms": self.ledger.now,
                "market_ms": instant(market),
                "rate_num": rate[0],
                "rate_den": rate[1],
            },
            "operator": self.operator.proven(),
            "organisations": sorted(self.gateways),
            "gateways": [
                {**party.proven(), "org": org, "identity": self.creators[org].identity}
                for org, party in self.gateways.items()
            ],
            "collections": {"disputes": sorted(self.gateways)},
            "entrusted_attesters": True,
            "point_operators": True,
        }

    # -- time

    @property
    def market_ms(self) -> int:
        return market_of(self.ledger.ask("network.show"), self.ledger.now)

    def to(self, market_ms: int) -> None:
        """Move the wall clock so that the market clock shows (at least) this instant."""
        clock = self.ledger.ask("network.show")["clock"]
        ahead = market_ms - clock["market_ms"]
        self.ledger.now = clock["wall_ms"] + -(-ahead * clock["rate_den"] // clock["rate_num"])

    def day(self, local_date: str) -> CalendarDay:
        found = self.ledger.ask("calendar.days", first=local_date, last=local_date)[0]
        return CalendarDay.model_validate({name: value for name, value in found.items() if name != "v"})

    def publish(self, first: str, count: int) -> None:
        """Publish days of 96 ISPs of 15 minutes, local time UTC+2, Monday to Friday working."""
        self.call(self.operator, "calendar.publish", days=[day.model_dump() for day in plain_days(first, count)])

    # -- parties

    def actor(self, *roles: str, org: str = "", markets: Sequence[str] = ("*",), p256: bool = True) -> Party:
        """A registered actor that holds the roles (issued by the operator)."""
        party = self.adopt(Party.new(p256=p256), org)
        self.call(party, "identity.register", **party.proven(), gateway=self.gateways[self.home[party.did]].did)
        for role in roles:
            self.enrol(party, role, markets)
        return party

    def device(self, controller: Party, *, p256: bool = True) -> Party:
        """A device registered by its controller."""
        org = self.home[controller.did]
        party = self.adopt(Party.new("device", controller.did, p256=p256), org)
        self.call(controller, "identity.register_device", **party.proven())
        return party

    def adopt(self, party: Party, org: str = "") -> Party:
        """Note through which organisation's gateway a party speaks (it is not registered by this)."""
        self.home[party.did] = org or next(iter(self.gateways))
        self.parties[party.did] = party
        return party

    def enrol(self, party: Party, role: str, markets: Sequence[str] = ("*",), issuer: Party | None = None) -> None:
        """Give a role by a credential of `issuer` (the operator)."""
        self.call(party, "grants.enrol", credential=self.credential(party, role, markets, issuer))

    def credential(
        self,
        party: Party,
        role: str,
        markets: Sequence[str] = ("*",),
        issuer: Party | None = None,
        *,
        valid: tuple[int, int] | None = None,
        created_ms: int | None = None,
    ) -> dict[str, Any]:
        by = issuer or self.operator
        first, last = valid or (self.ledger.now - 1000, self.ledger.now + YEAR_MS)
        subject = Subject.model_validate({"id": party.did, "network": NETWORK, "role": role, "markets": list(markets)})
        unsigned = RoleCredential(
            issuer=by.did, validFrom=instant_text(first), validUntil=instant_text(last), credentialSubject=subject
        )
        created = self.ledger.now if created_ms is None else created_ms
        options = proof_options(by.did, by.version, multikey(by.private.public_key()), created)
        return sealed(unsigned, options, b64u_decode(sign(by.private, hash_data(unsigned, options)))).encode()

    def rotate(self, party: Party, *, carrier: Party | None = None) -> None:
        """Rotate a party's key; the operation is carried by the party itself or by `carrier`."""
        operation, renewed = rotation(party)
        self.call(carrier or party, "identity.rotate", **renewed.proven(operation))
        party.private, party.next_private, party.version = renewed.private, renewed.next_private, renewed.version
        party.last_hash = operation_hash(operation)

    # -- calls

    def call(self, party: Party, function: str, /, **args: Any) -> Mapping[str, Any]:
        """Sign, carry by the party's gateway, run twice. Raises Refused."""
        return self.ledger.call(party, function, self.creators[self.home[party.did]], **args)

    def ask(self, function: str, /, **args: Any) -> Any:
        return self.ledger.ask(function, **args)

    # -- master data

    def connection(
        self,
        name: str,
        *,
        dso: Party,
        owner: Party,
        congestion_point: str = "cp-1",
        valid_from: str = "2016-05-12",
        meter: bool = False,
        devices: Mapping[str, int] | Sequence[str] = (),
        supplier: Party | None = None,
        brp: Party | None = None,
        aggregator: Party | None = None,
    ) -> Connection:
        """Record a connection by its DSO; `devices` lists kinds of devices to register behind it."""

        def record(kind: str, **data: Any) -> None:
            self.call(
                dso, "masterdata.record", kind=kind, connection=name, valid_from=valid_from, valid_to="", data=data
            )

        record("connection", congestion_point=congestion_point, dso=dso.did, owner=owner.did)
        device = self.device(owner) if meter else None
        if device is not None:
            record("meter", device=device.did)
        made = []
        for kind in devices:
            made.append(self.device(owner))
            record("device", device=made[-1].did, device_kind=kind)
        if supplier is not None:
            record("supplier", supplier=supplier.did)
        if brp is not None:
            record("brp", brp=brp.did)
        if aggregator is not None:
            record("mandate", aggregator=aggregator.did)
        return Connection(name, owner, device, tuple(made))


def rotation(party: Party) -> tuple[Rotate, Party]:
    """The next rotation of a party, and the party as it is afterwards."""
    following = Party.new(party.kind, party.operation.controller).next_private
    previous = party.last_hash or operation_hash(party.operation)
    operation = Rotate(
        did=party.did,
        version=party.version + 1,
        previous=previous,
        key=multikey(party.next_private.public_key()),
        next_key_hash=key_hash(multikey(following.public_key())),
    )
    return operation, Party(party.kind, party.next_private, following, party.operation, party.version + 1)


def plain_days(first: str, count: int) -> list[CalendarDay]:
    """Days of 96 ISPs of 15 minutes at UTC+2."""
    result = []
    for step in range(count):
        current = date.fromisoformat(first) + timedelta(days=step)
        midnight = int(datetime.combine(current, datetime.min.time(), UTC).timestamp() * 1000)
        result.append(
            CalendarDay(
                date=current.isoformat(),
                start=midnight - 2 * 3_600_000,
                isps=96,
                isp_seconds=900,
                working=current.weekday() < 5,
            )
        )
    return result
