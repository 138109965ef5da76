"""Documents by kind and id: auctions, prognoses, offers, orders, settlements, disputes, anchors, products.

Each event names the document that it is about and merges its fields into it, so a document's body is what the events
so far have told; `status` is the newest. A new kind is one line in EVENTS.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from flexrelay.projections.projector import Event, Handler, Projector, Scope


@dataclass(frozen=True, slots=True)
class About:
    """An event is about document `kind` whose id is made of the payload's fields `ids`, joined with "/".

    `status` is the document's from then on ("": the payload's own `status`, or what it was). `under`: the fields go
    into a list of this name instead of being merged.
    """

    kind: str
    ids: tuple[str, ...]
    status: str = ""
    under: str = ""


EVENTS: Final[Mapping[str, About]] = {
    "evidence.anchored": About("anchor", ("org", "anchor_id"), "anchored"),
    "products.published": About("product", ("product",), "published"),
    "products.retired": About("product", ("product",), "retired"),
    "calendar.published": About("calendar", ("first",), "published"),
    "congestion.requested": About("auction", ("auction",), "open"),
    "congestion.gate_closed": About("auction", ("auction",), "closed"),
    "congestion.cleared": About("auction", ("auction",), "cleared"),
    "congestion.offered": About("offer", ("auction", "offer_id"), "standing"),
    "congestion.opened": About("offer", ("auction", "offer_id")),
    "congestion.revoked": About("offer", ("auction", "offer_id"), "revoked"),
    "congestion.ordered": About("order", ("order_id",), "ordered"),
    "congestion.activation": About("order", ("order_id",), under="activations"),
    "congestion.prognosed": About(
        "prognosis", ("product", "congestion_point", "date", "aggregator", "revision"), "given"
    ),
    "local_energy.opened": About("local_auction", ("auction",), "open"),
    "local_energy.gate_closed": About("local_auction", ("auction",), "closed"),
    "local_energy.cleared": About("local_auction", ("auction",), "cleared"),
    "local_energy.settled": About("local_auction", ("auction",), "settled"),
    "local_energy.ordered": About("local_order", ("auction", "order_id"), "standing"),
    "local_energy.cancelled": About("local_order", ("auction", "order_id"), "cancelled"),
    "imbalance.nominated": About("position", ("date", "brp"), "nominated"),
    "imbalance.corrected": About("correction", ("order_id",), "corrected"),
    "imbalance.allocated": About("allocation", ("date", "congestion_point", "run"), "allocated"),
    "imbalance.settled": About("imbalance", ("date", "run"), "settled"),
    "portfolio.qualified": About("qualification", ("connection", "direction", "valid_from"), "qualified"),
    "portfolio.limited": About("portfolio_limit", ("connection", "direction", "date"), "limited"),
    "settlement.proposed": About("settlement", ("settlement",), "proposed"),
    "settlement.accepted": About("settlement", ("settlement",), "accepted"),
    "settlement.final": About("settlement", ("settlement",), "final"),
    "dispute.opened": About("dispute", ("dispute_id",), "open"),
    "dispute.evidence": About("dispute", ("dispute_id",), under="shown"),
    "dispute.resolved": About("dispute", ("dispute_id",), "resolved"),
    "intent.void": About("void", ("actor", "intent_id"), "void"),
}


def _handler(about: About) -> Handler:
    def handler(scope: Scope, event: Event) -> None:
        identifier = "/".join(str(event.payload[name]) for name in about.ids)
        query = "SELECT status, body FROM document WHERE tenant = ? AND kind = ? AND id = ?"
        found = scope.connection.execute(query, (scope.tenant, about.kind, identifier)).fetchone()
        status, body = (found[0], json.loads(found[1])) if found else ("", {})
        fields = {name: value for name, value in event.payload.items() if name != "v"}
        body = _merge(body, fields, about)
        status = about.status or str(fields.get("status", status))
        scope.connection.execute(
            "INSERT INTO document (tenant, kind, id, status, body, first_block, first_tx, block, tx_id, at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, kind, id) DO UPDATE SET "
            "status = excluded.status, body = excluded.body, block = excluded.block, tx_id = excluded.tx_id, "
            "at = excluded.at",
            (
                scope.tenant,
                about.kind,
                identifier,
                status,
                json.dumps(body, sort_keys=True, ensure_ascii=False),
                event.block,
                event.tx_id,
                event.block,
                event.tx_id,
                event.at,
            ),
        )

    return handler


def _merge(body: dict[str, Any], fields: dict[str, Any], about: About) -> dict[str, Any]:
    if not about.under:
        return body | fields
    item = {name: value for name, value in fields.items() if name not in about.ids}
    return body | {about.under: [*body.get(about.under, []), item]}


DOCUMENTS: Final[Projector] = {name: _handler(about) for name, about in EVENTS.items()}
