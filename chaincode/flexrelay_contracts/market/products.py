"""The product registry: documents of markets, versioned; an auction pins the version that it was opened under."""

from typing import Any

from pydantic import ValidationError

from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Caller, Query, Result, Transaction
from flexrelay_contracts.state import Record, announce, key, load, need, save, scan
from flexrelay_schemas.canonical import digest
from flexrelay_schemas.model import Model
from flexrelay_schemas.product import Product, ProductId, Version


class Publish(Model):
    """`document` is a product document; it is checked as `flexrelay_schemas.product.Product`."""

    document: dict[str, Any]


class Named(Model):
    product: ProductId


class Versioned(Model):
    """`version` None: the current one."""

    product: ProductId
    version: Version | None = None


class Everything(Model):
    """No arguments."""


def current(ctx: ContractContext, product: str, field: str = "product") -> Product:
    """The product's version in force. Raises Refused('unknown_product' | 'product_retired')."""
    head = need(ctx, key("product", product), "unknown_product", f"there is no product {product}", field)
    if head["status"] != "active":
        raise Refused("product_retired", f"product {product} is {head['status']}", field)
    return at_version(ctx, product, head["version"], field)


def at_version(ctx: ContractContext, product: str, version: int, field: str = "product") -> Product:
    """One version, in force or not. Raises Refused('unknown_product')."""
    record = need(
        ctx, _key(product, version), "unknown_product", f"there is no version {version} of product {product}", field
    )
    return Product.model_validate(record["document"])


def parse_product(document: dict[str, Any]) -> Product:
    """Raises Refused('unknown_version' | 'invalid_product') with the dotted path of the field."""
    if document.get("v") != 1:
        message = f"product document version {document.get('v')!r} is not known here; known: 1"
        raise Refused("unknown_version", message, "document.v")
    try:
        return Product.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in ("document", *first["loc"]))
        raise Refused("invalid_product", first["msg"], path) from None


def _key(product: str, version: int) -> str:
    return key("product_version", product, f"{version:07d}")


def _publish(ctx: ContractContext, caller: Caller, args: Publish) -> Result:
    product = parse_product(args.document)
    caller.require_role("market_operator", product.product)
    head = load(ctx, key("product", product.product))
    following = 1 if head is None else head["version"] + 1
    if product.version != following:
        raise Refused(
            "version", f"the next version of product {product.product} is {following}, not {product.version}",
            "document.version",
        )  # fmt: skip
    document = product.model_dump()
    save(ctx, _key(product.product, product.version), {"document": document, "publisher": caller.did})
    save(ctx, key("product", product.product), {"version": product.version, "status": "active"})
    named = {"product": product.product, "version": product.version, "hash": digest(document)}
    announce(ctx, "products.published", named)
    return named


def _retire(ctx: ContractContext, caller: Caller, args: Named) -> Result:
    caller.require_role("market_operator", args.product)
    product = current(ctx, args.product)
    save(ctx, key("product", args.product), {"version": product.version, "status": "retired"})
    announce(ctx, "products.retired", {"product": args.product, "version": product.version})
    return {"product": args.product, "version": product.version, "status": "retired"}


def _one(ctx: ContractContext, args: Versioned) -> Any:
    head = need(
        ctx, key("product", args.product), "unknown_product", f"there is no product {args.product}", "product"
    )  # fmt: skip
    product = at_version(ctx, args.product, args.version or head["version"], "version")
    status = head["status"] if product.version == head["version"] else "superseded"
    return {"document": product.model_dump(mode="json"), "status": status}


def _all(ctx: ContractContext, args: Everything) -> Any:
    heads: list[tuple[tuple[str, ...], Record]] = list(scan(ctx, "product"))
    return [{"product": parts[0], "version": head["version"], "status": head["status"]} for parts, head in heads]


TRANSACTIONS = (
    Transaction("products.publish", Publish, _publish, ("market_operator",)),
    Transaction("products.retire", Named, _retire, ("market_operator",)),
)
QUERIES = (Query("products.one", Versioned, _one), Query("products.all", Everything, _all))
