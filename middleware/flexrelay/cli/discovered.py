"""`flexrelay device discovered`, `approve`, `dismiss`: what adapters found and nobody has enrolled."""

import csv
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from flexrelay.app import Level, Site
from flexrelay.cli.folder import Folder, Org, on_site
from flexrelay.cli.instant import iso
from flexrelay.cli.output import Json, explained, out, show, table
from flexrelay.commissioning.devices import NewDevice
from flexrelay.commissioning.discovery import (
    Waiting,
    approve_discovered,
    dismiss_discovered,
    list_discovered,
    to_configure,
)
from flexrelay.commissioning.errors import CommissioningError

Credential = Annotated[str, typer.Argument(metavar="PROTOCOL:CREDENTIAL", help="As `device discovered` shows it.")]


def discovered(
    folder: Folder,
    org: Org = "",
    dismissed: Annotated[bool, typer.Option("--dismissed", help="Show dismissed ones too.")] = False,
    to: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write rows to fill in for device onboard.")
    ] = None,
    json_: Json = False,
) -> None:
    """Credentials that running gateways have met and that wait for approval."""
    found = on_site(folder, Level.LOOKING, json_, lambda site: list_discovered(site, org, dismissed=dismissed))
    if to is not None:
        with explained(json_):
            _write(to, found)
    rows = [
        (org, f"{each.protocol}:{each.credential}", each.adapter, iso(each.first_seen), iso(each.last_seen))
        for org, each in ((waiting.org, waiting.found) for waiting in found)
    ]
    columns = ("org", "credential", "adapter", "first seen", "last seen")
    show([{"org": w.org, **asdict(w.found)} for w in found], json_, lambda: table("discovered", columns, rows))


def approve(
    folder: Folder,
    credential: Credential,
    org: Annotated[str, typer.Option(help="The organisation of the controller.")],
    name: Annotated[str, typer.Option(help="Its name at the gateways.")],
    kind: Annotated[str, typer.Option(help="meter, three_phase_meter, smart_meter, pv, battery or ev.")],
    controller: Annotated[str, typer.Option(metavar="LABEL", help="The actor that answers for it.")],
    signed: Annotated[bool, typer.Option("--signed", help="It signs its readings; attested without.")] = False,
    receiver: Annotated[list[str] | None, typer.Option(metavar="ORG", help="Who may receive it.")] = None,
    json_: Json = False,
) -> None:
    """Enrol a device that was discovered, under its credential."""
    protocol, at = _split(credential, json_)

    async def work(site: Site) -> dict[str, Any]:
        new = NewDevice(org, name, kind, controller, unsigned=not signed, receivers=tuple(receiver or ()))
        done = await approve_discovered(site, protocol, at, new)
        left = to_configure(site, new.receivers or (org,), protocol, at)
        return {**done.device.to_json(), "key_file": str(done.key_file), "to_configure": left}

    done = on_site(folder, Level.ACTING, json_, work)

    def told() -> None:
        out.print(f"{name} ({kind}): {done['status']}\n{done['did']}", markup=False, soft_wrap=True)
        for adapter in done["to_configure"]:
            text = f"adapter {adapter} does not read it before its configuration says how: add {at} to its devices"
            out.print(text, markup=False, soft_wrap=True)

    show(done, json_, told)


def dismiss(
    folder: Folder,
    credential: Credential,
    org: Annotated[str, typer.Option(help="The organisation whose gateway is meant.")],
    json_: Json = False,
) -> None:
    """Do not show a discovered credential again."""
    protocol, at = _split(credential, json_)
    on_site(folder, Level.READING, json_, lambda site: dismiss_discovered(site, org, protocol, at))
    show({"org": org, "dismissed": credential}, json_, lambda: out.print(f"{credential}: dismissed", markup=False))


def _split(credential: str, json_: bool) -> tuple[str, str]:
    protocol, colon, at = credential.partition(":")
    with explained(json_):
        if not (protocol and colon and at):
            raise CommissioningError(f"{credential!r}: write PROTOCOL:CREDENTIAL, e.g. lwm2m:meter-7")
    return protocol, at


def _write(path: Path, found: list[Waiting]) -> None:
    """One row a credential; kind and controller are for somebody to fill in."""
    rows: dict[tuple[str, str], list[str]] = {}
    for each in found:
        rows.setdefault((each.found.protocol, each.found.credential), []).append(each.org)
    with path.open("x", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("name", "kind", "org", "controller", "protocol", "credential", "receivers", "unsigned"))
        for (protocol, credential), orgs in rows.items():
            name = re.sub(r"[^A-Za-z0-9._-]+", "-", credential).strip("-._")[:64]
            writer.writerow((name, "", orgs[0], "", protocol, credential, " ".join(orgs), "yes"))
