"""The same story on a real Fabric network: the same contracts, the same devices, the same numbers to the last µ€."""

import json
from pathlib import Path

import pytest
from acceptance.conftest import tell
from acceptance.golden import FILE, golden_of


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
