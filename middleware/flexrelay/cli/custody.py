"""`flexrelay custody`: the whole chain behind a number, shown and verified."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from flexrelay.app import Gateway, Level, Site
from flexrelay.cli.folder import Folder, Org, bar, gateways, on_site
from flexrelay.cli.instant import iso, parse_instant
from flexrelay.cli.output import CHECK_FAILED, Json, err, out, show, table
from flexrelay.commissioning.actors import gateway_of
from flexrelay.commissioning.errors import CommissioningError
from flexrelay.custody import AuditReport, Check, CustodyRecord

app = typer.Typer(help="Custody records: from a received frame to a line of money.", no_args_is_help=True)

Position = Annotated[int | None, typer.Option(min=1, help="By the frame's place in the journal.")]
Reading = Annotated[str, typer.Option(metavar="DEVICE@TIME", help="By DID or device name, and ISO 8601 or UTC ms.")]
Order = Annotated[str, typer.Option(metavar="ID", help="By an order: the last reading that shows its delivery.")]
Tx = Annotated[str, typer.Option(metavar="ID", help="By the transaction of an anchor, order or settlement.")]
Line = Annotated[str, typer.Option(metavar="SETTLEMENT/ISP", help="By a settlement's line.")]
Collect = Callable[[Gateway], Awaitable[CustodyRecord]]


@app.command("show")
def show_(
    folder: Folder,
    org: Annotated[str, typer.Option(help="The organisation whose gateway holds the reading.")],
    position: Position = None,
    reading: Reading = "",
    order: Order = "",
    tx: Tx = "",
    line: Line = "",
    json_: Json = False,
) -> None:
    """One custody record, collected by any of its ends. It is not verified: see `verify`."""

    async def work(site: Site) -> CustodyRecord:
        collect = _selected(position, reading, order, tx, line)
        if collect is None:
            raise CommissioningError("say which: --position, --reading, --order, --tx or --line")
        return await collect(gateway_of(site, org))

    record = on_site(folder, Level.READING, json_, work)
    show(record.model_dump(mode="json"), json_, lambda: _render(record))


@app.command()
def verify(
    folder: Folder,
    org: Org = "",
    position: Position = None,
    reading: Reading = "",
    order: Order = "",
    tx: Tx = "",
    line: Line = "",
    all_: Annotated[
        bool, typer.Option("--all", help="Everything that is stored; the default without a choice.")
    ] = False,
    json_: Json = False,
) -> None:
    """Verify one record, or recompute everything stored; exit 1 when anything does not hold.

    The ledger's own blocks are recomputed by `flexrelay ledger verify`.
    """

    async def work(site: Site) -> tuple[CustodyRecord | None, list[Check], list[AuditReport]]:
        collect = _selected(position, reading, order, tx, line)
        if collect is None:
            return None, [], await _audit(gateways(site, org))
        if all_ or not org:
            raise CommissioningError("one record: name its --org, without --all")
        gateway = gateway_of(site, org)
        record = await collect(gateway)
        return record, await gateway.custody.verify(record), []

    record, checks, reports = on_site(folder, Level.READING, json_, work)
    if record is None:
        good = all(report.ok for report in reports)
        document: dict[str, Any] = {"verified": good, "gateways": [asdict(report) for report in reports]}
        show(document, json_, lambda: _reported(reports))
    else:
        good = all(check.holds for check in checks)
        document = {
            "verified": good,
            "checks": [asdict(check) for check in checks],
            "record": record.model_dump(mode="json"),
        }
        show(document, json_, lambda: _checked(record, checks))
    if not good:
        raise typer.Exit(CHECK_FAILED)


async def _audit(of: list[Gateway]) -> list[AuditReport]:
    reports = []
    with bar() as progress:
        for gateway in of:
            task = progress.add_task(f"journal of {gateway.org}", total=gateway.journal.end)
            reports.append(
                await gateway.audit.run(
                    lambda done, total, task=task: progress.update(task, completed=done, total=total)  # type: ignore[misc]  # the task of this turn
                )
            )
    return reports


def _selected(position: int | None, reading: str, order: str, tx: str, line: str) -> Collect | None:
    """How to collect what the one given option names; None when none is given. Raises CommissioningError."""
    chosen: list[Collect] = []
    if position is not None:
        chosen.append(lambda gateway: gateway.custody.by_position(position))
    if reading:
        named, at, time = reading.rpartition("@")
        if not at:
            raise CommissioningError(f"--reading {reading!r}: write DEVICE@TIME")
        instant = parse_instant(time)
        chosen.append(lambda gateway: gateway.custody.by_reading(_did(gateway, named), instant))
    if order:
        chosen.append(lambda gateway: gateway.custody.by_order(order))
    if tx:
        chosen.append(lambda gateway: gateway.custody.by_transaction(tx))
    if line:
        settlement, slash, isp = line.rpartition("/")
        if not slash or not (isp.isascii() and isp.isdigit()) or len(isp) > 3:
            raise CommissioningError(f"--line {line!r}: write SETTLEMENT/ISP")
        chosen.append(lambda gateway: gateway.custody.by_line(settlement, int(isp)))
    if len(chosen) > 1:
        raise CommissioningError("one of --position, --reading, --order, --tx and --line at a time")
    return chosen[0] if chosen else None


def _did(gateway: Gateway, named: str) -> str:
    record = gateway.devices.named(named)
    return named if record is None else record.did


def _render(record: CustodyRecord) -> None:
    frame, reading = record.frame, record.reading
    registers = ", ".join(f"{name} {value}" for name, value in sorted(reading.registers.items()))
    rows = [
        ("frame", f"entry {frame.position} of {record.org}, {frame.protocol} {frame.channel}, sha256 {frame.sha256}"),
        ("reading", f"{reading.did}\n{iso(reading.observed_at)}: {registers}"),
        ("entity", str(reading.entity.get("id", ""))),
    ]
    if record.proof is not None:
        window = record.proof.window
        rows.append(("window", f"{window.date} ISP {window.isp}, revision {window.revision}, root {window.root}"))
    if record.anchor is None:
        rows.append(("anchor", "not anchored yet"))
    else:
        anchor = record.anchor
        rows.append(("anchor", f"{anchor.anchor_id} over {anchor.windows} windows, root {anchor.root}"))
        rows.append(("block", f"{anchor.block.block}, transaction {anchor.block.tx_id} ({anchor.block.validation})"))
    if record.order is not None:
        counts = Counter(command.state for command in record.order.commands)
        counts["confirmed by a reading"] = sum(1 for command in record.order.commands if command.confirmed_by)
        states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()) if count) or "none here"
        rows.append(("order", f"{record.order.order_id}, block {record.order.block.block}; commands: {states}"))
    if record.settlement is not None:
        settled = record.settlement
        net = settled.line.get("net_micro_eur")
        rows.append(("settlement", f"{settled.settlement}/{settled.line['isp']} ({settled.status}): {net} µ€"))
    table("custody record", ("link", "what"), rows)


def _checked(record: CustodyRecord, checks: list[Check]) -> None:
    _render(record)
    rows = [("✓" if check.holds else "✗", check.link, check.detail) for check in checks]
    table("verified" if all(check.holds for check in checks) else "NOT verified", ("", "link", "detail"), rows)


def _reported(reports: list[AuditReport]) -> None:
    names = [name for name in asdict(reports[0]) if name not in ("org", "problems", "notices")]
    rows = [(name.replace("_", " "), *(getattr(report, name) for report in reports)) for name in names]
    title = "verified" if all(report.ok for report in reports) else "NOT verified"
    table(title, ("", *(report.org for report in reports)), rows)
    for report in reports:
        for notice in report.notices:
            err.print(f"  ! {notice}", style="yellow", markup=False, soft_wrap=True)
        for problem in report.problems:
            err.print(f"  ✗ {problem}", style="red", markup=False, soft_wrap=True)
    out.print("the ledger's own blocks: flexrelay ledger verify", markup=False)
