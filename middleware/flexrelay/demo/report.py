"""What the demo leaves: a JSON report, two pictures, and the tables and text that a terminal shows."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flexrelay.demo.cast import DSO, ORGS, POINT, A, Cast
from flexrelay.demo.day_ahead import ASKS, DELIVERY, DayAhead
from flexrelay.demo.operation import Operation
from flexrelay.demo.plots import Offer, TransformerDay, merit_order_svg, transformer_svg
from flexrelay.demo.protocols import tally
from flexrelay.demo.settlement import Settled
from flexrelay.ledger.embedded.verify import verify
from flexrelay.ledgers import FabricHost

Report = dict[str, Any]


async def compile_report(
    cast: Cast, folder: Path, told: DayAhead, done: Operation, settled: Settled, broker: str, fabric: str
) -> Report:
    """The report's JSON value. Energies in J, powers in W, prices in n€/Wh, money in µ€. `fabric`: a Fabric ledger's
    version."""
    gateways = cast.site.gateways
    counts = {org: await gateways[org].windows.counts() for org in ORGS}
    balances = await gateways[DSO].ledger.evaluate("accounts.balances", {})
    accounts = {item["account"]: item["micro_eur"] for item in balances["accounts"]}
    line = await _proven_line(cast, settled)
    checks = await gateways[A].custody.verify(line)
    ledger = await _ledger(cast, folder, fabric)
    names = {desk.did: f"{org}/{label}" for (org, label), desk in cast.desks.items()}
    protocols = await tally(cast, done)
    return {
        "readings": sum(found.readings for found in protocols.values()),
        "devices": len(cast.devices) + len(cast.unsigned),
        "protocols": {protocol: asdict(found) for protocol, found in protocols.items()},
        "windows": sum(count["windows"] for count in counts.values()),
        "anchors": await _anchors(cast),
        "ledger_transactions": ledger.pop("transactions"),
        "orders": len(told.orders),
        "commands": sum(found.commands for found in protocols.values()),
        "dead_letters": {org: (await gateways[org].journal.count()).kept for org in ORGS},
        "disputes": {
            "opened": len(settled.disputes),
            "resolved": sum(1 for dispute in settled.disputes.values() if dispute["verdict"] != "unresolved"),
            "verdicts": list(settled.disputes.values()),
        },
        "settlement": _lines(cast, told, settled),
        "local_energy": [dict(item) for item in settled.local],
        "imbalance": dict(settled.imbalance),
        "accounts": accounts,
        "cash_sum_micro_eur": sum(accounts.values()),
        "ledger": ledger,
        "custody": {**line.model_dump(mode="json"), "checks": [_check(check) for check in checks]},
        "broker": broker,
        "names": names,
        "meters": dict(cast.meters),
        "congestion_point": POINT,
        "date": DELIVERY,
        "order_documents": {org: dict(order) for org, order in told.orders.items()},
        "settlement_documents": {org: dict(found) for org, found in settled.settlements.items()},
    }


def _check(check: Any) -> dict[str, Any]:
    return {"link": check.link, "holds": check.holds, "detail": check.detail}


async def _proven_line(cast: Cast, settled: Settled) -> Any:
    """The custody record of the line that A won: from the meter's frame to the postings."""
    dispute = settled.disputes["dispute-a"]
    day = cast.days[DELIVERY]
    end = day.bounds(dispute["isp"])[1]
    order = settled.settlements[A]["order_id"]
    return await cast.site.gateways[A].custody.by_reading(cast.meters[dispute["connection"]], end, order_id=order)


async def _anchors(cast: Cast) -> int:
    """Anchors that stand on the ledger."""
    return len(await cast.site.gateways[DSO].views.documents("anchor"))


async def _ledger(cast: Cast, folder: Path, fabric: str) -> dict[str, Any]:
    host = cast.site.ledger
    if isinstance(host, FabricHost):
        on_fabric = await host.verify()
        return {
            "version": fabric,
            **_verified("fabric", on_fabric, on_fabric.transactions + on_fabric.administrative),
        }
    found = await asyncio.to_thread(verify, folder / "ledger")
    return _verified("embedded", found, found.transactions)


def _verified(kind: str, found: Any, transactions: int) -> dict[str, Any]:
    """What either ledger's verification says, the same for both."""
    return {
        "kind": kind,
        "height": found.height,
        "last_hash": found.last_hash,
        "verified": found.ok,
        "problems": [str(problem) for problem in found.problems],
        "transactions": transactions,
    }


def _lines(cast: Cast, told: DayAhead, settled: Settled) -> list[dict[str, Any]]:
    """One object per line item of the congestion settlement."""
    disputed = {(item["settlement"], item["isp"]): item["dispute_id"] for item in settled.disputes.values()}
    result = []
    for org, record in settled.settlements.items():
        order = told.orders[org]
        name = f"{record['order_id']}.{record['run']}"
        for line in record["lines"]:
            result.append(
                {
                    "settlement": name,
                    "order_id": record["order_id"],
                    "aggregator": org,
                    "product": order["product"],
                    "date": DELIVERY,
                    "price_nano_eur_per_wh": order["price_nano_eur_per_wh"],
                    "penalty_nano_eur_per_wh": order["penalty_nano_eur_per_wh"],
                    "dispute": disputed.get((name, line["isp"]), ""),
                    **line,
                }
            )
    return result


def merit_order(told: DayAhead) -> tuple[list[Offer], int]:
    """(offers at the ISP with the greatest need, that need in W)."""
    need = max(told.need_w)
    isp = told.need_w.index(need) + 1
    offers = []
    for org, options in told.options.items():
        order = told.orders.get(org)
        for ask, found in zip(ASKS[org], options, strict=True):
            power = next(item.power_w for item in found.isps if item.isp == isp)
            taken = 0
            if order is not None and order["option_id"] == ask.option_id:
                taken = next(item["power_w"] for item in order["isps"] if item["isp"] == isp)
            offers.append(Offer(org, ask.option_id, power, ask.price_nano_eur_per_wh, taken))
    return offers, need


def transformer_day(cast: Cast, told: DayAhead, settled: Settled) -> TransformerDay:
    """The transformer as it was measured, and without what the batteries did (their meters' readings)."""
    day = cast.days[DELIVERY]
    measured = [energy // day.isp_seconds for energy in settled.transformer_j]
    pairs = zip(measured, settled.batteries_j, strict=True)
    without = [power - energy // day.isp_seconds for power, energy in pairs]
    return TransformerDay(DELIVERY, day.isp_seconds, told.forecast_w, without, measured, told.limit_w, -told.limit_w)


def write_pictures(folder: Path, offers: list[Offer], need_w: int, day: TransformerDay, note: str) -> list[Path]:
    """merit-order.svg and transformer.svg in the run's folder."""
    pictures = {
        "merit-order.svg": merit_order_svg(offers, need_w, title=f"Merit order at the peak, {DELIVERY}"),
        "transformer.svg": transformer_svg(day, title=f"Load of the transformer, {DELIVERY}", note=note),
    }
    for name, text in pictures.items():
        (folder / name).write_text(text)
    return [folder / name for name in pictures]


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
