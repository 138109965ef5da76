"""`flexrelay gateway`: gateways of other processes on the same ledger."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from flexrelay.app import Level, Site
from flexrelay.cli.folder import Folder, on_site
from flexrelay.cli.output import BAD_INPUT, Json, fail, out, show
from flexrelay.commissioning.actors import gateway_of
from flexrelay.commissioning.gateways import gateway_card, register_gateway

app = typer.Typer(help="Gateways of other processes on the same ledger.", no_args_is_help=True)


@app.command()
def card(folder: Folder, org: Annotated[str, typer.Option(help="The gateway's organisation.")]) -> None:
    """Print what the network's operator must know to register this folder's gateway; no secret is in it."""

    async def work(site: Site) -> dict[str, Any]:
        return await gateway_card(site, gateway_of(site, org))

    out.print_json(json.dumps(on_site(folder, Level.READING, True, work)))


@app.command()
def register(
    folder: Folder,
    card_file: Annotated[Path, typer.Argument(metavar="CARD", help="What `gateway card` printed there; - reads it.")],
    json_: Json = False,
) -> None:
    """The operator, whose key is in this folder, registers another process's gateway."""
    try:
        text = sys.stdin.read() if str(card_file) == "-" else card_file.read_text()
        document = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        fail(f"{card_file}: {error}", BAD_INPUT, json_)

    async def work(site: Site) -> dict[str, Any]:
        return await register_gateway(site, document)

    done = on_site(folder, Level.ACTING, json_, work)

    def render() -> None:
        how = "is registered" if done["registered"] else "was registered before"
        out.print(f"gateway {done['gateway']} of {done['org']} {how}", markup=False, soft_wrap=True)

    show(done, json_, render)
