"""Postings and balances: every line of `accounts.posted`, and the sum per account in µ€ (all sum to zero)."""

from typing import Final

from flexrelay.projections.projector import Event, Projector, Scope

_POSTING = (
    "INSERT INTO posting (tenant, sequence, line, product, debit, credit, micro_eur, reason, ref) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_BALANCE = (
    "INSERT INTO balance (tenant, account, micro_eur) VALUES (?, ?, ?) "
    "ON CONFLICT (tenant, account) DO UPDATE SET micro_eur = micro_eur + excluded.micro_eur"
)


def _posted(scope: Scope, event: Event) -> None:
    product = event.payload["product"]
    for number, line in enumerate(event.payload["lines"], 1):
        debit, credit, amount = line["debit"], line["credit"], line["micro_eur"]
        row = (scope.tenant, event.sequence, number, product, debit, credit, amount, line["reason"], line["ref"])
        scope.connection.execute(_POSTING, row)
        scope.connection.execute(_BALANCE, (scope.tenant, debit, -amount))
        scope.connection.execute(_BALANCE, (scope.tenant, credit, amount))


MONEY: Final[Projector] = {"accounts.posted": _posted}
