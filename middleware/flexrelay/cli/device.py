"""`flexrelay device`: what is measured with, and whether it still may."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flexrelay.app import Level, Site
from flexrelay.cli.folder import Folder, Org, on_site
from flexrelay.cli.instant import iso, parse_instant
from flexrelay.cli.onboard import onboard_
from flexrelay.cli.output import Json, out, show, table
from flexrelay.commissioning import Device, NewDevice, declare_exchange, enrol_device, list_devices, revoke_device
from flexrelay.commissioning.devices import describe, find_device
from flexrelay.commissioning.errors import CommissioningError
from flexrelay.journal.port import DeadLetter
from flexrelay.twin.energy import Exchange

app = typer.Typer(help="Devices: enrol, look at, revoke.", no_args_is_help=True)
app.command("onboard")(onboard_)

Named = Annotated[str, typer.Argument(metavar="DEVICE", help="Its name or its DID.")]
_LETTERS = 20


@app.command("add")
def add(
    folder: Folder,
    org: Annotated[str, typer.Option(help="The organisation of the controller.")],
    name: Annotated[str, typer.Option(help="Its name at the gateways.")],
    kind: Annotated[str, typer.Option(help="meter, three_phase_meter, smart_meter, pv, battery or ev.")],
    controller: Annotated[str, typer.Option(metavar="LABEL", help="The actor that answers for it.")],
    key: Annotated[Path | None, typer.Option(help="The device's own private key (PEM); made without.")] = None,
    unsigned: Annotated[bool, typer.Option("--unsigned", help="It cannot sign: the gateway attests.")] = False,
    credential: Annotated[
        list[str] | None, typer.Option(metavar="PROTOCOL:NAME", help="Another credential, e.g. mqtt:meter-7.")
    ] = None,
    receiver: Annotated[
        list[str] | None, typer.Option(metavar="ORG", help="Who may receive it; --org without.")
    ] = None,
    json_: Json = False,
) -> None:
    """Register a device on the ledger and enrol it at its receivers' gateways; again completes what misses."""

    async def work(site: Site) -> dict[str, Any]:
        new = NewDevice(
            org, name, kind, controller, key, unsigned, _credentials(credential or []), tuple(receiver or ())
        )
        done = await enrol_device(site, new)
        return {**done.device.to_json(), "key_file": str(done.key_file), "topics": done.topics}

    done = on_site(folder, Level.ACTING, json_, work)

    def render() -> None:
        out.print(f"{name} ({kind}): {done['status']}\n{done['did']}", markup=False, soft_wrap=True)
        out.print(f"its signing key: {done['key_file']}: move it to the device", markup=False, soft_wrap=True)
        for at, topics in done["topics"].items():
            out.print(f"readings for {at}: {', '.join(topics) or 'no adapter yet'}", markup=False, soft_wrap=True)

    show(done, json_, render)


@app.command("list")
def list_(folder: Folder, org: Org = "", json_: Json = False) -> None:
    """Enrolled devices."""
    devices = on_site(folder, Level.READING, json_, lambda site: list_devices(site, org))
    rows = [(d.org, d.name, d.kind, d.status, d.key_version, iso(d.last_reading), d.did) for d in devices]
    columns = ("org", "name", "kind", "status", "key", "last reading", "DID")
    show([device.to_json() for device in devices], json_, lambda: table("devices", columns, rows))


@app.command("show")
def show_(folder: Folder, device: Named, org: Org = "", json_: Json = False) -> None:
    """Status, last reading, newest entity, newest dead letters."""

    async def work(site: Site) -> dict[str, Any]:
        gateway, record = find_device(site, device, org)
        letters: list[DeadLetter] = []
        after = 0
        while page := await gateway.journal.letters(after, 1000):
            letters += [letter for letter in page if letter.did == record.did]
            after = page[-1].letter_id
        newest = [
            {"id": item.letter_id, "reason": item.reason, "message": item.message, "received_at": item.received_at}
            for item in letters[-_LETTERS:]
        ]
        described: Device = await describe(gateway, record)
        entity = await gateway.twin.entity(record.did)
        return {**described.to_json(), "entity": entity, "dead_letters": len(letters), "newest_dead_letters": newest}

    found = on_site(folder, Level.READING, json_, work)

    def render() -> None:
        rows = [(name, _text(value)) for name, value in found.items() if name not in ("entity", "newest_dead_letters")]
        table(found["name"], ("what", "value"), rows)
        for letter in found["newest_dead_letters"]:
            out.print(f"dead letter {letter['id']}: {letter['reason']}: {letter['message']}", markup=False)
        if found["entity"]:
            out.print_json(data=found["entity"])

    show(found, json_, render)


@app.command()
def revoke(
    folder: Folder,
    device: Named,
    org: Org = "",
    reason: Annotated[str, typer.Option(help="Stands on the ledger; nothing personal.")] = "",
    json_: Json = False,
) -> None:
    """Deactivate a device for ever: nothing of it is taken or anchored from that block on."""
    done = on_site(folder, Level.ACTING, json_, lambda site: revoke_device(site, device, org, reason))
    show(done.to_json(), json_, lambda: out.print(f"{done.name}: {done.status}", markup=False))


@app.command("declare-exchange")
def exchange(
    folder: Folder,
    device: Named,
    at: Annotated[str, typer.Option(metavar="TIME", help="Market time: ISO 8601 or UTC ms.")],
    import_final: Annotated[int, typer.Option(help="Last import register of the old meter, J.")],
    import_initial: Annotated[int, typer.Option(help="First import register of the new one, J.")] = 0,
    export_final: Annotated[int, typer.Option(help="Last export register of the old meter, J.")] = 0,
    export_initial: Annotated[int, typer.Option(help="First export register of the new one, J.")] = 0,
    org: Org = "",
    json_: Json = False,
) -> None:
    """A meter was exchanged or rolled over: its registers may fall at that instant."""

    async def work(site: Site) -> list[str]:
        instant = parse_instant(at)
        if min(import_final, import_initial, export_final, export_initial) < 0:
            raise CommissioningError("registers count from 0")
        told = Exchange(instant, import_final, import_initial, export_final, export_initial)
        return await declare_exchange(site, device, told, org)

    told = on_site(folder, Level.READING, json_, work)
    show(
        {"device": device, "declared_at": told},
        json_,
        lambda: out.print(f"declared at {', '.join(told)}", markup=False),
    )


def _credentials(texts: list[str]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for text in texts:
        protocol, colon, name = text.partition(":")
        if not (protocol and colon and name):
            raise CommissioningError(f"--credential {text!r}: write PROTOCOL:NAME, e.g. mqtt:meter-7")
        pairs.append((protocol, name))
    return tuple(pairs)


def _text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(":".join(item) if isinstance(item, tuple) else str(item) for item in value)
    return "" if value is None else str(value)
