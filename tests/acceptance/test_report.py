"""The report's form, the golden numbers of the story, and what the run leaves in its folder."""

import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from contextlib import closing
from pathlib import Path

import pytest
from acceptance.conftest import ORGS, Run
from acceptance.golden import FILE, golden_of
from acceptance.independent.journals import anchors_of, dead_letters, read_only
from support.pilot import answer

pytestmark = pytest.mark.timeout(1800)


def test_has_every_field_of_the_published_form(run: Run) -> None:
    report = run.report
    counts = ("readings", "devices", "windows", "anchors", "ledger_transactions", "orders", "commands")
    for name in (*counts, "cash_sum_micro_eur"):
        assert type(report[name]) is int, name
    assert all(report[name] > 0 for name in counts)
    assert {name: report["disputes"][name] for name in ("opened", "resolved")} == {"opened": 2, "resolved": 2}
    assert report["ledger"]["kind"] == "embedded"
    assert report["ledger"]["verified"] is True and report["ledger"]["problems"] == []
    assert type(report["ledger"]["height"]) is int and len(bytes.fromhex(report["ledger"]["last_hash"])) == 32
    assert report["settlement"] and all(type(line["net_micro_eur"]) is int for line in report["settlement"])
    assert report["accounts"] and all(type(balance) is int for balance in report["accounts"].values())
    assert report["cash_sum_micro_eur"] == sum(report["accounts"].values()) == 0
    assert isinstance(report["custody"], dict)


def test_is_json_without_a_float(run: Run) -> None:
    """Entities carry decimal numbers (their standard's form) and are the only place that may."""

    def floats(value: object, path: str) -> list[str]:
        if isinstance(value, float):
            return [path]
        if isinstance(value, dict):
            return [found for key, item in value.items() for found in floats(item, f"{path}.{key}")]
        if isinstance(value, list):
            return [found for index, item in enumerate(value) for found in floats(item, f"{path}.{index}")]
        return []

    assert [path for path in floats(run.report, "") if not path.startswith(".custody.reading.entity.")] == []


def test_a_wins_its_dispute_and_b_loses_its_own(run: Run) -> None:
    verdicts = {item["challenger"]: item for item in run.report["disputes"]["verdicts"]}
    assert {org: item["verdict"] for org, item in verdicts.items()} == {"agg-a": "challenger", "agg-b": "respondent"}
    assert verdicts["agg-b"]["findings"]["challenger"]["rank"] < verdicts["agg-b"]["findings"]["respondent"]["rank"]


def test_counts_are_those_of_the_stores_and_the_blocks(run: Run) -> None:
    """The gateways go on while the report is written (a busy machine takes its time): each count lies between the
    story's end and the folder's."""
    report, end = run.report, run.market.days[run.market.date]["start"] + 86_400_000
    readings, windows = [0, 0], [0, 0]
    for org in ORGS:
        with closing(read_only(run.folder / org / "store.db")) as store:
            query = "SELECT sum(end_ms <= ?), count(*) FROM window_revision"
            found = store.execute(query, (end,)).fetchone()
        windows = [windows[0] + found[0], windows[1] + found[1]]
        holder = run.holders[org]
        readings[0] += sum(instant <= end for _, instant in holder.registers)
        readings[1] += len(holder.registers)
    assert readings[0] <= report["readings"] <= readings[1] < readings[0] + 10_000
    assert windows[0] <= report["windows"] <= windows[1] < windows[0] + 10_000
    told = [tx.block for tx in run.chain.calls("imbalance.settle")][-1]
    blocks = report["ledger"]["height"]
    assert told < blocks <= run.chain.height
    assert report["ledger"]["last_hash"] == run.chain.hashes[blocks - 1]
    assert report["ledger_transactions"] == sum(tx.block < blocks for tx in run.chain.transactions)
    anchors = [tx.block for tx in run.chain.calls("evidence.anchor")]
    assert sum(block <= told for block in anchors) <= report["anchors"] <= len(anchors)
    assert report["orders"] == len(run.chain.events("congestion.ordered")) == 2
    assert report["devices"] == len(run.chain.calls("identity.register_device"))
    assert report["dead_letters"] == {org: len(dead_letters(run.folder, org)) for org in ORGS}


def test_the_commands_are_the_dispatchers(run: Run) -> None:
    commands = 0
    for org in ("agg-a", "agg-b"):
        with closing(read_only(run.folder / org / "store.db")) as store:
            states = store.execute("SELECT state, count(*) FROM dispatch_command GROUP BY state").fetchall()
        assert [state for state, _ in states] == ["acked"]
        commands += states[0][1]
    assert run.report["commands"] == commands


def test_the_custody_record_is_whole(run: Run) -> None:
    custody = run.report["custody"]
    for link in ("frame", "reading", "proof", "anchor", "order", "settlement"):
        assert custody[link], link
    assert custody["order"]["commands"], "the order's device commands are part of the chain"
    line, postings = custody["settlement"]["line"], custody["settlement"]["postings"]
    assert sum(posting["micro_eur"] for posting in postings) == line["net_micro_eur"] > 0
    links = {check["link"]: check["holds"] for check in custody["checks"]}
    assert links == dict.fromkeys(links, True)
    wanted = {"frame", "signature", "reading", "entity", "inclusion", "anchor block", "order block", "settlement block"}
    assert wanted <= set(links)
    dispute = next(item for item in run.report["disputes"]["verdicts"] if item["challenger"] == "agg-a")
    assert custody["reading"]["did"] == run.report["meters"][dispute["connection"]]
    assert custody["reading"]["observed_at"] == run.market.bounds(dispute["isp"])[1]
    anchored = {place for anchor in anchors_of(run.folder, run.holders["agg-a"]) for place in anchor.instants}
    assert (custody["reading"]["did"], custody["reading"]["observed_at"]) in anchored


def test_pictures_are_there_and_are_svg(run: Run) -> None:
    for name in ("merit-order.svg", "transformer.svg"):
        root = ElementTree.parse(run.folder / name).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert len(list(root.iter())) > 20


def test_the_profiles_are_gone(run: Run) -> None:
    """They are deleted after the delivery day: what was settled came from the journals."""
    assert not (run.folder / "profiles").exists()
    assert not [path for path in run.folder.rglob("*") if "extract" in path.name]


def test_the_numbers_are_the_same_in_every_run(run: Run) -> None:
    found = json.loads(json.dumps(golden_of(run.report)))
    golden = json.loads(FILE.read_text())
    assert found.keys() == golden.keys()
    for part, value in golden.items():
        assert found[part] == value, part


def test_the_program_finds_the_same_record_by_its_line(run: Run, tmp_path: Path) -> None:
    """Behind a line's money stands a meter, not a battery that took part."""
    told = run.report["custody"]
    chosen = ("--line", f"{told['settlement']['settlement']}/{told['settlement']['line']['isp']}")
    folder = shutil.copytree(run.folder, tmp_path / "copy")
    found = answer("custody", "show", folder, "--org", told["org"], *chosen)
    assert found == {name: told[name] for name in found}


def test_the_terminal_shows_settlement_accounts_plots_and_custody(run: Run) -> None:
    if not run.output:
        pytest.skip("FLEXRELAY_DEMO_FOLDER names a run whose output is not kept")
    for text in (
        "Devices side by side",
        "MQTT",
        "LwM2M",
        "OPC UA",
        "Settlement of the congestion orders",
        "Disputes",
        "Accounts",
        "Merit order",
        "The transformer",
    ):
        assert text in run.output
    assert "Custody record" in run.output and "FAILS" not in run.output
    assert "verified from block 0" in run.output and "Traceback" not in run.output


def test_scripts_can_ask_the_ledger(run: Run, copy: Path) -> None:
    """`flexrelay ledger verify --json` of the folder says the same as the report."""
    program = Path(sys.executable).with_name("flexrelay")
    done = subprocess.run([program, "ledger", "verify", copy, "--json"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["verified"] is True and found["problems"] == []
    assert (found["height"], found["last_hash"]) == (run.chain.height, run.chain.hashes[-1])
