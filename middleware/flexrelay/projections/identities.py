"""Identities with their current key, and role grants by issuer."""

import json
from typing import Final

from flexrelay.projections.projector import Event, Handler, Projector, Scope


def _current(scope: Scope, event: Event) -> None:
    value = event.payload
    scope.connection.execute(
        "INSERT INTO identity (tenant, did, kind, controller, org, version, key, status, block) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, 'active', ?) ON CONFLICT (tenant, did) DO UPDATE SET "
        "version = excluded.version, key = excluded.key, status = 'active', block = excluded.block",
        (
            scope.tenant,
            value["did"],
            value["kind"],
            value.get("controller", ""),
            value.get("org", ""),
            value["version"],
            value["key"],
            event.block,
        ),
    )


def _rotated(scope: Scope, event: Event) -> None:
    """A new key; a suspended identity stays suspended until it is reinstated."""
    scope.connection.execute(
        "UPDATE identity SET version = ?, key = ?, block = ? WHERE tenant = ? AND did = ?",
        (event.payload["version"], event.payload["key"], event.block, scope.tenant, event.payload["did"]),
    )


def _status(status: str) -> Handler:
    def handler(scope: Scope, event: Event) -> None:
        scope.connection.execute(
            "UPDATE identity SET status = ?, block = ? WHERE tenant = ? AND did = ?",
            (status, event.block, scope.tenant, event.payload["did"]),
        )

    return handler


def _enrolled(scope: Scope, event: Event) -> None:
    value = event.payload
    scope.connection.execute(
        "INSERT INTO role_grant (tenant, subject, role, issuer, markets, status, block) "
        "VALUES (?, ?, ?, ?, ?, 'active', ?) ON CONFLICT (tenant, subject, role, issuer) DO UPDATE SET "
        "markets = excluded.markets, status = 'active', block = excluded.block",
        (scope.tenant, value["subject"], value["role"], value["issuer"], json.dumps(value["markets"]), event.block),
    )


def _revoked(scope: Scope, event: Event) -> None:
    value = event.payload
    scope.connection.executemany(
        "UPDATE role_grant SET status = 'revoked', block = ? WHERE tenant = ? AND subject = ? AND role = ? "
        "AND issuer = ?",
        [(event.block, scope.tenant, value["subject"], value["role"], issuer) for issuer in value["issuers"]],
    )


IDENTITIES: Final[Projector] = {
    "identity.registered": _current,
    "identity.reinstated": _current,
    "identity.rotated": _rotated,
    "identity.suspended": _status("suspended"),
    "identity.deactivated": _status("deactivated"),
}

GRANTS: Final[Projector] = {"grant.enrolled": _enrolled, "grant.revoked": _revoked}
