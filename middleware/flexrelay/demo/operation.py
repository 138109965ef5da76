"""The day: ordered batteries charge on command, one of B's fails, one reading is damaged on its way to the DSO."""

import secrets
from dataclasses import dataclass

from flexrelay.demo.barrier import StoryStuck, journals_hold, market_reaches
from flexrelay.demo.cast import DSO, A, B, Cast, Progress
from flexrelay.demo.day_ahead import DELIVERY, LOCAL_BIDS, LOCAL_ISPS, DayAhead
from flexrelay.dispatch import CommandRecord, DispatchOrder, OrderedIsp, ProportionalPlan
from flexrelay.market.fleet import Fleet
from flexrelay.windows import check_proof
from flexrelay_contracts.rules import merkle
from flexrelay_schemas.canonical import canonical
from flexrelay_schemas.did import split_did
from flexrelay_schemas.encoding import b64u
from flexrelay_schemas.evidence import InclusionProof, Path, Window
from flexrelay_schemas.reading import Attestation, SignedAttestation

HOUR_MS = 3_600_000
FAILING = "s2"
FAILS_AT_MS = 13 * HOUR_MS
"""After local midnight: B's battery stops following its set-points."""
FORGED_J = 4_000 * 3600
"""What B claims beyond the truth: 4 kWh."""


@dataclass(frozen=True)
class Forged:
    """B's gateway-attested reading, anchored: the interval that it is about and the proof that B holds."""

    connection: str
    isp: int
    claimed_j: int
    end: InclusionProof


@dataclass
class Operation:
    """What the day has brought."""

    commands: dict[str, list[CommandRecord]]
    """By aggregator's organisation, as they stood when all of an order's were acknowledged."""
    forged: Forged


async def tell(cast: Cast, told: DayAhead, progress: Progress) -> Operation:
    """Runs until the delivery day is over."""
    day = cast.days[DELIVERY]
    _damage_one(cast, told)
    cast.unsigned[f"battery-{FAILING}"].plant.fail_at(day.start + FAILS_AT_MS)
    await market_reaches(cast, day.start - 3 * HOUR_MS)
    progress("the batteries have their commands")
    commands = await _commands(cast, told)
    progress("the day: the batteries charge")
    for isp, auction in zip(LOCAL_ISPS, told.local_auctions, strict=True):
        await market_reaches(cast, day.bounds(isp)[0] - 900_000)
        await cast.desk(DSO, "dso").do("local_energy.close_gate", {"auction": auction})
        await cast.desk(DSO, "dso").do("local_energy.clear", {"auction": auction})
    progress("B anchors a reading that claims 4 kWh more")
    forged = await _forge(cast, told)
    progress("waiting for the day's end")
    await market_reaches(cast, day.end)
    return Operation(commands, forged)


def _damage_one(cast: Cast, told: DayAhead) -> None:
    """Between the two ordered ISPs whose powers differ most, the DSO's copy of s1's reading is damaged on its way."""
    ordered: dict[int, int] = {item["isp"]: item["power_w"] for item in told.orders[A]["isps"]}
    steps = {isp: ordered[isp] - ordered.get(isp + 1, 0) for isp in ordered if ordered[isp] > 0}
    isp = max(steps, key=lambda found: (steps[found], -found))
    device = cast.devices["battery-s1"]
    boundary = (cast.days[DELIVERY].bounds(isp)[1] - device.start_ms) // device.isp_ms
    device.damage(boundary, DSO)


async def _buy(cast: Cast) -> list[CommandRecord]:
    """A's bid is above every ask, so it plans to charge what it bids for (B's bid is a try)."""
    gateway, day, desk = cast.site.gateways[A], cast.days[DELIVERY], cast.desk(A, "aggregator")
    name, energy_wh, _ = LOCAL_BIDS[A]
    unit = next(unit for unit in cast.fleet(A).units if unit.connection == name)
    power = energy_wh * 3600 // day.isp_seconds
    isps = tuple(OrderedIsp(isp, *day.bounds(isp), power) for isp in LOCAL_ISPS)
    bought = DispatchOrder(f"local-{DELIVERY}-{name}", desk.did, isps)
    plan = ProportionalPlan(Fleet((unit,)), {unit.did: split_did(unit.did)[1]}, cast.site.clock.wall)
    await gateway.dispatcher.accept(bought, plan.commands(bought))
    return await gateway.dispatcher.finished(bought.order_id)


async def _commands(cast: Cast, told: DayAhead) -> dict[str, list[CommandRecord]]:
    """What the aggregators' gateways have made of their awards by themselves, and A's purchase; all acknowledged."""
    made: dict[str, list[CommandRecord]] = {A: await _buy(cast)}
    for org, order in told.orders.items():
        dispatcher = cast.site.gateways[org].dispatcher
        records = await dispatcher.finished(order["order_id"])
        if not records:
            raise StoryStuck(f"{org} has made no commands of order {order['order_id']}")
        made[org] = [*made.get(org, []), *records]
    return made


async def _forge(cast: Cast, told: DayAhead) -> Forged:
    """B attests, with its own gateway's key, a register of s2 that is 4 kWh too high, and anchors it.

    The forgery happens outside of the gateway's own path, which would not take it: the meter has signed another value
    for that instant. The ledger takes the anchor, for it is only a hash; what it is worth shows in a dispute.
    """
    gateway, day = cast.site.gateways[B], cast.days[DELIVERY]
    did = cast.meters[FAILING]
    after = day.start + FAILS_AT_MS
    wanted = [item["isp"] for item in told.orders[B]["isps"] if item["power_w"] > 0]
    isp = next(isp for isp in wanted if day.bounds(isp)[0] >= after)
    start, end = day.bounds(isp)
    await journals_hold(cast, end)
    truth = {found.observed_at: found.registers for found in await gateway.twin.history(did, start, end)}
    honest_j = truth[end]["import_j"] - truth[start]["import_j"]
    attestation = Attestation(
        did=did,
        frame_sha256=secrets.token_hex(32),
        gateway=gateway.signer.did,
        key_version=gateway.signer.key_version,
        network=gateway.network,
        observed_at=end,
        registers={**truth[end], "import_j": truth[end]["import_j"] + FORGED_J},
    )
    signature = b64u(await gateway.signer.sign(attestation.message()))
    payload = canonical(SignedAttestation(attestation=attestation, signature=signature).model_dump())
    salt = secrets.token_bytes(16)
    leaf = merkle.leaf_hash(salt, payload)
    single = Path(index=0, size=1, hashes=())
    window = Window(device=did, date=day.date, isp=isp, revision=1, leaves=1, root=leaf.hex())
    root = window.leaf_hash().hex()
    anchor_id = f"{end}-{root[:32]}"
    args = {"anchor_id": anchor_id, "root": root, "windows": 1, "leaves": 1, "first_ms": end, "last_ms": end}
    await gateway.desk(gateway.signer.did).do("evidence.anchor", args)
    proof = InclusionProof(
        payload=b64u(payload),
        salt=b64u(salt),
        in_window=single,
        window=window,
        in_anchor=single,
        org=B,
        anchor_id=anchor_id,
    )
    check_proof(proof, root, 1)
    return Forged(FAILING, isp, honest_j + FORGED_J, proof)
