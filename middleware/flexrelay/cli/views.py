"""`flexrelay market products|accounts|auctions|show`: what the markets' contracts have on the ledger; read only."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from flexrelay.app import Gateway, Level, Site
from flexrelay.cli.folder import Folder, on_site
from flexrelay.cli.output import Json, out, show, table
from flexrelay.commissioning.actors import gateway_of
from flexrelay.commissioning.errors import CommissioningError
from flexrelay.projections.views import Document

Org = Annotated[str, typer.Option(help="Whose gateway to ask; any without.")]

_AUCTIONS = ("auction", "local_auction")
_KINDS = (*_AUCTIONS, "order", "offer", "local_order", "settlement", "dispute", "prognosis", "product")
_BELONGING = {
    "auction": ("offer", "order"),
    "local_auction": ("local_order",),
    "order": ("settlement",),
    "settlement": ("dispute",),
}
"""Kind → the kinds of documents that name it in a field `<kind>`, `auction` or `order_id`."""


def add_to(app: typer.Typer) -> None:
    """The commands, on the noun `market`."""
    for command in (products, accounts, auctions):
        app.command()(command)
    app.command("show")(show_)


def products(
    folder: Folder,
    product: Annotated[str, typer.Option(help="One product's whole document.")] = "",
    org: Org = "",
    json_: Json = False,
) -> None:
    """Products with version and status."""

    async def work(site: Site) -> Any:
        ledger = _gateway(site, org).ledger
        if product:
            return await ledger.evaluate("products.one", {"product": product})
        return await ledger.evaluate("products.all", {})

    found = on_site(folder, Level.READING, json_, work)

    def render() -> None:
        if product:
            out.print_json(json.dumps(found))
        else:
            table("products", ("product", "version", "status"), [tuple(item.values()) for item in found])

    show(found, json_, render)


def accounts(folder: Folder, org: Org = "", json_: Json = False) -> None:
    """Balances of all accounts in µ€; they sum to zero."""

    async def work(site: Site) -> Any:
        return await _gateway(site, org).ledger.evaluate("accounts.balances", {})

    found = on_site(folder, Level.READING, json_, work)
    rows = [(item["account"], item["micro_eur"]) for item in found["accounts"]]
    show(found, json_, lambda: table(f"accounts, Σ {found['sum_micro_eur']} µ€", ("account", "µ€"), rows))


def auctions(folder: Folder, org: Org = "", json_: Json = False) -> None:
    """Congestion and local auctions with their status."""

    async def work(site: Site) -> list[Document]:
        views = _gateway(site, org).views
        return [document for kind in _AUCTIONS for document in await views.documents(kind)]

    found = on_site(folder, Level.LOOKING, json_, work)
    rows = [
        (d.kind, d.id, d.status, d.body.get("product", ""), d.body.get("date", ""), d.first_block, d.block)
        for d in found
    ]
    columns = ("kind", "auction", "status", "product", "date", "opened in block", "newest block")
    show([asdict(document) for document in found], json_, lambda: table("auctions", columns, rows))


def show_(
    folder: Folder,
    id_: Annotated[str, typer.Argument(metavar="ID", help="Of an auction, order, offer, settlement or dispute.")],
    org: Org = "",
    json_: Json = False,
) -> None:
    """One document as the ledger's events tell it, what belongs to it, and the money that refers to it."""

    async def work(site: Site) -> dict[str, Any]:
        views = _gateway(site, org).views
        for kind in _KINDS:
            found = await views.document(kind, id_)
            if found is not None:
                break
        else:
            raise CommissioningError(f"there is no {', '.join(_KINDS[:-1])} or {_KINDS[-1]} {id_}")
        belonging = [
            document
            for other in _BELONGING.get(kind, ())
            for document in await views.documents(other)
            if id_ in (document.body.get(kind), document.body.get("auction"), document.body.get("order_id"))
        ]
        postings = [item for item in await views.postings() if item.ref == id_ or item.ref.startswith(f"{id_}/")]
        return {
            **asdict(found),
            "belonging": [asdict(document) for document in belonging],
            "postings": [asdict(item) for item in postings],
        }

    found = on_site(folder, Level.LOOKING, json_, work)

    def render() -> None:
        out.print(f"{found['kind']} {found['id']}: {found['status']}", markup=False, soft_wrap=True)
        out.print(f"block {found['first_block']}, transaction {found['first_tx']}", soft_wrap=True)
        out.print_json(json.dumps(found["body"]))
        if found["belonging"]:
            rows = [(d["kind"], d["id"], d["status"], d["first_block"]) for d in found["belonging"]]
            table("belonging to it", ("kind", "id", "status", "block"), rows)
        if found["postings"]:
            lines = [(p["debit"], p["credit"], p["micro_eur"], p["reason"], p["ref"]) for p in found["postings"]]
            table("postings", ("debit", "credit", "µ€", "reason", "ref"), lines)

    show(found, json_, render)


def _gateway(site: Site, org: str) -> Gateway:
    return gateway_of(site, org) if org else site.gateways[min(site.gateways)]
