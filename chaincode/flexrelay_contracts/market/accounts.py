"""Accounts and postings: double entry in integer micro-euro, positive = credit; all balances sum to zero, always.

An account is a name: `actor:<did>`, `escrow:<did>:<auction>`, `bond:<did>:<dispute>`, `brp:<did>`, `fees:<did>`,
`losses:<did>`, `imbalance:<did>`, `rounding`, `external`. A balance is the sum of the records under the account's key
prefix: credits are written blind, one record per transaction, so that they never conflict; an account that is spent
from is read, compacted to one record, and stays at or above zero unless its kind may be negative.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints

from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Caller, Query, Result, Transaction
from flexrelay_contracts.state import announce, key, save, scan
from flexrelay_schemas.model import Model

EXTERNAL: Final = "external"
"""The world outside: its balance is minus the money that was brought in."""
ROUNDING: Final = "rounding"

MAY_BE_NEGATIVE: Final = frozenset({"external", "brp", "imbalance", "rounding", "losses"})

AccountId = Annotated[
    str,
    StringConstraints(
        pattern=r"^(external|rounding|(actor|escrow|bond|brp|fees|losses|imbalance):[A-Za-z0-9:._-]{1,300})$"
    ),
]


def actor_account(did: str) -> str:
    return f"actor:{did}"


def escrow_account(did: str, auction: str) -> str:
    """Held for one actor and auction: one key prefix, so that it is read before it is spent."""
    return f"escrow:{did}:{auction}"


def bond_account(did: str, dispute: str) -> str:
    return f"bond:{did}:{dispute}"


def brp_account(did: str) -> str:
    return f"brp:{did}"


def fees_account(did: str) -> str:
    return f"fees:{did}"


def imbalance_account(did: str) -> str:
    return f"imbalance:{did}"


def balance(ctx: ContractContext, account: str) -> int:
    """The committed balance in µ€. Phantom-protected: a posting in between makes this transaction conflict."""
    return sum(record["micro_eur"] for _, record in scan(ctx, "balance", account))


class Postings:
    """The transfers of one transaction: collected, then written at once by `commit` (once per transaction)."""

    def __init__(self, product: str = "") -> None:
        """`product` names the market in the journal, so that it can be shown to net to zero by itself."""
        self._product = product
        self._lines: list[dict[str, Any]] = []
        self._net: dict[str, int] = {}

    def transfer(self, debit: str, credit: str, micro_eur: int, reason: str, ref: str = "") -> None:
        """Move `micro_eur` from `debit` to `credit` (a negative amount moves the other way; zero is left out).

        `reason` is a short word (energy, penalty, escrow, …), `ref` the order, line or dispute that it belongs to.
        """
        if micro_eur < 0:
            debit, credit, micro_eur = credit, debit, -micro_eur
        if micro_eur == 0 or debit == credit:
            return
        self._net[debit] = self._net.get(debit, 0) - micro_eur
        self._net[credit] = self._net.get(credit, 0) + micro_eur
        self._lines.append({"debit": debit, "credit": credit, "micro_eur": micro_eur, "reason": reason, "ref": ref})

    def net(self) -> Mapping[str, int]:
        """Net change per account so far; sums to zero."""
        return dict(self._net)

    def commit(self, ctx: ContractContext) -> None:
        """Write the nets and the journal (event `accounts.posted`). Raises Refused('funds', …, account)."""
        for account in sorted(self._net):
            amount = self._net[account]
            if amount == 0:
                continue
            if amount > 0 or kind_of(account) in MAY_BE_NEGATIVE:
                save(ctx, key("balance", account, ctx.tx_id), {"micro_eur": amount})
            else:
                _spend(ctx, account, -amount)
        if self._lines:
            announce(ctx, "accounts.posted", {"product": self._product, "lines": self._lines})


def kind_of(account: str) -> str:
    """The part of an account's name before the first colon."""
    return account.partition(":")[0]


def _spend(ctx: ContractContext, account: str, amount: int) -> None:
    held = _compact(ctx, account)
    if held < amount:
        raise Refused("funds", f"{account} holds {held} µ€, {amount} µ€ are needed", "account")
    if held > amount:
        save(ctx, key("balance", account, ctx.tx_id), {"micro_eur": held - amount})


def _compact(ctx: ContractContext, account: str) -> int:
    """Delete the account's records; the caller writes the one that replaces them."""
    held = 0
    for parts, record in scan(ctx, "balance", account):
        held += record["micro_eur"]
        ctx.delete(key("balance", *parts))
    return held


class Move(Model):
    """Money that comes in or goes out. `reference` is the payment's, outside."""

    account: AccountId
    micro_eur: Annotated[int, Field(ge=1, le=10**13)]
    reference: Annotated[str, StringConstraints(max_length=140)] = ""


class Account(Model):
    account: AccountId


class Everything(Model):
    """No arguments."""


def _fund(ctx: ContractContext, caller: Caller, args: Move) -> Result:
    _actor_only(args.account)
    postings = Postings()
    postings.transfer(EXTERNAL, args.account, args.micro_eur, "fund", args.reference)
    postings.commit(ctx)
    return {"account": args.account, "micro_eur": args.micro_eur}


def _withdraw(ctx: ContractContext, caller: Caller, args: Move) -> Result:
    _actor_only(args.account)
    postings = Postings()
    postings.transfer(args.account, EXTERNAL, args.micro_eur, "withdraw", args.reference)
    postings.commit(ctx)
    return {"account": args.account, "micro_eur": args.micro_eur}


def _actor_only(account: str) -> None:
    if kind_of(account) in ("external", "escrow", "bond"):
        raise Refused("account_kind", f"money comes in and goes out through other accounts than {account}", "account")


def _compact_run(ctx: ContractContext, caller: Caller, args: Account) -> Result:
    held = _compact(ctx, args.account)
    if held:
        save(ctx, key("balance", args.account, ctx.tx_id), {"micro_eur": held})
    return {"account": args.account, "micro_eur": held}


def _one(ctx: ContractContext, args: Account) -> Any:
    return {"account": args.account, "micro_eur": balance(ctx, args.account)}


def _all(ctx: ContractContext, args: Everything) -> Any:
    totals: dict[str, int] = {}
    for parts, record in scan(ctx, "balance"):
        totals[parts[0]] = totals.get(parts[0], 0) + record["micro_eur"]
    return {
        "accounts": [{"account": name, "micro_eur": totals[name]} for name in sorted(totals)],
        "sum_micro_eur": sum(totals.values()),
    }


TRANSACTIONS = (
    Transaction("accounts.fund", Move, _fund, ("market_operator",)),
    Transaction("accounts.withdraw", Move, _withdraw, ("market_operator",)),
    Transaction("accounts.compact", Account, _compact_run, ("market_operator",)),
)
QUERIES = (Query("accounts.balance", Account, _one), Query("accounts.balances", Everything, _all))
