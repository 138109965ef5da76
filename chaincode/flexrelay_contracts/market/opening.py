"""Sealed offers are opened after the gate: what bears the hash becomes public, so that anyone can check a clearing.

The aggregator opens its offer, or the buyer does: its organisation is a member of the collection in which the contents
lie. So nobody gets out of an offer by keeping silent, and no buyer leaves out an offer that its aggregator opens. What
was checked at the offer is checked again. Where it does not hold any more (a mandate ended) the offer is void and holds
nothing: the collateral goes back, because others than the aggregator write the master data.
"""

from hashlib import sha256
from typing import Any

from flexrelay_contracts import calendar
from flexrelay_contracts.clock import market_time
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.market.auctions import find, lapses_at, product_of
from flexrelay_contracts.market.offer import (
    Contents,
    OfferNamed,
    check_mandates,
    drop_contents,
    encoded,
    find_offer,
    give_back,
    greatest_collateral,
    parse_contents,
    private_key,
    slots_of,
)
from flexrelay_contracts.market.options import Options, check_options
from flexrelay_contracts.market.request import load_request
from flexrelay_contracts.market.terms import BUYERS, PROVIDERS, AuctionId, LocalId
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Caller, Query, Result, Transaction
from flexrelay_contracts.state import Record, announce, key, save
from flexrelay_schemas.did import Hash
from flexrelay_schemas.model import Model


class Opening(Model):
    """Salt and options exactly as they were sealed."""

    auction: AuctionId
    offer_id: LocalId
    salt: Hash
    options: Options


def _open(ctx: ContractContext, caller: Caller, args: Opening) -> Result:
    auction = find(ctx, args.auction)
    record = find_offer(ctx, args.auction, args.offer_id)
    if caller.did not in (record["aggregator"], auction["buyer"]):
        raise Refused("not_party", f"offer {args.offer_id} is between two others", "actor")
    _require_openable(ctx, args, auction, record)
    contents = Contents(salt=args.salt, options=args.options)
    if sha256(encoded(contents)).hexdigest() != record["contents_hash"]:
        raise Refused("contents_hash", f"this is not what offer {args.offer_id} sealed", "options")
    invalid = _invalid(ctx, args.auction, auction, record, contents)
    status = "void" if invalid else "open"
    if invalid:
        give_back(ctx, auction, args.auction, args.offer_id, record)
    opened = {
        "status": status,
        "salt": args.salt,
        "options": [option.model_dump(mode="json") for option in args.options],
        "invalid": invalid,
    }
    save(ctx, key("offer", args.auction, args.offer_id), {**record, **opened})
    drop_contents(ctx, args.auction, args.offer_id, record)
    named = {"auction": args.auction, "offer_id": args.offer_id}
    announce(ctx, "congestion.opened", {**named, **opened, "opened_by": caller.did})
    return {**named, "status": status, "invalid": invalid}


def _require_openable(ctx: ContractContext, args: Opening, auction: Record, record: Record) -> None:
    """Refused('gate_open' | 'auction_status' | 'lapsed' | 'offer_status')."""
    if auction["status"] == "open":
        raise Refused("gate_open", f"the gate of {args.auction} is not closed yet", "auction")
    if auction["status"] != "closed":
        raise Refused("auction_status", f"auction {args.auction} is {auction['status']}, not closed", "auction")
    day = calendar.day(ctx, auction["date"])
    lapses = lapses_at(product_of(ctx, auction), day, load_request(ctx, args.auction)[0].isp)
    if market_time(ctx) >= lapses:
        raise Refused("lapsed", f"auction {args.auction} lapsed at {lapses}: offers are revoked now", "auction")
    if record["status"] != "sealed":
        raise Refused("offer_status", f"offer {args.offer_id} is {record['status']}", "offer_id")


def _invalid(ctx: ContractContext, name: str, auction: Record, record: Record, contents: Contents) -> Record:
    """The first check of the offer that does not hold now ({code, message, field}); empty when all do."""
    product, day, request = product_of(ctx, auction), calendar.day(ctx, auction["date"]), load_request(ctx, name)
    try:
        check_options(product, request, contents.options)
        check_mandates(ctx, record["aggregator"], auction, contents.options)
        if [list(slot) for slot, _ in slots_of(contents.options, day)] != record["slots"]:
            raise Refused("slots", "the offer reserved something else than its options use", "options")
        collateral = greatest_collateral(product, request, contents.options, day.isp_seconds)
        if collateral != record["collateral_micro_eur"]:
            raise Refused("collateral", f"the options need a collateral of {collateral} µ€", "options")
    except Refused as refusal:
        return {"code": refusal.code, "message": refusal.message, "field": refusal.field}
    return {}


def _contents(ctx: ContractContext, args: OfferNamed) -> Any:
    """Salt and options: of a sealed offer for the members of its collection, of an opened one for everybody.

    Refused('not_sealed' | 'offer_unavailable' | 'private_not_member').
    """
    record = find_offer(ctx, args.auction, args.offer_id)
    if not record["contents_hash"]:
        raise Refused("not_sealed", f"offer {args.offer_id} never was sealed", "offer_id")
    if "salt" in record:
        return {"salt": record["salt"], "options": record["options"]}
    data = ctx.get_private(record["collection"], private_key(args.auction, args.offer_id))
    if data is None:
        raise Refused("offer_unavailable", f"the contents of offer {args.offer_id} are not here", "offer_id")
    return parse_contents(data, record["contents_hash"]).model_dump(mode="json", exclude={"v"})


TRANSACTIONS: tuple[Transaction[Any], ...] = (
    Transaction("congestion.open_offer", Opening, _open, (*BUYERS, *PROVIDERS)),
)
QUERIES: tuple[Query[Any], ...] = (Query("congestion.offer_contents", OfferNamed, _contents),)
