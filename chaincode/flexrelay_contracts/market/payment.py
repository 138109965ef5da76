"""The transfers of a settlement: out of the escrows in its first run, the differences between the actors afterwards."""

from flexrelay_contracts.market.accounts import ROUNDING, Postings, actor_account, escrow_account
from flexrelay_contracts.state import Record


def pay(postings: Postings, order: Record, record: Record, held: int) -> int:
    """Out of the escrows, which end without anything of this order; the result is what the provider could not pay.

    A response in the wrong direction may cost more than the collateral: the rest comes from what the provider `held`
    and earns here. What is missing even then is written off in this ledger's accounts and stands in the record.
    """
    buyer, provider = actor_account(order["buyer"]), actor_account(order["aggregator"])
    buyer_escrow = escrow_account(order["buyer"], order["auction"])
    provider_escrow = escrow_account(order["aggregator"], order["auction"])
    earned = charged = 0
    for line in record["lines"]:
        ref = f"{order['order_id']}/{line['isp']}"
        if line["net_micro_eur"] >= 0:
            postings.transfer(buyer_escrow, provider, line["net_micro_eur"], "delivery", ref)
            earned += line["net_micro_eur"]
        else:
            postings.transfer(provider_escrow, buyer_escrow, -line["net_micro_eur"], "penalty", ref)
            charged -= line["net_micro_eur"]
    name, rounding = order["order_id"], record["buyer_micro_eur"] - record["provider_micro_eur"]
    beyond = max(charged - order["collateral_micro_eur"], 0)
    unpaid: int = max(beyond - max(held, 0) - earned, 0)
    postings.transfer(provider, provider_escrow, beyond - unpaid, "penalty_beyond_collateral", name)
    postings.transfer(buyer_escrow, provider_escrow, unpaid, "unpaid", name)
    back = max(order["collateral_micro_eur"] - charged, 0)
    postings.transfer(provider_escrow, provider, back, "collateral_back", name)
    postings.transfer(buyer_escrow, ROUNDING, rounding, "rounding", name)
    rest = order["buyer_escrow_micro_eur"] - record["buyer_micro_eur"] - unpaid
    postings.transfer(buyer_escrow, buyer, rest, "escrow_back", name)
    return unpaid


def pay_difference(postings: Postings, order: Record, before: Record, after: Record) -> int:
    """From actor to actor: what changed since the run before; the result is what the provider still has not paid.

    What was written off is set off against what the provider gets now: nobody gets back what it never paid.
    """
    buyer, provider = actor_account(order["buyer"]), actor_account(order["aggregator"])
    for old, new in zip(before["lines"], after["lines"], strict=True):
        ref = f"{order['order_id']}/{new['isp']}"
        postings.transfer(buyer, provider, new["net_micro_eur"] - old["net_micro_eur"], "resettlement", ref)
    rounding = [r["buyer_micro_eur"] - r["provider_micro_eur"] for r in (before, after)]
    postings.transfer(buyer, ROUNDING, rounding[1] - rounding[0], "rounding", order["order_id"])
    unpaid: int = before.get("unpaid_micro_eur", 0)
    set_off: int = min(unpaid, max(after["provider_micro_eur"] - before["provider_micro_eur"], 0))
    postings.transfer(provider, buyer, set_off, "unpaid_set_off", order["order_id"])
    return unpaid - set_off
