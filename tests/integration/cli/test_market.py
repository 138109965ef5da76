"""`flexrelay market` on a folder: products, accounts, auctions, and one document with what belongs to it."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from support.pilot import answer, flexrelay

from flexrelay.app import Level, open_site
from flexrelay.commissioning import operator_desk
from flexrelay.config import load

Copy = Callable[[Path], Path]


def test_products(founded: Path) -> None:
    listed = answer("market", "products", founded)
    assert [item["product"] for item in listed] == ["congestion-day-ahead", "local-energy-auction"]
    one = answer("market", "products", founded, "--product", "congestion-day-ahead")
    assert one["status"] == "active" and one["document"]["clearing"] == "pay_as_bid"
    assert flexrelay("market", "products", founded, "--product", "nothing").exit_code == 3
    assert "congestion-day-ahead" in flexrelay("market", "products", founded).stdout


def test_accounts_sum_to_zero(founded: Path, copy_of: Copy) -> None:
    folder = copy_of(founded)

    async def fund() -> None:
        async with open_site(folder, load(folder), Level.ACTING) as site:
            await operator_desk(site).do("accounts.fund", {"account": "fees:x", "micro_eur": 5, "reference": "test"})

    asyncio.run(fund())
    found = answer("market", "accounts", folder)
    assert found["sum_micro_eur"] == 0
    assert {item["account"]: item["micro_eur"] for item in found["accounts"]} == {"external": -5, "fees:x": 5}


@pytest.mark.parametrize("verb", ["products", "accounts", "auctions"])
def test_an_organisation_that_is_not_there(founded: Path, verb: str) -> None:
    result = flexrelay("market", verb, founded, "--org", "nobody")
    assert result.exit_code == 2 and "has no gateway here" in result.stderr


def test_documents(founded: Path) -> None:
    assert answer("market", "auctions", founded) == []
    shown = answer("market", "show", founded, "congestion-day-ahead")
    assert (shown["kind"], shown["status"]) == ("product", "published")
    missing = flexrelay("market", "show", founded, "nothing")
    assert missing.exit_code == 2 and "there is no auction" in missing.stderr
