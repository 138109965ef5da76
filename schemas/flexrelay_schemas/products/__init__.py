"""The product documents that ship with flexrelay, as JSON files beside this one."""

from importlib.resources import files
from typing import Final

from flexrelay_schemas.canonical import parse
from flexrelay_schemas.product import Product

INDEX: Final = ("congestion-day-ahead", "local-energy-auction")
"""Names of the documents; the file of a product is `<name>.json`."""


def load(name: str) -> Product:
    """The shipped product `name` of INDEX. Raises KeyError for another name."""
    if name not in INDEX:
        raise KeyError(f"no product document {name!r} ships with flexrelay; there are {', '.join(INDEX)}")
    return Product.model_validate(parse(files(__name__).joinpath(f"{name}.json").read_bytes()))


def load_all() -> tuple[Product, ...]:
    """All shipped products in the order of INDEX."""
    return tuple(load(name) for name in INDEX)
