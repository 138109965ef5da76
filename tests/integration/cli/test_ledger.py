"""`flexrelay ledger`: verify names the place of damage, show answers while nothing is opened for writing."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support.pilot import answer, flexrelay

Copy = Callable[[Path], Path]


def test_a_good_ledger_verifies(populated: Path) -> None:
    report = answer("ledger", "verify", populated)
    assert report["verified"] and report["problems"] == [] and report["compared_state"]
    assert report["executed"] >= 8
    assert answer("ledger", "show", populated)["height"] == report["height"]
    result = flexrelay("ledger", "verify", populated)
    assert result.exit_code == 0 and "verified" in result.stdout


def test_blocks_and_transactions_are_shown(populated: Path) -> None:
    newest = answer("ledger", "show", populated)["blocks"]
    assert newest[-1]["previous_hash"] == newest[-2]["hash"]
    block = answer("ledger", "show", populated, "--block", newest[-1]["number"])
    item = block["transactions"][0]
    one = answer("ledger", "show", populated, "--tx", item["tx_id"])
    assert (one["block"], one["validation"]) == (block["number"], "VALID")
    assert {key: value for key, value in one.items() if key not in ("block", "block_hash")} == item
    text = flexrelay("ledger", "show", populated, "--block", block["number"]).stdout
    assert "endorsed by" in text and item["tx_id"] in text and f"event {item['events'][0][0]}" in text
    genesis = answer("ledger", "show", populated, "--block", 0)["transactions"][0]["genesis"]
    assert [org["name"] for org in genesis["organisations"]] == ["agg", "dso"]


@pytest.mark.parametrize("arguments", [("--block", "9999"), ("--tx", "00")])
def test_what_is_not_there_is_bad_input(populated: Path, arguments: tuple[str, str]) -> None:
    result = flexrelay("ledger", "show", populated, *arguments, "--json")
    assert result.exit_code == 2 and "there is no" in json.loads(result.stdout)["error"]["message"]


def test_a_flipped_byte_is_named_with_block_and_offset(populated: Path, copy_of: Copy) -> None:
    folder = copy_of(populated)
    path = folder / "ledger" / "blocks.dat"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    result = flexrelay("ledger", "verify", folder)
    assert result.exit_code == 1 and "NOT verified" in result.stdout
    assert "blocks.dat, block " in result.stderr and " at byte " in result.stderr
    assert flexrelay("custody", "verify", folder).exit_code == 1, "opening it finds the same"
    assert flexrelay("ledger", "show", folder).exit_code == 0, "what is whole before it can be looked at"


def test_a_changed_state_is_found(populated: Path, copy_of: Copy) -> None:
    folder = copy_of(populated)
    with closing(sqlite3.connect(folder / "ledger" / "state.db", isolation_level=None)) as database:
        database.execute("UPDATE state SET value = CAST(replace(value, 'active', 'passive') AS BLOB)")
    result = flexrelay("ledger", "verify", folder, "--json")
    assert result.exit_code == 1
    assert {problem["file"] for problem in json.loads(result.stdout)["problems"]} == {"state.db"}


def test_a_folder_without_a_ledger_is_said(founded: Path, copy_of: Copy, tmp_path: Path) -> None:
    folder = copy_of(founded)
    (folder / "ledger" / "blocks.dat").unlink()
    for verb in ("verify", "show"):
        result = flexrelay("ledger", verb, folder)
        assert result.exit_code == 4 and "blocks.dat is missing" in result.stderr
    result = flexrelay("ledger", "verify", tmp_path)
    assert result.exit_code == 2 and "flexrelay init" in result.stderr
