"""Afterwards: metering, proposals, two disputes, finality, the local trades, the BRPs' imbalances.

Everything that is settled comes from the gateways' journals; nothing here sees a profile.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flexrelay.app import Gateway
from flexrelay.demo.barrier import journals_hold, market_reaches
from flexrelay.demo.cast import DSO, FLEETS, POINT, A, B, Cast, Progress
from flexrelay.demo.day_ahead import DELIVERY, DayAhead
from flexrelay.demo.operation import Operation
from flexrelay.market.metering import MeteredEnergy, metered, metered_all, windows_hash
from flexrelay.market.settling import allocation, evidence, proposal
from flexrelay_contracts.market.corrections import estimate_beside
from flexrelay_schemas.canonical import digest
from flexrelay_schemas.evidence import InclusionProof
from flexrelay_schemas.intervals import CalendarDay
from flexrelay_schemas.quality import Provenance

HOUR_MS = 3_600_000
RUN = "initial"
IMBALANCE_PRICES = (*[62_000] * 28, *[48_000] * 12, *[-8_000] * 24, *[55_000] * 8, *[96_000] * 16, *[70_000] * 8)
"""The TSO's single price per ISP in n€/Wh; made up for the story: low while the sun shines, high in the evening."""


@dataclass
class Settled:
    """What the settlement has brought. Documents as the contracts keep them."""

    settlements: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """By aggregator's organisation."""
    disputes: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    local: list[Mapping[str, Any]] = field(default_factory=list)
    imbalance: Mapping[str, Any] = field(default_factory=dict)
    transformer_j: tuple[int, ...] = ()
    batteries_j: tuple[int, ...] = ()
    """Σ of all batteries per ISP of the day, as allocated: with what the disputes have proven."""


async def tell(cast: Cast, told: DayAhead, done: Operation, progress: Progress) -> Settled:
    """From the end of the delivery day to finality."""
    day = cast.days[DELIVERY]
    settled = Settled()
    progress("windows close, every organisation anchors its roots")
    await market_reaches(cast, day.end + HOUR_MS + 300_000)
    await journals_hold(cast, day.end)
    await asyncio.gather(*(_anchor(gateway) for gateway in cast.site.gateways.values()))
    progress("the DSO proposes the settlement")
    names = {org: await _propose(cast, told, org) for org in told.orders}
    progress("A disputes a line and wins, B disputes a line and loses")
    await _dispute_of_a(cast, told, names[A], settled)
    await _dispute_of_b(cast, done, names[B], settled)
    progress("accepted, final: escrows are paid out")
    for org, name in names.items():
        await cast.desk(org, "aggregator").do("settlement.accept", {"settlement": name})
        await cast.desk(org, "aggregator").do("settlement.finalise", {"settlement": name})
        settled.settlements[org] = await _ask(cast, "settlement.one", settlement=name)
    for auction in told.local_auctions:
        result = await cast.desk(DSO, "dso").do("local_energy.settle", {"auction": auction})
        settled.local.append({"auction": auction, **result.result})
    progress("BRPs' imbalances")
    await _imbalance(cast, day, settled)
    return settled


async def _ask(cast: Cast, function: str, **args: Any) -> Any:
    return await cast.site.gateways[DSO].ledger.evaluate(function, args)


async def _anchor(gateway: Gateway) -> None:
    for entry in await gateway.anchoring.step():
        await gateway.outbox.wait(entry)


async def _propose(cast: Cast, told: DayAhead, org: str) -> str:
    gateway, order = cast.site.gateways[DSO], told.orders[org]
    day = cast.days[DELIVERY]
    meters: Mapping[str, str] = await _ask(cast, "congestion.order_metering", order_id=order["order_id"])
    isps = [item["isp"] for item in order["isps"]]
    energies = await metered_all(gateway.twin, meters, day, isps)

    async def pin(device: str, date: str, isp: int) -> str:
        start, end = day.bounds(isp)
        found = await gateway.windows.windows(device, start, end)
        return found[-1].root if found else ""

    pins = [await windows_hash(pin, list(meters.values()), day, isp) for isp in isps]
    args, detail = proposal(order, RUN, energies, pins)
    desk = cast.desk(DSO, "dso")
    done = await desk.do("settlement.propose", args, transient={"detail": detail}, correlation_id=order["order_id"])
    return str(done.result["settlement"])


async def _dispute_of_a(cast: Cast, told: DayAhead, name: str, settled: Settled) -> None:
    """A compares the proposal with what its own gateway holds and disputes the line that costs it most."""
    gateway, day = cast.site.gateways[A], cast.days[DELIVERY]
    isps = [item["isp"] for item in told.orders[A]["isps"]]
    own = await metered_all(gateway.twin, {unit: cast.meters[unit] for unit in FLEETS[A]}, day, isps)
    detail = await gateway.ledger.evaluate("settlement.detail", {"settlement": name})
    short = [
        (found.energy_j[place] - item["energy_j"][place], isp, item["connection"], found.energy_j[place])
        for item in detail["connections"]
        for place, isp in enumerate(isps)
        if (found := own[item["connection"]]).energy_j[place] > item["energy_j"][place]
    ]
    _, isp, connection, claimed = max(short)
    await _dispute(cast, "dispute-a", A, name, isp, connection, claimed, settled)


async def _dispute_of_b(cast: Cast, done: Operation, name: str, settled: Settled) -> None:
    forged = done.forged
    await _dispute(cast, "dispute-b", B, name, forged.isp, forged.connection, forged.claimed_j, settled, end=forged.end)


async def _dispute(
    cast: Cast,
    dispute_id: str,
    org: str,
    settlement: str,
    isp: int,
    connection: str,
    claimed_j: int,
    settled: Settled,
    *,
    end: InclusionProof | None = None,
) -> None:
    """Open with a bond, both sides show what they hold, and the contract decides."""
    challenger, dso = cast.desk(org, "aggregator"), cast.desk(DSO, "dso")
    args = {"dispute_id": dispute_id, "settlement": settlement, "isp": isp, "connection": connection}
    await challenger.do("dispute.open", {**args, "claimed_j": claimed_j})
    bounds = cast.days[DELIVERY].bounds(isp)
    meter = cast.meters[connection]
    shown = await _pair(cast.site.gateways[org], meter, bounds)
    await _show(challenger, dispute_id, shown[0], end or shown[1])
    await _show(dso, dispute_id, *await _pair(cast.site.gateways[DSO], meter, bounds))
    done = await challenger.do("dispute.resolve", {"dispute_id": dispute_id})
    settled.disputes[dispute_id] = {**args, "challenger": org, "claimed_j": claimed_j, **done.result}


async def _pair(gateway: Gateway, meter: str, bounds: tuple[int, int]) -> tuple[InclusionProof, InclusionProof]:
    """Proofs of the readings at both ends, or of the nearest ones that the gateway holds where one is missing."""
    found = []
    for instant in bounds:
        before, after = await gateway.twin.around(meter, instant)
        nearest = before or after
        if nearest is None:
            raise LookupError(f"{gateway.org} holds no reading of {meter}")
        found.append(await gateway.prover.proof(meter, nearest.observed_at))
    return found[0], found[1]


async def _show(desk: Any, dispute_id: str, start: InclusionProof, end: InclusionProof) -> None:
    args, data = evidence(dispute_id, start, end)
    await desk.do("dispute.evidence", args, transient={"evidence": data})


async def _imbalance(cast: Cast, day: CalendarDay, settled: Settled) -> None:
    """The DSO allocates what all meters and the transformer's show; the TSO settles at its single price."""
    gateway = cast.site.gateways[DSO]
    isps = range(1, day.isps + 1)
    meters = {name: cast.meters[name] for name in cast.brps}
    energies = await metered_all(gateway.twin, meters, day, isps)
    energies |= {item: _corrected(item, energies[item], settled) for item in energies}
    transformer = await metered(gateway.twin, cast.meters[POINT], day, isps)
    settled.transformer_j = transformer.energy_j
    batteries = [energies[name].energy_j for names in FLEETS.values() for name in names]
    settled.batteries_j = tuple(map(sum, zip(*batteries, strict=True)))
    pins = digest([[name, list(found.energy_j)] for name, found in sorted(energies.items())])
    supply = cast.desk(DSO, "brp-supply").did
    args = allocation(DELIVERY, 1, POINT, cast.brps, energies, transformer, supply, pins)
    await cast.desk(DSO, "dso").do("imbalance.allocate", args)
    prices = {"price_nano_eur_per_wh": list(IMBALANCE_PRICES), "areas": [POINT], "date": DELIVERY, "run": 1}
    await cast.desk(DSO, "tso").do("imbalance.settle", prices)
    settled.imbalance = await _ask(cast, "imbalance.run", date=DELIVERY, run=1)


def _corrected(connection: str, found: MeteredEnergy, settled: Settled) -> MeteredEnergy:
    """What a dispute has proven replaces the estimate, and the estimate beside it takes up the difference: the rule of
    the settlement, over all ISPs of the day."""
    energies = dict(enumerate(found.energy_j, start=1))
    ranks = dict(enumerate(found.quality, start=1))
    for dispute in settled.disputes.values():
        if dispute["verdict"] == "challenger" and dispute["connection"] == connection:
            isp, claimed_j = dispute["isp"], dispute["claimed_j"]
            beside, _ = estimate_beside(ranks, isp)
            if beside is not None:
                energies[beside] += energies[isp] - claimed_j
            energies[isp], ranks[isp] = claimed_j, Provenance(dispute["findings"]["challenger"]["rank"])
    return MeteredEnergy(tuple(energies.values()), tuple(ranks.values()))
