"""`flexrelay market`: what-if calculations on exactly the contracts' rules."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from flexrelay.cli import views
from flexrelay.cli.output import BAD_INPUT, fail, show, table
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


def _calculate(name: str, rule: _Rule) -> dict[str, Any]:
    if name == "-":
        data = sys.stdin.buffer.read()
    else:
        try:
            data = Path(name).read_bytes()
        except OSError as error:
            fail(f"{name}: {error.strerror}", BAD_INPUT)
    try:
        return rule(parse(data))
    except (CanonicalError, whatif.DocumentError) as error:
        fail(f"{name}: {error}", BAD_INPUT, details={"field": getattr(error, "field", "")})
