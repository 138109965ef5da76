"""`flexrelay deadletter`: frames that were refused, with their reason and their exact bytes."""

from typing import Annotated, Any, Final

import typer

from flexrelay.app import Gateway, Level, Site
from flexrelay.cli.folder import Folder, on_site
from flexrelay.cli.instant import iso
from flexrelay.cli.output import BAD_INPUT, Json, err, out, show, table
from flexrelay.commissioning.actors import gateway_of
from flexrelay.commissioning.errors import CommissioningError
from flexrelay.ingest import redrive as send_again
from flexrelay.journal.port import DeadLetter
from flexrelay_schemas.encoding import b64u

app = typer.Typer(help="Dead letters: look at them, let them come in again.", no_args_is_help=True)

_LAST: Final = 2**63 - 1
"""No id is above it: the journal's file holds no greater number."""

Org = Annotated[str, typer.Option(help="The organisation whose gateway refused them.")]
Reason = Annotated[str, typer.Option(help="Only those with this reason.")]


@app.command("list")
def list_(
    folder: Folder,
    org: Org,
    reason: Reason = "",
    after: Annotated[int, typer.Option(min=0, max=_LAST, help="Only ids above this one.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 100,
    json_: Json = False,
) -> None:
    """Dead letters, oldest first, and how many were dropped because a bound was reached."""

    async def work(site: Site) -> dict[str, Any]:
        gateway = gateway_of(site, org)
        found = await _letters(gateway, reason, after, limit)
        count = await gateway.journal.count()
        return {**count._asdict(), "letters": [_document(gateway, letter) for letter in found]}

    found = on_site(folder, Level.LOOKING, json_, work)

    def render() -> None:
        rows = [
            (i["id"], i["reason"], i["device"] or i["credential"], _what(i), iso(i["received_at"]), i["channel"])
            for i in found["letters"]
        ]
        title = f"{found['kept']} kept ({found['kept_bytes']} bytes), {found['dropped']} dropped"
        table(title, ("id", "reason", "device", "message", "received", "channel"), rows)

    show(found, json_, render)


@app.command("show")
def show_(
    folder: Folder, letter: Annotated[int, typer.Argument(min=1, max=_LAST)], org: Org, json_: Json = False
) -> None:
    """One dead letter with its payload."""

    async def work(site: Site) -> dict[str, Any]:
        gateway = gateway_of(site, org)
        found = await gateway.journal.letter(letter)
        if found is None:
            raise CommissioningError(f"{org} has no dead letter {letter}")
        text = found.payload.decode(errors="backslashreplace")
        return {**_document(gateway, found), "payload": b64u(found.payload), "payload_text": text}

    found = on_site(folder, Level.LOOKING, json_, work)

    def render() -> None:
        rows = [(what, iso(value) if what == "received_at" else value) for what, value in found.items()]
        table(f"dead letter {letter}", ("what", "value"), rows)

    show(found, json_, render)


@app.command()
def redrive(
    folder: Folder,
    org: Org,
    letters: Annotated[
        list[int] | None, typer.Argument(metavar="ID…", min=1, max=_LAST, help="Which; or --all.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All of them, or all with --reason.")] = False,
    reason: Reason = "",
    json_: Json = False,
) -> None:
    """Let letters come in again after their cause was removed. The gateways run meanwhile, adapters included.

    Ids that there are not are named, and the exit code is 2; the others come in all the same.
    """

    async def work(site: Site) -> dict[str, Any]:
        if bool(letters) == all_:
            raise CommissioningError("name letters, or say --all (with --reason for some)")
        gateway = gateway_of(site, org)
        ids = list(dict.fromkeys(letters or ())) or [
            letter.letter_id for letter in await _letters(gateway, reason, 0, 1_000_000)
        ]
        done = await send_again(gateway.journal, gateway.ingest, gateway.codec_for, ids)
        return {
            "asked": len(ids),
            "stored": done.stored,
            "duplicate": done.duplicate,
            "refused": done.refused,
            "unknown": list(done.gone) if letters else [],
        }

    done = on_site(folder, Level.SERVING, json_, work)

    def render() -> None:
        refused = ", ".join(f"{count} {name}" for name, count in sorted(done["refused"].items())) or "none"
        out.print(f"{done['stored']} stored, {done['duplicate']} were there, refused again: {refused}", markup=False)

    show(done, json_, render)
    if unknown := done["unknown"]:
        err.print(f"flexrelay: {org} has no dead letter {', '.join(map(str, unknown))}", style="bold red", markup=False)
        raise typer.Exit(BAD_INPUT)


async def _letters(gateway: Gateway, reason: str, after: int, limit: int) -> list[DeadLetter]:
    found: list[DeadLetter] = []
    while len(found) < limit and (page := await gateway.journal.letters(after, 1000)):
        found += [letter for letter in page if reason in ("", letter.reason)]
        after = page[-1].letter_id
    return found[:limit]


def _what(letter: dict[str, Any]) -> str:
    """The message, after the field that it is about where it does not name it."""
    field, message = letter["field"], letter["message"]
    return f"{field}: {message}" if field and field not in message else str(message)


def _document(gateway: Gateway, letter: DeadLetter) -> dict[str, Any]:
    """`device`: the name under which the sender is enrolled here; empty for a stranger."""
    sender = gateway.registry.identify(letter.protocol, letter.credential)
    record = gateway.devices.get(letter.did or ("" if sender is None else sender.did))
    return {
        "id": letter.letter_id,
        "reason": letter.reason,
        "device": "" if record is None else record.name,
        "message": letter.message,
        "field": letter.field,
        "did": letter.did,
        "protocol": letter.protocol,
        "credential": letter.credential,
        "channel": letter.channel,
        "received_at": letter.received_at,
        "bytes": len(letter.payload),
    }
