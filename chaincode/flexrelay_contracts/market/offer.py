"""Offers: an aggregator's alternatives for a request, until the gate closes.

One offer per aggregator and auction, because delivery is measured against one D-prognosis: its options are the
alternatives. What the offer could use at most is reserved at once, and its collateral goes to escrow, so that nothing
that is offered can fail for want of either. A sealed offer keeps its options private (transient input `offer`); what is
public are the hash, the reservations and the collateral. It is opened after the gate, see `opening`.

An offer's record has a status: "sealed" or "open", both standing; "void" (what it was checked for did not hold any more
when it was opened) or "unopened" (cleared without it).
"""

from hashlib import sha256
from typing import Any, Final, Literal

from pydantic import ValidationError

from flexrelay_contracts import calendar
from flexrelay_contracts.clock import market_time
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.market.accounts import Postings, actor_account, escrow_account
from flexrelay_contracts.market.auctions import Named, find, lapses_at, product_of, require_open
from flexrelay_contracts.market.options import Option, Options, check_options, collateral_micro_eur, most, powers
from flexrelay_contracts.market.prognosis import Revision, power_of, require_provider
from flexrelay_contracts.market.request import RequestedIsp, load_request
from flexrelay_contracts.market.reservations import Reservations, Slot
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
from flexrelay_contracts.runtime import MAX_INTENT_BYTES, Caller, Query, Result, Transaction
from flexrelay_contracts.state import Record, announce, key, load, need, save, scan
from flexrelay_schemas.canonical import CanonicalError, canonical, parse
from flexrelay_schemas.did import Hash
from flexrelay_schemas.intervals import CalendarDay
from flexrelay_schemas.model import Model
from flexrelay_schemas.product import Product

MAX_CONTENTS_BYTES: Final = MAX_INTENT_BYTES - 10_000
"""Sealed contents are opened by an intent that holds them."""
STANDING: Final = ("sealed", "open")


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
    check_mandates(ctx, caller.did, auction, options)

    slots = slots_of(options, day)
    reservations = Reservations(ctx, day)
    for slot, watts in slots:
        reservations.reserve(
            slot, reservation_of(args.auction, args.offer_id), watts,
            product=product.product, buyer=auction["buyer"],
        )  # fmt: skip
    reservations.commit()
    collateral = greatest_collateral(product, request, options, day.isp_seconds)
    postings = Postings(product.product)
    postings.transfer(
        actor_account(caller.did), escrow_account(caller.did, args.auction), collateral, "collateral", args.offer_id
    )
    postings.commit(ctx)

    record = {
        "aggregator": caller.did,
        "org": caller.org,
        "status": "sealed" if product.sealed else "open",
        "prognosis_revision": args.prognosis_revision,
        "options": [option.model_dump(mode="json") for option in args.options],
        "contents_hash": args.contents_hash,
        "collection": collection,
        "slots": [list(slot) for slot, _ in slots],
        "collateral_micro_eur": collateral,
        "market_ms": market_time(ctx),
    }
    save(ctx, key("offer", args.auction, args.offer_id), record)
    save(ctx, key("standing_offer", args.auction, caller.did), {"offer_id": args.offer_id})
    if product.sealed:
        put_among_members(
            ctx, collection, private_key(args.auction, args.offer_id), transient(ctx, "offer", MAX_CONTENTS_BYTES)
        )
    public = {name: record[name] for name in ("aggregator", "prognosis_revision", "options", "contents_hash")}
    announce(ctx, "congestion.offered", {"auction": args.auction, "offer_id": args.offer_id, **public})
    return {"auction": args.auction, "offer_id": args.offer_id, "collateral_micro_eur": collateral}


def _contents(ctx: ContractContext, args: Offer) -> tuple[Option, ...]:
    """The options in the transient input of a sealed offer."""
    if args.options:
        raise Refused("sealed", "options of a sealed offer are not public: send them as transient input", "options")
    if not args.contents_hash:
        raise Refused("sealed", "a sealed offer names the hash of its contents", "contents_hash")
    return parse_contents(transient(ctx, "offer", MAX_CONTENTS_BYTES), args.contents_hash).options


def parse_contents(data: bytes, contents_hash: str) -> Contents:
    """Contents that can be opened again: small enough, and in the one form that has this hash.

    Refused('too_large' | 'contents_hash' | 'invalid_argument').
    """
    if len(data) > MAX_CONTENTS_BYTES:
        raise Refused("too_large", f"contents have at most {MAX_CONTENTS_BYTES} bytes, these {len(data)}", "offer")
    if sha256(data).hexdigest() != contents_hash:
        raise Refused("contents_hash", "the contents do not have the hash that was named", "contents_hash")
    try:
        contents = Contents.model_validate(parse(data))
        if encoded(contents) != data:
            raise Refused("invalid_argument", "the contents are not the canonical JSON of all their fields", "offer")
        return contents
    except CanonicalError as error:
        raise Refused("invalid_argument", str(error), "offer") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in ("offer", *first["loc"]))
        raise Refused("invalid_argument", first["msg"], path) from None


def encoded(contents: Contents) -> bytes:
    """The bytes whose SHA-256 a sealed offer names."""
    return canonical(contents.model_dump(mode="json"))


def check_mandates(ctx: ContractContext, did: str, auction: Record, options: tuple[Option, ...]) -> None:
    """Refused('mandate' | 'congestion_point') unless the aggregator represents all connections on the delivery day."""
    seen: set[str] = set()
    for index, option in enumerate(options):
        for place, share in enumerate(option.connections):
            if share.connection not in seen:
                seen.add(share.connection)
                where = f"options.{index}.connections.{place}.connection"
                require_mandate(ctx, did, share.connection, auction["congestion_point"], auction["date"], where)


def slots_of(options: tuple[Option, ...], day: CalendarDay) -> list[tuple[Slot, list[int]]]:
    """What an offer of these options reserves: (slot, watts per ISP of the day), ordered by slot."""
    return sorted(most(options, day).items())


def greatest_collateral(
    product: Product, request: list[RequestedIsp], options: tuple[Option, ...], isp_seconds: int
) -> int:
    """The collateral of an offer, which is that of its dearest option."""
    return max(collateral_of(product, request, option, isp_seconds) for option in options)


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


def find_offer(ctx: ContractContext, auction: str, offer_id: str) -> Record:
    """Refused('unknown_offer')."""
    return need(ctx, key("offer", auction, offer_id), "unknown_offer", f"there is no offer {offer_id}", "offer_id")


def all_offers(ctx: ContractContext, auction: str) -> list[tuple[str, Record]]:
    """(offer id, record) by offer id; also those that are void."""
    return [(parts[-1], record) for parts, record in scan(ctx, "offer", auction)]


def standing_offers(ctx: ContractContext, auction: str) -> list[tuple[str, Record]]:
    """Offers that hold reservations and collateral: (offer id, record) by offer id."""
    return [(offer_id, record) for offer_id, record in all_offers(ctx, auction) if record["status"] in STANDING]


def drop_contents(ctx: ContractContext, auction: str, offer_id: str, record: Record) -> None:
    """Purge the private contents of a sealed offer; the hash stays."""
    if record["status"] == "sealed":
        ctx.purge_private(record["collection"], private_key(auction, offer_id))


def private_key(auction: str, offer_id: str) -> str:
    """Where the contents of a sealed offer lie in the collection of its two organisations."""
    return key("offer_contents", auction, offer_id)


def _revoke(ctx: ContractContext, caller: Caller, args: OfferNamed) -> Result:
    auction = _revocable(ctx, args.auction)
    record = find_offer(ctx, args.auction, args.offer_id)
    if record["aggregator"] != caller.did:
        raise Refused("not_owner", f"offer {args.offer_id} is another aggregator's", "offer_id")
    if record["status"] not in STANDING:
        raise Refused("offer_status", f"offer {args.offer_id} is {record['status']}", "offer_id")
    give_back(ctx, auction, args.auction, args.offer_id, record)
    drop_contents(ctx, args.auction, args.offer_id, record)
    ctx.delete(key("offer", args.auction, args.offer_id))
    ctx.delete(key("standing_offer", args.auction, caller.did))
    announce(ctx, "congestion.revoked", {"auction": args.auction, "offer_id": args.offer_id})
    return {"auction": args.auction, "offer_id": args.offer_id}


def _revocable(ctx: ContractContext, auction: str) -> Record:
    """The auction before its gate closes, or when it lapsed without being cleared: nobody's collateral stays behind."""
    record = find(ctx, auction)
    product = product_of(ctx, record)
    first = load_request(ctx, auction)[0].isp
    if record["status"] != "cleared" and market_time(ctx) >= lapses_at(
        product, calendar.day(ctx, record["date"]), first
    ):
        return record
    return require_open(ctx, auction)[0]


def give_back(ctx: ContractContext, auction: Record, auction_id: str, offer_id: str, record: Record) -> None:
    """Release everything that an offer holds: reservations and collateral (commits both)."""
    reservations = Reservations(ctx, calendar.day(ctx, auction["date"]))
    for connection, direction in record["slots"]:
        reservations.release((connection, direction), reservation_of(auction_id, offer_id))
    reservations.commit()
    postings = Postings(auction["product"])
    aggregator, amount = record["aggregator"], record["collateral_micro_eur"]
    escrow = escrow_account(aggregator, auction_id)
    postings.transfer(escrow, actor_account(aggregator), amount, "collateral_back", offer_id)
    postings.commit(ctx)


def _offers(ctx: ContractContext, args: Named) -> Any:
    return [{"offer_id": offer_id, **record} for offer_id, record in all_offers(ctx, args.auction)]


TRANSACTIONS: tuple[Transaction[Any], ...] = (
    Transaction("congestion.offer", Offer, _offer, PROVIDERS),
    Transaction("congestion.revoke", OfferNamed, _revoke, PROVIDERS, of_parties=True),
)
QUERIES: tuple[Query[Any], ...] = (Query("congestion.offers", Named, _offers),)
