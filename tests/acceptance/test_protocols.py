"""Three protocols side by side: each carries readings in and commands back, and none of it moves the money."""

import json
from collections import Counter
from contextlib import closing

import pytest
from acceptance.conftest import ORGS, Run
from acceptance.independent.journals import read_only

pytestmark = pytest.mark.timeout(1800)

LINES = {"s1": "mqtt", "s2": "opcua", "s3": "lwm2m", "s4": "lwm2m", "s5": "opcua"}
FAILING = "s2"


def _org(run: Run, name: str) -> str:
    return "agg-a" if run.market.portfolio(run.market.aggregator[name])[0] == "s1" else "agg-b"


def test_each_protocol_has_devices_readings_and_commands_to_the_end(run: Run) -> None:
    found = run.report["protocols"]
    assert list(found) == ["mqtt", "lwm2m", "opcua"]
    assert {name: entry["devices"] for name, entry in found.items()} == {
        "mqtt": {"battery": 1, "meter": 18, "pv": 8},
        "lwm2m": {"battery": 2},
        "opcua": {"battery": 2},
    }
    assert sum(sum(entry["devices"].values()) for entry in found.values()) == run.report["devices"]
    assert sum(entry["readings"] for entry in found.values()) == run.report["readings"]
    assert sum(entry["commands"] for entry in found.values()) == run.report["commands"]
    for name, entry in found.items():
        assert entry["readings"] > 0 and entry["acked"] == entry["commands"] > 0, name
        assert entry["signed"] == (entry["readings"] if name == "mqtt" else 0), name
        # what the failed battery was told after its failure is acknowledged, and nothing shows it
        assert 0 < entry["confirmed"] <= entry["commands"], name
        assert (entry["confirmed"] < entry["commands"]) == (name == LINES[FAILING]), name


def test_the_counts_are_the_journals_and_the_dispatchers(run: Run) -> None:
    end = run.market.days[run.market.date]["start"] + 86_400_000
    least: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for org in ORGS:
        holder = run.holders[org]
        for place in holder.registers:
            protocol = holder.attested.get(place, "mqtt")
            most[protocol] += 1
            least[protocol] += place[1] <= end
    for protocol, entry in run.report["protocols"].items():
        assert least[protocol] <= entry["readings"] <= most[protocol], protocol
    commands: Counter[str] = Counter()
    names = {device: name for name, device in run.market.control.items()}
    for org in ("agg-a", "agg-b"):
        with closing(read_only(run.folder / org / "store.db")) as store:
            commands.update(LINES[names[did]] for (did,) in store.execute("SELECT did FROM dispatch_command"))
    assert commands == {protocol: entry["commands"] for protocol, entry in run.report["protocols"].items()}


def test_what_a_battery_tells_is_what_its_meter_signs(run: Run) -> None:
    """To the joule, in every interval of the day, over LwM2M's watt-hours and OPC UA's integers alike."""
    start, end = run.market.days[run.market.date]["start"], run.market.bounds(96)[1]
    for name, protocol in LINES.items():
        holder = run.holders[_org(run, name)]
        battery, meter = run.market.control[name], run.market.meter[name]
        assert (battery == meter) == (protocol == "mqtt"), name
        compared = 0
        for instant in range(start, end + 1, 900_000):
            if (battery, instant) not in holder.registers:
                continue
            assert holder.attested.get((battery, instant), "mqtt") == protocol
            told, signed = holder.registers[battery, instant], holder.registers[meter, instant]
            assert {key: told[key] for key in ("import_j", "export_j", "power_w")} == {
                key: signed[key] for key in ("import_j", "export_j", "power_w")
            }, (name, instant)
            compared += 1
        # the barrier promises the newest one; LwM2M and MQTT answer each by itself, so there no instant is missing;
        # an OPC UA server has only the newest when a busy machine comes late
        assert compared == 97 if protocol != "opcua" else compared > 8, name


def test_instants_of_unsigned_readings_are_boundaries_of_isps(run: Run) -> None:
    start = run.market.days[run.market.date]["start"]
    for holder in run.holders.values():
        assert [place for place in holder.attested if (place[1] - start) % 900_000] == []


def test_nothing_is_settled_from_what_no_device_has_signed(run: Run) -> None:
    meters = set(run.report["meters"].values())
    for org in ORGS:
        devices = {device for device, _ in run.holders[org].attested}
        assert devices.isdisjoint(meters)
        assert devices == {
            run.market.control[name] for name in LINES if LINES[name] != "mqtt" and _org(run, name) == org
        }


def test_the_gateways_know_each_battery_by_its_name_on_its_protocol(run: Run) -> None:
    for name, protocol in LINES.items():
        with closing(read_only(run.folder / _org(run, name) / "store.db")) as store:
            query = "SELECT name, credentials, unsigned FROM device WHERE did = ?"
            label, credentials, unsigned = store.execute(query, (run.market.control[name],)).fetchone()
        assert label == f"battery-{name}"
        assert [spoken for spoken, _ in json.loads(credentials)] == ([] if protocol == "mqtt" else [protocol])
        assert bool(unsigned) == (protocol != "mqtt")
