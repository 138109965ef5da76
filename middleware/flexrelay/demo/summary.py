"""What a terminal shows at the end of the demo."""

from typing import Any

from flexrelay.cli.output import out, table
from flexrelay.demo.plots import TransformerDay
from flexrelay.demo.protocols import NAMES
from flexrelay.demo.run import Outcome
from flexrelay.demo.terminal import merit_order_text, transformer_text
from flexrelay_schemas.quality import Provenance


def euro(micro_eur: int) -> str:
    """µ€ as euro with six decimals."""
    sign = "-" if micro_eur < 0 else ""
    return f"{sign}{abs(micro_eur) // 1_000_000:,}.{abs(micro_eur) % 1_000_000:06d}"


def show(outcome: Outcome) -> None:
    """Settlement, accounts, plots, one custody record, and the sums."""
    report = outcome.report
    _protocols(report)
    _settlement(report)
    _disputes(report)
    _accounts(report)
    out.print("\n[bold]Merit order at the peak[/bold]")
    out.print(merit_order_text(outcome.offers, outcome.need_w), markup=False)
    out.print("\n[bold]The transformer, before and after[/bold]")
    out.print(transformer_text(outcome.day), markup=False)
    _custody(report)
    _totals(report, outcome)


def _protocols(report: dict[str, Any]) -> None:
    rows = [
        (
            NAMES[protocol],
            "\n".join(f"{count} {kind}" for kind, count in sorted(found["devices"].items())),
            "\n".join(found["organisations"]),
            f"{found['readings']:,}\n{'signed' if found['signed'] == found['readings'] else 'attested'}",
            f"{found['commands']} given\n{found['acked']} acked\n{found['confirmed']} shown",
        )
        for protocol, found in report["protocols"].items()
    ]
    columns = ("protocol", "devices", "gateways of", "readings", "commands")
    table("Devices side by side (signed by the device or attested by its gateway; shown: by a reading)", columns, rows)


def _settlement(report: dict[str, Any]) -> None:
    rows = []
    for line in report["settlement"]:
        if line["disposition"] != "requested" and not line["net_micro_eur"]:
            continue
        rows.append(
            (
                line["aggregator"],
                line["isp"],
                line["ordered_j"] // 3600,
                f"{'~' if line['quality'] < Provenance.METER_SIGNED else ''}{line['actual_j'] // 3600}",
                line["delivered_j"] // 3600,
                line["deficiency_j"] // 3600,
                euro(line["net_micro_eur"]),
                line["dispute"],
            )
        )
    columns = ("aggregator", "ISP", "ordered Wh", "metered Wh", "delivered Wh", "missing Wh", "net €", "dispute")
    table("Settlement of the congestion orders, interval by interval (~: not signed by every meter)", columns, rows)


def _disputes(report: dict[str, Any]) -> None:
    rows = [
        (
            item["dispute_id"],
            item["challenger"],
            item["connection"],
            item["isp"],
            item["claimed_j"] // 3600,
            item["verdict"],
            item["findings"]["challenger"]["code"],
            item["findings"]["respondent"]["code"],
        )
        for item in report["disputes"]["verdicts"]
    ]
    columns = ("dispute", "opened by", "battery", "ISP", "claimed Wh", "verdict for", "challenger", "respondent")
    table("Disputes, decided by the contract from evidence alone", columns, rows)


def _accounts(report: dict[str, Any]) -> None:
    rows = []
    for account, balance in report["accounts"].items():
        kind, _, did = account.partition(":")
        base = did[: did.index(":", 40)] if did.count(":") > 3 else did
        rows.append((kind, report["names"].get(base, base), euro(balance)))
    table("Accounts", ("account", "of", "€"), sorted(rows))


def _custody(report: dict[str, Any]) -> None:
    custody = report["custody"]
    rows = [(check["link"], "holds" if check["holds"] else "FAILS", check["detail"]) for check in custody["checks"]]
    table(
        f"Custody record: reading of {custody['reading']['did'][-12:]} at {custody['reading']['observed_at']}, "
        f"journal {custody['frame']['position']} → anchor {custody['anchor']['anchor_id'][:20]}… in block "
        f"{custody['anchor']['block']['block']} → {custody['settlement']['settlement']}",
        ("link", "", "what was checked"),
        rows,
    )


def _totals(report: dict[str, Any], outcome: Outcome) -> None:
    ledger = report["ledger"]
    day = outcome.day
    verified = "verified from block 0" if ledger["verified"] else "VERIFICATION FAILED"
    out.print(
        f"\n{report['readings']:,} readings of {report['devices']} devices journalled, {report['windows']:,} windows, "
        f"{report['anchors']} anchors, {report['orders']} orders, {report['commands']} commands.\n"
        f"{report['ledger_transactions']:,} ledger transactions in {ledger['height']} blocks: {verified}."
    )
    out.print(_transformer(day))
    out.print(
        f"Σ cash = {report['cash_sum_micro_eur']} µ€.  Pictures: {', '.join(str(path) for path in outcome.pictures)}"
    )
    out.print(f"Input: {outcome.attribution}", style="dim")


def _transformer(day: TransformerDay) -> str:
    """What the orders achieved, and what they did not: a forecast from past days misses a sunnier one."""
    limit = day.feed_in_limit_w
    over = [power for power in day.measured_w if power < limit]
    missed = max(known - real for known, real in zip(day.forecast_w, day.without_w, strict=True) if real < limit)
    text = (
        f"Feed-in beyond the limit of {-limit / 1000:.0f} kW: without the batteries in "
        f"{sum(power < limit for power in day.without_w)} intervals, up to {-min(day.without_w) / 1000:.1f} kW; "
        f"as measured in {len(over)}, up to {-min(day.measured_w) / 1000:.1f} kW"
    )
    if not over:
        return f"{text}."
    return (
        f"{text}: the day fed in up to {missed / 1000:.1f} kW more than any of the days that the forecast knew, "
        "and one battery failed."
    )
