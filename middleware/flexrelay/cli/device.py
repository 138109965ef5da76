"""`flexrelay device`: what is measured with, and whether it still may."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flexrelay.app import Level, Site
from flexrelay.cli.devicecertificate import certificate, claim_code, csr
from flexrelay.cli.discovered import approve, discovered, dismiss
from flexrelay.cli.folder import Folder, Org, on_site
from flexrelay.cli.instant import iso, parse_instant
from flexrelay.cli.onboard import onboard_
from flexrelay.cli.output import Json, out, show, table
from flexrelay.cli.servicing import backfill, clock
from flexrelay.commissioning import Device, NewDevice, declare_exchange, enrol_device, list_devices, revoke_device
from flexrelay.commissioning.condition import condition_of
from flexrelay.commissioning.devices import claimed_create, describe, find_device
from flexrelay.commissioning.errors import CommissioningError
from flexrelay.twin.energy import Exchange
from flexrelay_schemas.canonical import MAX_INTEGER

app = typer.Typer(help="Devices: enrol, look at, revoke.", no_args_is_help=True)
app.command("onboard")(onboard_)
app.command("discovered")(discovered)
app.command("approve")(approve)
app.command("dismiss")(dismiss)
app.command("backfill")(backfill)
app.command("clock")(clock)
app.command("csr")(csr)
app.command("certificate")(certificate)
app.command("claim-code")(claim_code)

Named = Annotated[str, typer.Argument(metavar="DEVICE", help="Its name or its DID.")]


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
    claim: Annotated[str, typer.Option(metavar="CODE", help="The claim code printed on it; needs --operation.")] = "",
    operation: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The create operation that the device signed (or a folder).")
    ] = None,
    json_: Json = False,
) -> None:
    """Register a device on the ledger and enrol it at its receivers' gateways; again completes what misses."""

    async def work(site: Site) -> dict[str, Any]:
        if bool(claim) != (operation is not None) or (claim and key is not None):
            raise CommissioningError("--claim and --operation belong together, without --key: the device keeps its key")
        signed = None if operation is None else claimed_create(site, org, controller, claim, operation)
        new = NewDevice(
            org, name, kind, controller, key, unsigned, _credentials(credential or []), tuple(receiver or ()), signed
        )
        done = await enrol_device(site, new)
        return {
            **done.device.to_json(),
            "key_file": None if done.key_file is None else str(done.key_file),
            "topics": done.topics,
        }

    done = on_site(folder, Level.ACTING, json_, work)

    def render() -> None:
        out.print(f"{name} ({kind}): {done['status']}\n{done['did']}", markup=False, soft_wrap=True)
        if done["key_file"]:
            out.print(f"its signing key: {done['key_file']}: move it to the device", markup=False, soft_wrap=True)
        for at, topics in done["topics"].items():
            out.print(f"readings for {at}: {', '.join(topics) or 'no adapter yet'}", markup=False, soft_wrap=True)

    show(done, json_, render)


@app.command("list")
def list_(folder: Folder, org: Org = "", json_: Json = False) -> None:
    """Enrolled devices."""
    devices = on_site(folder, Level.LOOKING, json_, lambda site: list_devices(site, org))
    rows = [(d.org, d.name, d.kind, d.status, d.key_version, iso(d.last_reading), d.did) for d in devices]
    columns = ("org", "name", "kind", "status", "key", "last reading", "DID")
    show([device.to_json() for device in devices], json_, lambda: table("devices", columns, rows))


@app.command("show")
def show_(folder: Folder, device: Named, org: Org = "", json_: Json = False) -> None:
    """Status, protocol, last seen, quality, battery, maker, firmware, pending commands, dead letters, newest entity."""

    async def work(site: Site) -> dict[str, Any]:
        gateway, record = find_device(site, device, org)
        described: Device = await describe(gateway, record)
        condition = await condition_of(gateway, record)
        return {**described.to_json(), **condition.to_json(), "entity": await gateway.twin.entity(record.did)}

    found = on_site(folder, Level.LOOKING, json_, work)

    def render() -> None:
        apart = ("entity", "newest_dead_letters", "pending_commands")
        rows = [(name, _shown(name, value)) for name, value in found.items() if name not in apart]
        table(found["name"], ("what", "value"), [*rows, ("pending commands", len(found["pending_commands"]))])
        for command in found["pending_commands"]:
            until = iso(command["expires_at"])
            out.print(
                f"command {command['command_id']}: {command['name']}, {command['state']}, until {until}", markup=False
            )
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
        registers = (import_final, import_initial, export_final, export_initial)
        if min(registers) < 0 or max(registers) > MAX_INTEGER:
            raise CommissioningError(f"registers count from 0 to {MAX_INTEGER}")
        told = Exchange(instant, *registers)
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


def _shown(name: str, value: Any) -> str:
    return iso(value) if name in ("last_reading", "last_seen") and isinstance(value, int) else _text(value)


def _text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(":".join(item) if isinstance(item, tuple) else str(item) for item in value)
    return "" if value is None else str(value)
