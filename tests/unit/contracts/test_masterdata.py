"""Master data with effective dates: who writes what, what holds when, and how the past is corrected."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.contracts import MemoryContext, Party
from support.network import Network
from support.refusals import refused

from flexrelay_contracts import masterdata

TODAY = "2016-05-19"


@dataclass
class Grid:
    net: Network
    dso: Party
    owner: Party

    def record(self, kind: str, connection: str = "c1", by: Party | None = None, **args: Any) -> Any:
        given = {"valid_from": "2016-05-20", "valid_to": ""} | args
        return self.net.call(by or self.dso, "masterdata.record", kind=kind, connection=connection, **given)

    def at(self, kind: str, day: str, connection: str = "c1") -> Any:
        return masterdata.at(self.context(), kind, connection, day)

    def context(self) -> MemoryContext:
        return MemoryContext(self.net.ledger, "0" * 64, self.net.ledger.now, self.net.creators["dso"], {})

    def place(self, congestion_point: str = "cp-1", **change: str) -> dict[str, str]:
        return {"congestion_point": congestion_point, "dso": self.dso.did, "owner": self.owner.did} | change


@pytest.fixture
def grid() -> Grid:
    net = Network.start()
    made = Grid(net, net.actor("dso"), net.actor("prosumer", org="agg-a"))
    made.record("connection", data=made.place(), valid_from="2016-05-12")
    return made


def test_effective_dates(grid: Grid) -> None:
    one, other = grid.net.actor("brp"), grid.net.actor("brp")
    grid.record("brp", data={"brp": one.did}, valid_from="2016-05-12", valid_to="2016-05-20")
    grid.record("brp", data={"brp": other.did}, valid_from="2016-05-21")
    assert grid.at("brp", "2016-05-11") is None
    assert grid.at("brp", "2016-05-12")["brp"] == grid.at("brp", "2016-05-19")["brp"] == one.did
    assert grid.at("brp", "2016-05-20") is None
    assert grid.at("brp", "2016-05-21")["brp"] == grid.at("brp", "2030-01-01")["brp"] == other.did
    assert grid.at("brp", "2016-05-21", "c2") is None


def test_the_past_is_corrected_only_with_supersede(grid: Grid) -> None:
    one, other = grid.net.actor(), grid.net.actor()
    grid.record("supplier", data={"supplier": one.did}, valid_from="2016-05-12")
    for day in ("2016-05-01", "2016-05-12", TODAY):
        with refused("in_force", "supersede"):
            grid.record("supplier", data={"supplier": other.did}, valid_from=day)
    grid.record("supplier", data={"supplier": other.did}, valid_from="2016-05-01", valid_to="2016-05-12")
    grid.record("supplier", data={"supplier": other.did}, valid_from="2016-05-20")
    result = grid.record("supplier", data={"supplier": other.did}, valid_from="2016-05-12", supersede=True)
    assert result["revision"] == 2
    assert grid.at("supplier", TODAY)["supplier"] == other.did


def test_what_lies_ahead_may_be_changed(grid: Grid) -> None:
    one, other = grid.net.actor(), grid.net.actor()
    grid.record("mandate", data={"aggregator": one.did}, valid_from="2016-05-20")
    assert grid.record("mandate", data={"aggregator": other.did}, valid_from="2016-05-20")["revision"] == 2
    assert grid.at("mandate", "2016-05-20")["aggregator"] == other.did


def test_several_devices_behind_one_connection(grid: Grid) -> None:
    battery, pv = grid.net.device(grid.owner), grid.net.device(grid.owner)
    grid.record("device", data={"device": battery.did, "device_kind": "battery"}, valid_to="2016-05-25")
    grid.record("device", data={"device": pv.did, "device_kind": "pv"})
    found = masterdata.devices_at(grid.context(), "c1", "2016-05-20")
    assert {item["device"]: item["device_kind"] for item in found} == {battery.did: "battery", pv.did: "pv"}
    assert [item["device"] for item in masterdata.devices_at(grid.context(), "c1", "2016-05-25")] == [pv.did]


def test_who_writes(grid: Grid) -> None:
    other_dso, stranger, meter = grid.net.actor("dso"), grid.net.actor("aggregator"), grid.net.device(grid.owner)
    for by in (other_dso, stranger, grid.owner, grid.net.operator, meter):
        with refused("not_writer", "connection"):
            grid.record("meter", data={"device": meter.did}, by=by)
    for by in (other_dso, stranger, grid.owner):
        with refused("role"):
            grid.record("connection", data=grid.place(dso=by.did), by=by)
    grid.record("mandate", data={"aggregator": stranger.did}, by=grid.owner)
    with refused("not_writer"):
        grid.record("mandate", data={"aggregator": stranger.did}, by=stranger)
    with refused("role"):
        grid.record("connection", "c2", data=grid.place(), by=other_dso)
    with refused("role"):
        grid.record("connection", "c2", data=grid.place(dso=grid.owner.did), by=grid.owner)


@pytest.mark.parametrize("supersede", [False, True])
def test_an_owner_decides_about_days_to_come_only(grid: Grid, supersede: bool) -> None:
    """Neither a mandate nor a consent is changed, or invented, for a day that has begun."""
    aggregator, meter = grid.net.actor("aggregator"), grid.net.device(grid.owner)
    grid.record("meter", data={"device": meter.did}, valid_from="2016-05-12")
    for kind, data in (("mandate", {"aggregator": aggregator.did}), ("receiver", {"device": meter.did, "orgs": []})):
        for day in ("2016-05-12", TODAY):
            with refused("in_force", "valid_from"):
                grid.record(kind, data=data, by=grid.owner, valid_from=day, supersede=supersede)
        grid.record(kind, data=data, by=grid.owner, valid_from="2016-05-20", supersede=supersede)


def test_a_dso_whose_role_is_revoked_writes_nothing(grid: Grid) -> None:
    grid.net.call(grid.net.operator, "grants.revoke", subject=grid.dso.did, role="dso")
    with refused("not_writer"):
        grid.record("supplier", data={"supplier": grid.owner.did})
    with refused("role"):
        grid.record("connection", data=grid.place())


def test_a_connection_changes_hands_through_its_old_dso(grid: Grid) -> None:
    other = grid.net.actor("dso")
    with refused("role"):
        grid.record("connection", data=grid.place(dso=other.did), by=other)
    grid.record("connection", data=grid.place(dso=other.did))
    grid.record("supplier", data={"supplier": other.did}, by=other)
    with refused("not_writer"):
        grid.record("supplier", data={"supplier": other.did}, valid_from="2016-05-21")


def test_congestion_points_by_date(grid: Grid) -> None:
    grid.record("connection", "c0", data=grid.place(), valid_from="2016-05-12")
    grid.record("connection", "c1", data=grid.place("cp-2"), valid_from="2016-05-20")

    def names(point: str, day: str) -> list[str]:
        found = grid.net.ask("masterdata.connections", congestion_point=point, date=day)
        return [item["connection"] for item in found]

    assert names("cp-1", TODAY) == ["c0", "c1"]
    assert names("cp-1", "2016-05-20") == ["c0"]
    assert names("cp-2", TODAY) == []
    assert names("cp-2", "2016-05-20") == ["c1"]
    assert names("cp", TODAY) == []


def test_who_may_receive_a_devices_readings(grid: Grid) -> None:
    meter = grid.net.device(grid.owner)
    with refused("unknown_device", "data.device"):
        grid.record("receiver", data={"device": meter.did, "orgs": ["dso"]}, valid_from="2016-05-12")
    grid.record("meter", data={"device": meter.did}, valid_from="2016-05-12")
    grid.record("receiver", data={"device": meter.did, "orgs": ["dso"]}, valid_from="2016-05-12")
    grid.record("receiver", data={"device": meter.did, "orgs": ["agg-a", "dso"]}, by=grid.owner)
    assert grid.net.ask("masterdata.receivers", device=meter.did, date=TODAY) == ["dso"]
    assert grid.net.ask("masterdata.receivers", device=meter.did, date="2016-05-20") == ["agg-a", "dso"]
    assert grid.net.ask("masterdata.receivers", device=meter.did, date="2016-05-11") == []
    with refused("not_writer"):
        grid.record("receiver", data={"device": meter.did, "orgs": []}, by=grid.net.actor())


def test_another_dso_gets_at_no_meter_through_a_connection_of_its_own(grid: Grid) -> None:
    meter, other = grid.net.device(grid.owner), grid.net.actor("dso")
    grid.record("meter", data={"device": meter.did}, valid_from="2016-05-12")
    grid.record("connection", "mine", data=grid.place("cp-9", dso=other.did), by=other, valid_from="2016-05-12")
    for kind, data in (("meter", {"device": meter.did}), ("device", {"device": meter.did, "device_kind": "meter"})):
        with refused("device_elsewhere", "data.device"):
            grid.record(kind, "mine", data=data, by=other)
    with refused("unknown_device"):
        grid.record("receiver", "mine", data={"device": meter.did, "orgs": ["agg-b"]}, by=other)


def test_a_device_moves_when_it_has_left(grid: Grid) -> None:
    battery = grid.net.device(grid.owner)
    data = {"device": battery.did, "device_kind": "battery"}
    grid.record("connection", "c2", data=grid.place(), valid_from="2016-05-12")
    grid.record("device", data=data, valid_from="2016-05-20", valid_to="2016-05-25")
    with refused("device_elsewhere"):
        grid.record("device", "c2", data=data, valid_from="2016-05-24")
    with refused("device_elsewhere"):
        grid.record("device", "c2", data=data, valid_from="2016-05-15", valid_to="2016-05-21")
    grid.record("device", "c2", data=data, valid_from="2016-05-15", valid_to="2016-05-20")
    grid.record("device", "c2", data=data, valid_from="2016-05-25")


@pytest.mark.parametrize(
    ("args", "field"),
    [
        ({"kind": "brp", "data": {}}, "data.brp"),
        ({"kind": "brp", "data": {"brp": "me"}}, "data.brp"),
        ({"kind": "king", "data": {}}, "kind"),
        ({"kind": "supplier", "data": {"supplier": "OWNER", "more": 1}}, "data.more"),
        ({"kind": "supplier", "data": {"supplier": "OWNER"}, "valid_from": "2016-13-01"}, "valid_from"),
        ({"kind": "supplier", "data": {"supplier": "OWNER"}, "valid_to": "2016-05-20"}, "valid_to"),
        ({"kind": "supplier", "data": {"supplier": "OWNER"}, "connection": "a b"}, "connection"),
    ],
)
def test_bad_arguments(grid: Grid, args: dict[str, Any], field: str) -> None:
    data = {name: grid.owner.did if value == "OWNER" else value for name, value in args["data"].items()}
    with refused("invalid_argument", field):
        grid.record(**args | {"data": data})


def test_parties_are_registered_and_of_the_right_kind(grid: Grid) -> None:
    with refused("unknown_did", "data.supplier"):
        grid.record("supplier", data={"supplier": Party.new().did})
    with refused("kind", "data.supplier"):
        grid.record("supplier", data={"supplier": grid.net.gateways["dso"].did})
    with refused("kind", "data.device"):
        grid.record("meter", data={"device": grid.owner.did})


def test_an_unknown_connection(grid: Grid) -> None:
    with refused("unknown_connection"):
        grid.record("supplier", "c9", data={"supplier": grid.owner.did})


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    spans=st.lists(st.tuples(st.integers(1, 30), st.one_of(st.none(), st.integers(1, 30))), max_size=8),
    asked=st.integers(0, 60),
)
def test_what_holds_is_the_last_that_began_unless_it_ended(spans: list[tuple[int, int | None]], asked: int) -> None:
    """Against a plain model: the record with the latest beginning decides, also by its end."""
    net = Network.start(days=8)
    dso = net.actor("dso")
    grid = Grid(net, dso, dso)
    grid.record("connection", data=grid.place(), valid_from="2016-05-12")
    model: dict[int, tuple[int | None, str]] = {}
    for start, length in spans:
        end = None if length is None else start + length
        brp = net.actor()
        grid.record("brp", data={"brp": brp.did}, valid_from=day(start), valid_to="" if end is None else day(end))
        model[start] = (end, brp.did)
    begun = [start for start in model if start <= asked]
    expected = None
    if begun:
        end, did = model[max(begun)]
        expected = did if end is None or asked < end else None
    found = grid.at("brp", day(asked))
    assert (found["brp"] if found else None) == expected


def day(offset: int) -> str:
    return (date(2016, 5, 19) + timedelta(days=offset)).isoformat()


def test_nobody_hangs_a_connection_on_anothers_congestion_point(grid: Grid) -> None:
    """One foreign connection at a point keeps its operator from every market there (`not_dso`)."""
    stranger = grid.net.actor("dso", org="agg-b")
    foreign = grid.place(dso=stranger.did)
    for valid_from in ("2016-05-01", "2016-05-12", "2016-06-01"):
        with refused("not_dso", "data.congestion_point"):
            grid.record("connection", "theirs", by=stranger, data=foreign, valid_from=valid_from)
    elsewhere = grid.place("cp-9", dso=stranger.did)
    grid.record("connection", "theirs", by=stranger, data=elsewhere, valid_from="2016-05-20")
    with refused("not_dso", "data.congestion_point"):
        grid.record("connection", "theirs", by=stranger, data=foreign, valid_from="2016-05-21")
    grid.record("connection", "c2", data=grid.place(), valid_from="2016-05-20")


def test_a_point_is_taken_over_from_its_operator(grid: Grid) -> None:
    """Connection by connection; whoever takes over then records further ones there by itself."""
    heir = grid.net.actor("dso", org="agg-b")
    grid.record("connection", "c2", data=grid.place(), valid_from="2016-05-12")
    for name in ("c1", "c2"):
        grid.record("connection", name, data=grid.place(dso=heir.did), valid_from="2016-05-22")
    grid.record("connection", "c3", by=heir, data=grid.place(dso=heir.did), valid_from="2016-05-22")
    found = masterdata.connections_at(grid.context(), "cp-1", "2016-05-22")
    assert [place["dso"] for place in found] == [heir.did] * 3


def test_networks_from_before_points_had_operators_write_what_they_wrote() -> None:
    class Old(Network):
        def genesis(self, **options: Any) -> dict[str, Any]:
            return {name: value for name, value in super().genesis(**options).items() if name != "point_operators"}

    net = Old.start()
    assert "point_operators" not in net.ask("network.show")
    grid, stranger = Grid(net, net.actor("dso"), net.actor("prosumer", org="agg-a")), net.actor("dso", org="agg-b")
    grid.record("connection", data=grid.place())
    grid.record("connection", "theirs", by=stranger, data=grid.place(dso=stranger.did))
    assert not [name for name in net.ledger.state if "point_operators" in name]
