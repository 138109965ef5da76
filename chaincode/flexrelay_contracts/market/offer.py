"""Offers: an aggregator's alternatives for a request, until the gate closes.

One offer per aggregator and auction, because delivery is measured against one D-prognosis: its options are the
alternatives. What the offer could use at most is reserved at once, and its collateral goes to escrow, so that nothing
that is offered can fail for want of either. A sealed offer keeps its options private (transient input `offer`); what is
public are the hash, the reservations and the collateral.
"""

from hashlib import sha256
from typing import Any, Literal

from pydantic import ValidationError

from flexrelay_contracts import calendar
from flexrelay_contracts.clock import market_time
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.market.accounts import Postings, actor_account, escrow_account
from flexrelay_contracts.market.auctions import Named, find, lapses_at, product_of, require_open
from flexrelay_contracts.market.options import Option, Options, check_options, collateral_micro_eur, most, powers
from flexrelay_contracts.market.prognosis import Revision, power_of, require_provider
from flexrelay_contracts.market.request import RequestedIsp, load_request
from flexrelay_contracts.market.reservations import Reservations
from flexrelay_contracts.market.terms import (
    PROVIDERS,
    AuctionId,
    LocalId,
    put_among_members,
    require_mandate,
    shared_collection,
    transient,
)
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Caller, Query, Result, Transaction
from flexrelay_contracts.state import Record, announce, key, load, need, save, scan
from flexrelay_schemas.canonical import CanonicalError, canonical, parse
from flexrelay_schemas.did import Hash
from flexrelay_schemas.model import Model
from flexrelay_schemas.product import Product


class Offer(Model):
    """Open products: `options`, no `contents_hash`. Sealed: SHA-256 of the transient input `offer`, no `options`."""

    auction: AuctionId
    offer_id: LocalId
    prognosis_revision: Revision
    options: Options = ()
    contents_hash: Hash | Literal[""] = ""


class Contents(Model):
    """The transient input of a sealed offer; the salt keeps the hash from being guessed."""

    v: Literal[1] = 1
    salt: Hash
    options: Options


class OfferNamed(Model):
    auction: AuctionId
    offer_id: LocalId


def _offer(ctx: ContractContext, caller: Caller, args: Offer) -> Result:
    auction, product = require_open(ctx, args.auction)
    require_provider(caller, product.provider_roles, product.product)
    day = calendar.day(ctx, auction["date"])
    request = load_request(ctx, args.auction)
    standing = load(ctx, key("standing_offer", args.auction, caller.did))
    if standing is not None:
        raise Refused("offer_exists", f"offer {standing['offer_id']} stands; revoke it first", "offer_id")
    if load(ctx, key("offer", args.auction, args.offer_id)) is not None:
        raise Refused("offer_id", f"offer id {args.offer_id} is used in this auction", "offer_id")
    power_of(ctx, auction, caller.did, args.prognosis_revision, "prognosis_revision")
    collection = shared_collection(caller, caller.org, auction["buyer_org"]) if product.sealed else ""
    options = _contents(ctx, args) if product.sealed else args.options
    if not product.sealed and args.contents_hash:
        raise Refused("sealed", f"offers for {product.product} are open", "contents_hash")
    check_options(product, request, options)
    _check_mandates(ctx, caller.did, auction, options)

    slots = most(options, day)
    reservations = Reservations(ctx, day)
    for slot in sorted(slots):
        reservations.reserve(
            slot, reservation_of(args.auction, args.offer_id), slots[slot],
            product=product.product, buyer=auction["buyer"],
        )  # fmt: skip
    reservations.commit()
    collateral = max(collateral_of(product, request, option, day.isp_seconds) for option in options)
    postings = Postings(product.product)
    postings.transfer(
        actor_account(caller.did), escrow_account(caller.did, args.auction), collateral, "collateral", args.offer_id
    )
    postings.commit(ctx)

    record = {
        "aggregator": caller.did,
        "org": caller.org,
        "prognosis_revision": args.prognosis_revision,
        "options": [option.model_dump(mode="json") for option in args.options],
        "contents_hash": args.contents_hash,
        "collection": collection,
        "slots": [list(slot) for slot in sorted(slots)],
        "collateral_micro_eur": collateral,
        "market_ms": market_time(ctx),
    }
    save(ctx, key("offer", args.auction, args.offer_id), record)
    save(ctx, key("standing_offer", args.auction, caller.did), {"offer_id": args.offer_id})
    if product.sealed:
        put_among_members(ctx, collection, _private_key(args.auction, args.offer_id), transient(ctx, "offer"))
    public = {name: record[name] for name in ("aggregator", "prognosis_revision", "options", "contents_hash")}
    announce(ctx, "congestion.offered", {"auction": args.auction, "offer_id": args.offer_id, **public})
    return {"auction": args.auction, "offer_id": args.offer_id, "collateral_micro_eur": collateral}


def _contents(ctx: ContractContext, args: Offer) -> tuple[Option, ...]:
    """The options in the transient input of a sealed offer."""
    if args.options:
        raise Refused("sealed", "options of a sealed offer are not public: send them as transient input", "options")
    if not args.contents_hash:
        raise Refused("sealed", "a sealed offer names the hash of its contents", "contents_hash")
    return parse_contents(transient(ctx, "offer"), args.contents_hash)


def parse_contents(data: bytes, contents_hash: str) -> tuple[Option, ...]:
    """Refused('contents_hash' | 'invalid_argument')."""
    if sha256(data).hexdigest() != contents_hash:
        raise Refused("contents_hash", "the contents do not have the hash that was named", "contents_hash")
    try:
        value = parse(data)
        if canonical(value) != data:
            raise Refused("invalid_argument", "the contents are not canonical JSON", "offer")
        return Contents.model_validate(value).options
    except CanonicalError as error:
        raise Refused("invalid_argument", str(error), "offer") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in ("offer", *first["loc"]))
        raise Refused("invalid_argument", first["msg"], path) from None


def _check_mandates(ctx: ContractContext, did: str, auction: Record, options: tuple[Option, ...]) -> None:
    seen: set[str] = set()
    for index, option in enumerate(options):
        for place, share in enumerate(option.connections):
            if share.connection not in seen:
                seen.add(share.connection)
                where = f"options.{index}.connections.{place}.connection"
                require_mandate(ctx, did, share.connection, auction["congestion_point"], auction["date"], where)


def collateral_of(
    product: Product, request: list[RequestedIsp], option: Option, isp_seconds: int, percent: int = 100
) -> int:
    """The collateral of an option that is activated at `percent`."""
    energies = requested_energies(request, powers(option, percent), isp_seconds)
    return collateral_micro_eur(product, option.price_nano_eur_per_wh, energies, len(request) - len(energies))


def requested_energies(request: list[RequestedIsp], power_w: list[int], isp_seconds: int) -> list[int]:
    """Ordered energy (>= 0, joules) per requested ISP."""
    pairs = zip(request, power_w, strict=True)
    return [abs(power) * isp_seconds for asked, power in pairs if asked.disposition == "requested"]


def reservation_of(auction: str, offer_id: str) -> str:
    """The name under which an offer's connections are reserved."""
    return f"{auction}/{offer_id}"


def standing_offers(ctx: ContractContext, auction: str) -> list[tuple[str, Record]]:
    """(offer id, record) by offer id."""
    return [(parts[-1], record) for parts, record in scan(ctx, "offer", auction)]


def open_contents(ctx: ContractContext, auction: str, offer_id: str, record: Record) -> tuple[Option, ...]:
    """The options of an offer, unsealed. Refused('offer_unavailable') where the private contents did not arrive."""
    if not record["contents_hash"]:
        return tuple(Option.model_validate(option) for option in record["options"])
    data = ctx.get_private(record["collection"], _private_key(auction, offer_id))
    if data is None:
        raise Refused("offer_unavailable", f"the contents of offer {offer_id} are not here; wait or ask again")
    return parse_contents(data, record["contents_hash"])


def drop_contents(ctx: ContractContext, auction: str, offer_id: str, record: Record) -> None:
    """Purge the private contents; the hash stays."""
    if record["contents_hash"]:
        ctx.purge_private(record["collection"], _private_key(auction, offer_id))


def _private_key(auction: str, offer_id: str) -> str:
    return key("offer_contents", auction, offer_id)


def _revoke(ctx: ContractContext, caller: Caller, args: OfferNamed) -> Result:
    auction, product = _revocable(ctx, args.auction)
    name = key("offer", args.auction, args.offer_id)
    record = need(ctx, name, "unknown_offer", f"there is no offer {args.offer_id}", "offer_id")
    if record["aggregator"] != caller.did:
        raise Refused("not_owner", f"offer {args.offer_id} is another aggregator's", "offer_id")
    reservations = Reservations(ctx, calendar.day(ctx, auction["date"]))
    release_slots(reservations, args.auction, args.offer_id, record)
    reservations.commit()
    postings = Postings(product.product)
    escrow = escrow_account(caller.did, args.auction)
    amount = record["collateral_micro_eur"]
    postings.transfer(escrow, actor_account(caller.did), amount, "collateral_back", args.offer_id)
    postings.commit(ctx)
    drop_contents(ctx, args.auction, args.offer_id, record)
    ctx.delete(name)
    ctx.delete(key("standing_offer", args.auction, caller.did))
    announce(ctx, "congestion.revoked", {"auction": args.auction, "offer_id": args.offer_id})
    return {"auction": args.auction, "offer_id": args.offer_id}


def _revocable(ctx: ContractContext, auction: str) -> tuple[Record, Product]:
    """The auction before its gate closes, or when it lapsed without being cleared: nobody's collateral stays behind."""
    record = find(ctx, auction)
    product = product_of(ctx, record)
    first = load_request(ctx, auction)[0].isp
    if record["status"] != "cleared" and market_time(ctx) >= lapses_at(
        product, calendar.day(ctx, record["date"]), first
    ):
        return record, product
    return require_open(ctx, auction)


def release_slots(reservations: Reservations, auction: str, offer_id: str, record: Record) -> None:
    """Give back everything that an offer reserved."""
    for connection, direction in record["slots"]:
        reservations.release((connection, direction), reservation_of(auction, offer_id))


def _offers(ctx: ContractContext, args: Named) -> Any:
    return [{"offer_id": offer_id, **record} for offer_id, record in standing_offers(ctx, args.auction)]


TRANSACTIONS: tuple[Transaction[Any], ...] = (
    Transaction("congestion.offer", Offer, _offer, PROVIDERS),
    Transaction("congestion.revoke", OfferNamed, _revoke, PROVIDERS),
)
QUERIES: tuple[Query[Any], ...] = (Query("congestion.offers", Named, _offers),)
