"""`flexrelay device onboard` and its neighbours as a person calls them."""

import csv
import json
from pathlib import Path

import pytest
from support.pilot import answer, flexrelay, found

pytestmark = pytest.mark.timeout(300)


def test_dry_run_then_bad_rows_then_all(tmp_path: Path) -> None:
    folder, path, report = tmp_path / "pilot", tmp_path / "d.csv", tmp_path / "done.json"
    found(folder)
    answer("actor", "add", folder, "--org", "agg", "--label", "owner")
    call = ("device", "onboard", folder, path, "--org", "agg", "--controller", "owner")
    path.write_text("name,kind\nm1,meter\nm2,toaster\n")
    refused = flexrelay(*call, "--json", "--report", tmp_path / "bad.csv")
    assert refused.exit_code == 2 and "nothing was done" in refused.stderr
    (problem,) = json.loads(refused.stdout)["problems"]
    assert (problem["line"], problem["column"]) == (3, "kind")
    first, second = csv.DictReader((tmp_path / "bad.csv").read_text().splitlines())
    assert (first["line"], first["name"], first["step"], first["message"]) == ("2", "m1", "new", "")
    assert (second["line"], second["column"]) == ("3", "kind") and "'toaster'" in second["message"]
    path.write_text("name,kind\nm1,meter\nm2,pv\n")
    nowhere = flexrelay(*call, "--report", tmp_path / "nowhere" / "done.csv")
    assert nowhere.exit_code == 2 and "there is no folder" in nowhere.stderr and answer("device", "list", folder) == []
    (tmp_path / "deep.json").write_text("[" * 100_000)
    deep = flexrelay(*call, "--operations", tmp_path / "deep.json")
    assert deep.exit_code == 2 and "nested too deeply" in deep.stderr
    plan = answer(*call, "--dry-run", "--report", tmp_path / "plan.json")
    assert json.loads((tmp_path / "plan.json").read_text()) == plan
    assert (plan["new"], plan["problems"], answer("device", "list", folder)) == (2, [], [])
    done = answer(*call, "--report", report)
    assert (done["onboarded"], done["failed"]) == (2, 0) and json.loads(report.read_text()) == done
    assert answer(*call)["already"] == 2
    assert answer("device", "show", folder, "m1")["firmware"] == "unknown"
    code = answer("device", "claim-code", folder / "devices" / "agg" / "m1.pem")["claim"]
    assert code == answer("device", "claim-code", folder / "devices" / "agg" / "m1.json")["claim"]
    assert flexrelay("device", "approve", folder, "mqtt:x", "--org", "agg", "--name", "x", "--kind", "pv",
                     "--controller", "owner").exit_code == 2  # fmt: skip
