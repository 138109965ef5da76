"""`flexrelay market` on a folder: products, accounts, auctions, and one document with what belongs to it."""

import asyncio
import json
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


def test_a_product_is_published_and_a_contradicting_one_is_refused(
    founded: Path, copy_of: Copy, tmp_path: Path
) -> None:
    folder = copy_of(founded)
    document = answer("market", "products", folder, "--product", "congestion-day-ahead")["document"]
    file = tmp_path / "product.json"
    file.write_text(json.dumps({**document, "product": "my-own"}))
    done = answer("market", "publish", folder, file)
    assert (done["product"], done["version"]) == ("my-own", 1)
    assert "my-own" in [item["product"] for item in answer("market", "products", folder)]
    again = flexrelay("market", "publish", folder, file, "--json")
    assert again.exit_code == 3 and json.loads(again.stdout)["error"]["field"] == "document.version"
    file.write_text(json.dumps({**document, "product": "bad", "min_quantity_w": document["max_quantity_w"] + 100}))
    bad = flexrelay("market", "publish", folder, file, "--json")
    assert bad.exit_code == 3 and json.loads(bad.stdout)["error"]["code"] == "invalid_product"
    file.write_text("{")
    assert flexrelay("market", "publish", folder, file).exit_code == 2
    assert flexrelay("market", "publish", folder, tmp_path / "nothing").exit_code == 2


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
