"""`flexrelay market`: what-if calculations on exactly the contracts' rules, and publishing products."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from flexrelay.app import Level
from flexrelay.cli import views
from flexrelay.cli.folder import Folder, on_site
from flexrelay.cli.output import BAD_INPUT, fail, show, table
from flexrelay.cli.output import Json as JsonToo
from flexrelay.commissioning import operator_desk
from flexrelay_contracts.rules import whatif
from flexrelay_schemas.canonical import CanonicalError, parse

app = typer.Typer(help="Markets: what stands on the ledger, what-if clearing and settlement.", no_args_is_help=True)
views.add_to(app)

Document = Annotated[str, typer.Argument(metavar="FILE|-", help="A JSON document, or - for standard input.")]
Json = Annotated[bool, typer.Option(help="JSON, or a table.")]
_Rule = Callable[[Mapping[str, Any]], dict[str, Any]]


@app.command()
def clear(document: Document, json: Json = True) -> None:
    """Clear orders by uniform_double_auction or pay_as_bid; prints JSON (a table with --no-json)."""
    result = _calculate(document, whatif.clear)

    def render() -> None:
        table(
            f"volume {result['volume']}, price {result['price']}",
            ("id", "quantity", "price"),
            [(fill["id"], fill["quantity"], fill["price"]) for fill in result["fills"]],
        )

    show(result, json, render)


@app.command()
def settle(document: Document, json: Json = True) -> None:
    """Settle one line: energy delivered and missing, and the money; prints JSON (a table with --no-json)."""
    result = _calculate(document, whatif.settle)
    show(result, json, lambda: table("settlement", ("what", "value"), list(result.items())))


@app.command()
def publish(folder: Folder, document: Document, json_: JsonToo = False) -> None:
    """The operator publishes a product document, or its next version; contradicting fields are refused by name."""
    try:
        product = parse(_read(document))
    except CanonicalError as error:
        fail(f"{document}: {error}", BAD_INPUT, json_)
    done = on_site(
        folder,
        Level.ACTING,
        json_,
        lambda site: operator_desk(site).do("products.publish", {"document": product}),
    )
    published = {**done.result, "block": done.block, "tx_id": done.tx_id}
    show(published, json_, lambda: table("published", ("what", "value"), list(published.items())))


def _calculate(name: str, rule: _Rule) -> dict[str, Any]:
    data = _read(name)
    try:
        return rule(parse(data))
    except (CanonicalError, whatif.DocumentError) as error:
        fail(f"{name}: {error}", BAD_INPUT, details={"field": getattr(error, "field", "")})


def _read(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        fail(f"{name}: {error.strerror}", BAD_INPUT)
