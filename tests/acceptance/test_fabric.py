"""The same story on a real Fabric network: the same contracts, the same devices, the same numbers to the last µ€."""

import json
from pathlib import Path
from typing import Any

import pytest
from acceptance.conftest import tell
from acceptance.golden import FILE, golden_of
from support.pilot import answer, flexrelay

from flexrelay.network import Network


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("version", ["3.1", pytest.param("2.5", marks=pytest.mark.soak)])
def test_the_demo_gives_the_same_numbers_on_fabric(version: str, tmp_path: Path) -> None:
    run = tell(tmp_path / "run", "--ledger", "fabric", "--fabric", version)
    found = json.loads(json.dumps(golden_of(run.report)))
    golden = json.loads(FILE.read_text())
    for part, expected in golden.items():
        assert found[part] == expected, part
    assert run.report["cash_sum_micro_eur"] == 0
    assert run.report["ledger"] | {"height": 0, "last_hash": ""} == {
        "kind": "fabric",
        "version": version,
        "height": 0,
        "last_hash": "",
        "verified": True,
        "problems": [],
    }
    assert all(check["holds"] for check in run.report["custody"]["checks"])
    assert run.report["ledger"]["height"] > 50 and len(run.report["ledger"]["last_hash"]) == 64
    auditable(run.folder, run.report)


def auditable(folder: Path, report: dict[str, Any]) -> None:
    """What the demo has left is looked into and recomputed as on the embedded ledger, once its network is up again."""
    down = flexrelay("ledger", "show", folder)
    assert down.exit_code == 4 and "no peer of the profile answers" in down.stderr
    network = Network.opened(folder / "fabric")
    network.up()
    try:
        found = answer("ledger", "verify", folder)
        assert found["verified"] and found["compared_state"] and found["executed"] > 200 and found["hash_only"]
        told = report["ledger"]  # the gateways go on while the report is written: later blocks may follow its last one
        assert found["height"] >= told["height"]
        assert answer("ledger", "show", folder, "--block", told["height"] - 1)["hash"] == told["last_hash"]
        newest = answer("ledger", "show", folder)
        assert newest["height"] == found["height"] and newest["blocks"][-1]["hash"] == found["last_hash"]
        block = answer("ledger", "show", folder, "--block", newest["height"] - 1)
        item = block["transactions"][0]
        assert len(item["orgs"]) >= 2 and {how for _, how in item["orgs"]} == {"executed"} and item["events"]
        one = answer("ledger", "show", folder, "--tx", item["tx_id"])
        assert (one["block"], one["function"]) == (block["number"], item["function"])
        assert flexrelay("ledger", "show", folder, "--tx", "00").exit_code == 2
        assert answer("custody", "verify", folder)["verified"]
        line = report["settlement"][0]
        chosen = ("--org", line["aggregator"], "--line", f"{line['settlement']}/{line['isp']}")
        record = answer("custody", "verify", folder, *chosen)
        assert record["verified"] and record["record"]["settlement"]["line"]["isp"] == line["isp"]
    finally:
        network.down()
