"""Two organisations, each with a process of its own, on one Fabric network: founded by one, joined by the other."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.fabric import CHAINCODE, describe, native

from flexrelay.founding import private_collections

ORGS = ("dso", "agga")
pytestmark = pytest.mark.timeout(1200)


def flexrelay(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("flexrelay")
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def answer(*arguments: object) -> Any:
    return json.loads(flexrelay(*arguments, "--json").stdout)


def test_one_founds_the_other_joins_and_both_run(tmp_path: Path) -> None:
    contract = {
        "name": CHAINCODE,
        "policy": {"orgs": list(ORGS), "required": 2},
        "collections": {name: {"orgs": list(members)} for name, members in private_collections(ORGS).items()},
    }
    with native(tmp_path / "net", describe(ORGS, contracts=[contract])) as network:
        dso, agga = tmp_path / "dso", tmp_path / "agga"
        founded = answer(
            "init", dso, "--network", "pilot", "--org", "dso", "--profile", f"dso={network.profile('dso')}"
        )
        assert founded["operated_here"] and founded["products"]
        again = answer("init", dso, "--network", "pilot", "--org", "dso", "--profile", f"dso={network.profile('dso')}")
        assert again["operator"] == founded["operator"]

        joined = answer(
            "init", agga, "--network", "pilot", "--org", "agga", "--profile", f"agga={network.profile('agga')}"
        )
        assert (joined["operator"], joined["operated_here"]) == (founded["operator"], False)
        refused = flexrelay("actor", "add", agga, "--org", "agga", "--label", "x", "--json", check=False)
        assert refused.returncode == 3 and "gateway_unknown" in refused.stdout

        card = tmp_path / "card.json"
        card.write_text(flexrelay("gateway", "card", agga, "--org", "agga").stdout)
        assert answer("gateway", "register", dso, card)["registered"] is True
        assert answer("gateway", "register", dso, card)["registered"] is False
        card.write_text(card.read_text().replace('"proof"', '"prove"'))
        wrong = flexrelay("gateway", "register", dso, card, check=False)
        assert wrong.returncode != 0 and "proof" in wrong.stderr

        for folder, org in ((dso, "dso"), (agga, "agga")):
            _serves(folder, org)
        other = flexrelay("run", dso, "--ledger", "embedded", check=False)
        assert other.returncode != 0 and "ledger.kind" in other.stderr


def _serves(folder: Path, org: str) -> None:
    program = Path(sys.executable).with_name("flexrelay")
    command = [program, "run", folder, "--ledger", "fabric", "--http-port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            up = json.loads(process.stdout.readline())
            assert up["organisations"] == [org]
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait(300) == 0
        finally:
            process.kill()


def test_a_profile_that_is_not_there_is_named(tmp_path: Path) -> None:
    for given, word in (("dso", "ORG=FILE"), (f"agga={tmp_path}/x", "not named"), (f"dso={tmp_path}/x", "does not")):
        done = flexrelay("init", tmp_path / "f", "--network", "pilot", "--org", "dso", "--profile", given, check=False)
        assert done.returncode != 0 and word in done.stderr.replace("\n", " "), (given, done.stderr)
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize("kind", ["fabric", "embedded"])
def test_profiles_belong_to_fabric(kind: str, tmp_path: Path) -> None:
    (tmp_path / "flexrelay.toml").write_text(
        f'network = "pilot"\npassphrase = "x"\n[ledger]\nkind = "{kind}"\n[ledger.profiles]\nother = "x.toml"\n'
        '[[gateways]]\norg = "dso"\nfolder = "dso"\n'
    )
    done = flexrelay("run", tmp_path, check=False)
    assert done.returncode != 0 and "ledger.profiles" in done.stderr
