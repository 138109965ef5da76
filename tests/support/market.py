"""A network with a congestion market on it: DSO, two aggregators, their metered connections, money, product, request.

Energies per connection and ISP are what a test says they were (`Market.meter`), so that settlement and evidence agree.
"""

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flexrelay_contracts.rules import merkle
from flexrelay_schemas.canonical import canonical, digest, parse
from flexrelay_schemas.encoding import b64u
from flexrelay_schemas.evidence import Window
from flexrelay_schemas.intervals import CalendarDay
from flexrelay_schemas.products import load
from flexrelay_schemas.reading import AnchoredAttestation, Attestation, Attested, Reading
from support.contracts import NETWORK, Party, sign
from support.network import Connection, Network

DATE = "2016-05-20"
POINT = "cp-1"
PRODUCT = "congestion-day-ahead"
AUCTION = f"{PRODUCT}.{POINT}.{DATE}"
ISP_S = 900


class MarketNetwork(Network):
    """Collections as the market needs them: one per pair of organisations that trade with each other."""

    def genesis(self, *, market: str = "2016-05-19T06:00:00Z", rate: tuple[int, int] = (1, 1)) -> dict[str, Any]:
        buyer, *others = self.gateways
        pairs = {f"{buyer}--{other}": [buyer, other] for other in others}
        return {**super().genesis(market=market, rate=rate), "collections": pairs}

    def call_with(
        self, transient: Mapping[str, bytes], party: Party, function: str, /, **args: Any
    ) -> Mapping[str, Any]:
        """Like `call`, with inputs that stay off the chain."""
        self.ledger.used.add(function)
        intent = party.intent(function, args, deadline=self.ledger.now + 60_000)
        return self.ledger.run(intent, self.creators[self.home[party.did]], transient)


def product(**changes: Any) -> dict[str, Any]:
    """The shipped congestion product with some fields changed; the tests' default is open bids."""
    document = parse(canonical(load(PRODUCT).model_dump()))
    return {**document, "sealed": False, **changes}


@dataclass
class Market:
    """The parties and what the meters show: `energy[connection, isp]` in joules, positive = withdrawal."""

    net: MarketNetwork
    dso: Party
    agg_a: Party
    agg_b: Party
    connections: dict[str, Connection]
    of: dict[str, Party]
    """connection → aggregator"""
    energy: dict[tuple[str, int], int] = field(default_factory=dict)
    sealed: bool = False

    @classmethod
    def start(cls, *, fund_micro_eur: int = 1_000_000_000, **changes: Any) -> "Market":
        return cls.on(MarketNetwork.start(), fund_micro_eur=fund_micro_eur, **changes)

    @classmethod
    def on(cls, net: MarketNetwork, *, fund_micro_eur: int = 1_000_000_000, **changes: Any) -> "Market":
        """The market on a network that is there; `changes` to the product. An aggregator without an organisation of its
        own on the network is the DSO's."""
        dso = net.actor("dso", org="dso")
        org_a, org_b = (org if org in net.gateways else "dso" for org in ("agg-a", "agg-b"))
        agg_a, agg_b = net.actor("aggregator", org=org_a), net.actor("aggregator", org=org_b)
        net.call(net.operator, "products.publish", document=product(**changes))
        connections, of = {}, {}
        for name, aggregator in (("a1", agg_a), ("a2", agg_a), ("b1", agg_b), ("b2", agg_b)):
            connections[name] = net.connection(name, dso=dso, owner=aggregator, meter=True, aggregator=aggregator)
            of[name] = aggregator
            for direction in ("withdrawal", "feed_in"):
                net.call(
                    dso,
                    "portfolio.qualify",
                    connection=name,
                    direction=direction,
                    max_w=20_000,
                    valid_from="2016-05-12",
                )
        for party in (dso, agg_a, agg_b):
            if fund_micro_eur:
                net.call(net.operator, "accounts.fund", account=f"actor:{party.did}", micro_eur=fund_micro_eur)
        return cls(net, dso, agg_a, agg_b, connections, of, sealed=bool(changes.get("sealed", False)))

    # -- the way to an order

    def nominate(self, aggregator: Party, power_w: int | Sequence[int] = 0, **changes: Any) -> None:
        """A D-prognosis of one power all day, or of one per ISP."""
        watts = [power_w] * 96 if isinstance(power_w, int) else list(power_w)
        named = {"product": PRODUCT, "congestion_point": POINT, "date": DATE, "revision": 1, "power_w": watts}
        self.net.call(aggregator, "congestion.prognosis", **{**named, **changes})

    def request(self, isps: Sequence[Mapping[str, Any]] | None = None, **changes: Any) -> None:
        """Default: 20 kW more withdrawal in ISPs 49 and 50, room for 8 kW of rebound in ISP 80."""
        chosen = isps or [
            requested(49, 0, 20_000),
            requested(50, 0, 20_000),
            available(80, -8_000, 0),
        ]
        named = {"product": PRODUCT, "congestion_point": POINT, "date": DATE, "direction": "withdrawal"}
        self.net.call(self.dso, "congestion.request", **{**named, "isps": list(chosen), **changes})

    def offer(self, aggregator: Party, *options: Mapping[str, Any], offer_id: str = "", **changes: Any) -> None:
        name = offer_id or ("offer-a" if aggregator is self.agg_a else "offer-b")
        named: dict[str, Any] = {"auction": AUCTION, "offer_id": name, "prognosis_revision": 1}
        transient = {}
        if self.sealed:
            contents = canonical({"v": 1, "salt": secrets.token_hex(32), "options": list(options)})
            transient = {"offer": contents}
            named["contents_hash"] = hashlib.sha256(contents).hexdigest()
        else:
            named["options"] = list(options)
        self.net.call_with(transient, aggregator, "congestion.offer", **{**named, **changes})

    def close(self) -> None:
        self.net.to(self.closes)
        self.net.call(self.dso, "congestion.close_gate", auction=AUCTION)

    def sealed_contents(self, offer_id: str) -> dict[str, Any]:
        """Arguments of congestion.open_offer, as the buyer's organisation can make them."""
        named = {"auction": AUCTION, "offer_id": offer_id}
        return {**named, **self.net.ask("congestion.offer_contents", **named)}

    def unseal(self) -> None:
        """Every aggregator opens what it has sealed."""
        for offer in self.net.ask("congestion.offers", auction=AUCTION):
            if offer["status"] == "sealed":
                party = self.net.parties[offer["aggregator"]]
                self.net.call(party, "congestion.open_offer", **self.sealed_contents(offer["offer_id"]))

    def clear(self) -> list[dict[str, Any]]:
        """The orders, by aggregator A, B; sealed offers are opened first."""
        self.unseal()
        result = self.net.call(self.dso, "congestion.clear", auction=AUCTION)
        orders = [self.net.ask("congestion.order", order_id=name) for name in result["orders"]]
        return sorted(orders, key=lambda order: [self.agg_a.did, self.agg_b.did].index(order["aggregator"]))

    def order(self, price_a: int = 100_000, price_b: int = 120_000) -> list[dict[str, Any]]:
        """Both nominate zero and offer 10 kW in both ISPs, A with 4 kW of rebound; both get an order."""
        self.nominate(self.agg_a)
        self.nominate(self.agg_b)
        self.request()
        self.offer(
            self.agg_a, option(price_a, [10_000, 10_000, -4_000], a1=[6_000, 6_000, -4_000], a2=[4_000, 4_000, 0])
        )
        self.offer(self.agg_b, option(price_b, [10_000, 10_000, 0], b1=[10_000, 10_000, 0]))
        self.close()
        return self.clear()

    @property
    def closes(self) -> int:
        """Gate closure, D-1 09:00 local."""
        return self.day.start - 54_000_000

    @property
    def day(self) -> CalendarDay:
        return self.net.day(DATE)

    # -- metering and settlement

    def meter(self, connection: str, **isps: int) -> None:
        """meter("a1", isp49=…): what the connection drew."""
        for name, energy in isps.items():
            self.energy[connection, int(name.removeprefix("isp"))] = energy

    def deliver(self, *orders: Mapping[str, Any]) -> None:
        """Meters as if every order had been delivered by its aggregator's first connection, baseline zero."""
        for order in orders:
            first = "a1" if order["aggregator"] == self.agg_a.did else "b1"
            for item in order["isps"]:
                self.energy[first, item["isp"]] = item["power_w"] * ISP_S

    def proposal(self, order: Mapping[str, Any], run: str = "initial", **energy: Mapping[int, int]) -> dict[str, Any]:
        """Arguments and detail of settlement.propose; `energy` overrides what the DSO says per connection and ISP."""
        isps = [item["isp"] for item in order["isps"]]
        names = sorted(name for name, party in self.of.items() if party.did == order["aggregator"])
        values = {
            name: [dict(energy.get(name, {})).get(isp, self.energy.get((name, isp), 0)) for isp in isps]
            for name in names
        }
        detail = {
            "v": 1,
            "salt": "ab" * 32,
            "order_id": order["order_id"],
            "run": run,
            "connections": [
                {"connection": name, "energy_j": values[name], "quality": [3] * len(isps)} for name in names
            ],
        }
        lines = [
            {
                "isp": isp,
                "actual_j": sum(values[name][place] for name in names),
                "quality": 3,
                "windows_hash": digest([isp]),
            }
            for place, isp in enumerate(isps)
        ]
        return {"order_id": order["order_id"], "run": run, "lines": lines, "detail": detail}

    def propose(self, order: Mapping[str, Any], run: str = "initial", **energy: Mapping[int, int]) -> str:
        arguments = self.proposal(order, run, **energy)
        return self.send_proposal(arguments)

    def send_proposal(self, arguments: dict[str, Any]) -> str:
        data = canonical(arguments["detail"])
        named = {name: value for name, value in arguments.items() if name != "detail"}
        named.setdefault("detail_hash", hashlib.sha256(data).hexdigest())
        if self.net.market_ms < self.day.end:
            self.net.to(self.day.end)
        return str(self.net.call_with({"detail": data}, self.dso, "settlement.propose", **named)["settlement"])

    def settle(self, order: Mapping[str, Any], run: str = "initial") -> Mapping[str, Any]:
        """Propose, accept, finalise."""
        name = self.propose(order, run)
        aggregator = self.agg_a if order["aggregator"] == self.agg_a.did else self.agg_b
        self.net.call(aggregator, "settlement.accept", settlement=name)
        return self.net.call(self.dso, "settlement.finalise", settlement=name)

    # -- accounts

    def balances(self) -> dict[str, int]:
        found = self.net.ask("accounts.balances")
        assert found["sum_micro_eur"] == 0
        return {item["account"]: item["micro_eur"] for item in found["accounts"]}

    def money(self, party: Party) -> int:
        return self.balances().get(f"actor:{party.did}", 0)

    def held(self) -> dict[str, int]:
        """What is in escrows and bonds."""
        return {name: value for name, value in self.balances().items() if name.startswith(("escrow:", "bond:"))}

    # -- evidence

    def bounds(self, isp: int) -> tuple[int, int]:
        return self.day.bounds(isp)

    def signed(self, device: Party, observed_at: int, import_j: int, export_j: int = 0, **changes: Any) -> bytes:
        """The bytes of a reading that the device signs."""
        reading = Reading(
            did=device.did,
            key_version=device.version,
            network=NETWORK,
            observed_at=observed_at,
            registers={"import_j": import_j, "export_j": export_j, **changes.get("more", {})},
            seq=changes.get("seq", 1),
        )
        by = changes.get("signer", device)
        return canonical({"v": 1, "reading": reading.model_dump(), "signature": sign(by.private, reading.message())})

    def attested(self, org: str, device: Party, observed_at: int, import_j: int, export_j: int = 0) -> bytes:
        """The bytes of a reading for which an organisation's gateway stands."""
        gateway = self.net.gateways[org]
        attestation = Attestation(
            did=device.did,
            frame_sha256=hashlib.sha256(f"{observed_at}".encode()).hexdigest(),
            gateway=gateway.did,
            key_version=gateway.version,
            network=NETWORK,
            observed_at=observed_at,
            registers={"import_j": import_j, "export_j": export_j},
        )
        signature = sign(gateway.private, attestation.message())
        return canonical({"v": 1, "attestation": attestation.model_dump(), "signature": signature})

    def stated(self, org: str, device: Party, observed_at: int, import_j: int, export_j: int = 0) -> bytes:
        """The same in the form that has no signature but the anchor's."""
        content = Attested(
            did=device.did,
            frame_sha256=hashlib.sha256(f"{observed_at}".encode()).hexdigest(),
            network=NETWORK,
            observed_at=observed_at,
            registers={"import_j": import_j, "export_j": export_j},
        )
        return canonical(AnchoredAttestation(attestation=content).model_dump())

    def anchor(
        self, org: str, device: Party, payloads: Mapping[int, bytes], anchor_id: str = ""
    ) -> list[dict[str, Any]]:
        """Anchor one window per (instant, payload) at the present time; inclusion proofs in the order of instants."""
        windows, leaves = [], []
        for instant in sorted(payloads):
            date = "2016-05-20"
            isp = self.day.isp_closed_by(instant)
            salt = hashlib.sha256(f"{instant}".encode()).digest()[:16]
            root = merkle.leaf_hash(salt, payloads[instant])
            window = Window(device=device.did, date=date, isp=isp, revision=1, leaves=1, root=root.hex())
            windows.append((window, salt, payloads[instant]))
            leaves.append(window.leaf_hash())
        name = anchor_id or f"anchor-{len(self.net.ledger.events)}"
        self.net.call(
            self.net.gateways[org], "evidence.anchor", anchor_id=name, root=merkle.root(leaves).hex(),
            windows=len(leaves), leaves=len(leaves), first_ms=min(payloads), last_ms=max(payloads),
        )  # fmt: skip
        return [
            {
                "v": 1,
                "payload": b64u(payload),
                "salt": b64u(salt),
                "in_window": {"index": 0, "size": 1, "hashes": []},
                "window": window.model_dump(),
                "in_anchor": parse(canonical(merkle.document(leaves, index).model_dump())),
                "org": org,
                "anchor_id": name,
            }
            for index, (window, salt, payload) in enumerate(windows)
        ]

    def meter_proofs(self, org: str, connection: str, isp: int, energy_j: int, **changes: Any) -> list[dict[str, Any]]:
        """Two readings of the connection's meter that differ by `energy_j`, anchored by `org` now."""
        meter = self.connections[connection].meter
        assert meter is not None
        start, end = self.bounds(isp)
        base = 1_000_000
        first, last = (base, base + energy_j) if energy_j >= 0 else (base, base)
        out = 0 if energy_j >= 0 else -energy_j
        attested = changes.pop("attested", 0)  # 1 or 2: the form
        if attested:
            word = self.attested if attested == 1 else self.stated
            payloads = {start: word(org, meter, start, first), end: word(org, meter, end, last, out)}
        else:
            payloads = {
                start: self.signed(meter, start, first, **changes),
                end: self.signed(meter, end, last, out, **changes),
            }
        return self.anchor(org, meter, payloads)

    def open(self, party: Party, settlement: str, isp: int, connection: str, claimed_j: int, name: str = "d1") -> None:
        self.net.call(
            party, "dispute.open", dispute_id=name, settlement=settlement, isp=isp, connection=connection,
            claimed_j=claimed_j,
        )  # fmt: skip

    def show(self, party: Party, proofs: Sequence[Mapping[str, Any]], name: str = "d1") -> None:
        document = {"v": 1, "salt": "cd" * 32, "dispute_id": name, "start": proofs[0], "end": proofs[1]}
        data = canonical(document)
        self.net.call_with(
            {"evidence": data}, party, "dispute.evidence", dispute_id=name,
            evidence_hash=hashlib.sha256(data).hexdigest(),
        )  # fmt: skip

    def resolve(self, party: Party, name: str = "d1") -> Mapping[str, Any]:
        return self.net.call(party, "dispute.resolve", dispute_id=name)


def requested(isp: int, min_w: int, max_w: int) -> dict[str, Any]:
    return {"isp": isp, "disposition": "requested", "min_w": min_w, "max_w": max_w}


def available(isp: int, min_w: int, max_w: int) -> dict[str, Any]:
    return {"isp": isp, "disposition": "available", "min_w": min_w, "max_w": max_w}


def option(
    price: int, power_w: Sequence[int], isps: Sequence[int] = (49, 50, 80), *, option_id: str = "o1",
    min_percent: int = 10, **shares: Sequence[int],
) -> dict[str, Any]:  # fmt: skip
    """option(price, powers, a1=[…], a2=[…]): the shares are by connection."""
    return {
        "option_id": option_id,
        "price_nano_eur_per_wh": price,
        "min_activation_percent": min_percent,
        "isps": [{"isp": isp, "power_w": power} for isp, power in zip(isps, power_w, strict=True)],
        "connections": [{"connection": name, "power_w": list(share)} for name, share in sorted(shares.items())],
    }
