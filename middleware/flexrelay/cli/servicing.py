"""`flexrelay device backfill`, `device clock`: what the adapters are asked to do for a device while they run."""

from typing import Annotated

import typer

from flexrelay.app import Level
from flexrelay.cli.folder import Folder, Org, on_site
from flexrelay.cli.instant import iso, parse_instant
from flexrelay.cli.output import CHECK_FAILED, Json, explained, out, show, table
from flexrelay.commissioning.servicing import Asked, back_fill, set_clock

Wait = Annotated[float, typer.Option(min=0, max=86_400, help="Seconds to wait for the other side.")]


def backfill(
    folder: Folder,
    from_: Annotated[str, typer.Option("--from", metavar="TIME", help="Market time: ISO 8601 or UTC ms.")],
    device: Annotated[str, typer.Argument(metavar="[DEVICE]", help="Its name or its DID; or say --adapter.")] = "",
    until: Annotated[str, typer.Option(metavar="TIME", help="Not included; until now without.")] = "",
    adapter: Annotated[str, typer.Option(metavar="NAME", help="All that this adapter's other side has kept.")] = "",
    org: Org = "",
    wait: Wait = 60,
    json_: Json = False,
) -> None:
    """Read what a server or device has kept of a time. What is in the journal already is recognised and left out. The
    gateways run meanwhile, adapters included."""
    with explained(json_):
        first, end = parse_instant(from_), parse_instant(until) if until else None
    asked = Asked(device, adapter, org)
    found = on_site(folder, Level.SERVING, json_, lambda site: back_fill(site, asked, first, end, wait))

    def render() -> None:
        rows = [
            (
                each.org, each.adapter, iso(each.from_ms), iso(each.until_ms), each.filled.readings,
                each.filled.stored, each.filled.duplicates,
                ", ".join(f"{count} {reason}" for reason, count in sorted(each.filled.refused.items())) or "none",
            )
            for each in found
        ]  # fmt: skip
        columns = ("org", "adapter", "from", "until", "readings", "new", "known", "refused frames")
        table("back-filled", columns, rows)

    show([each.to_json() for each in found], json_, render)


def clock(
    folder: Folder,
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="Its name or its DID.")],
    org: Org = "",
    wait: Wait = 60,
    json_: Json = False,
) -> None:
    """Set a device's clock to UTC, and tell how far it was off. The gateways run meanwhile, adapters included."""
    told = on_site(folder, Level.SERVING, json_, lambda site: set_clock(site, device, org, wait))

    def render() -> None:
        off = "it does not tell its time" if told.offset_ms is None else f"it was {told.offset_ms:+} ms off"
        out.print(f"{device}: {off}; its clock is {'set' if told.set else 'not set: it refuses'}", markup=False)

    show(told.to_json(), json_, render)
    if not told.set:
        raise typer.Exit(CHECK_FAILED)
