"""Imbalance settlement: a golden day, resettlement, refusals, and the sums for any positions and readings."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.local_market import DATE, ISP, Street
from support.refusals import refused

N = 96
HASH = "0" * 64


@pytest.fixture(scope="module")
def shared() -> Street:
    return Street.start()


@pytest.fixture
def street(shared: Street) -> Any:
    with shared.scratch():
        yield shared


def at(isp: int, energy: int) -> list[int]:
    """A day with energy in one ISP."""
    result = [0] * N
    result[isp - 1] = energy
    return result


def nominate(street: Street, brp: str, energy_j: list[int]) -> None:
    street.net.call(street.brps[brp], "imbalance.nominate", date=DATE, energy_j=energy_j)


def allocate(
    street: Street, north: list[int], south: list[int], losses: list[int], run: int = 1, **changes: Any
) -> None:
    arguments: dict[str, Any] = {
        "date": DATE,
        "run": run,
        "congestion_point": "cp-1",
        "shares": [
            {"brp": street.brps["north"].did, "energy_j": north},
            {"brp": street.brps["south"].did, "energy_j": south},
        ],
        "losses_brp": street.brps["south"].did,
        "losses_j": losses,
        "transformer_j": [sum(column) for column in zip(north, south, losses, strict=True)],
        "quality": 3,
        "evidence_hash": HASH,
    }
    street.net.call(street.dso, "imbalance.allocate", **{**arguments, **changes})


def settle(street: Street, prices: list[int], run: int = 1, areas: tuple[str, ...] = ("cp-1",)) -> Any:
    return street.net.call(
        street.tso, "imbalance.settle", date=DATE, run=run, areas=list(areas), price_nano_eur_per_wh=prices
    )


def after_delivery(street: Street) -> None:
    street.net.to(street.net.day(DATE).end)


def test_golden_day_with_a_local_trade(street: Street) -> None:
    """c1 (north) sells 600 Wh to c4 (south); c1 feeds in only 500 Wh, c4 takes its 600 Wh; 10 Wh are lost.

    North: allocated −500, position −600: short by 100 Wh. South: allocated 600 + 10 of losses, position 600: short by
    10 Wh. At 200 €/MWh that is 20,000 and 2,000 µ€.
    """
    nominate(street, "north", at(1, 5000))
    nominate(street, "north", at(1, 7200))
    nominate(street, "south", at(1, 0))
    auction = street.open()
    street.order(auction, "s", "sell", "c1", 600, 10_000)
    street.order(auction, "d", "buy", "c4", 600, 10_000)
    street.close(auction)
    street.net.call(street.dso, "local_energy.clear", auction=auction)
    after_delivery(street)
    north = at(ISP, -500 * 3600)
    north[0] = 7200
    allocate(street, north, at(ISP, 600 * 3600), at(ISP, 10 * 3600))
    result = settle(street, [200_000] * N)
    assert result["cash_micro_eur"] == {street.brps["north"].did: -20_000, street.brps["south"].did: -2_000}
    assert (result["operator_cash_micro_eur"], result["rounding_micro_eur"]) == (22_000, 0)
    run = street.net.ask("imbalance.run", date=DATE, run=1)
    assert run["imbalance_j"][street.brps["north"].did] == at(ISP, 100 * 3600)
    assert run["system_imbalance_j"] == at(ISP, 110 * 3600)
    balances = street.balances()
    assert balances[f"brp:{street.brps['north'].did}"] == -20_000
    assert balances[f"imbalance:{street.tso.did}"] == 22_000
    with refused("run_settled"):
        settle(street, [200_000] * N)
    with refused("run_settled"):
        allocate(street, north, at(ISP, 0), at(ISP, 0))


def test_a_later_run_posts_the_difference_only(street: Street) -> None:
    after_delivery(street)
    allocate(street, at(3, 3600), at(3, -7200), at(3, 0))
    settle(street, [1_500] * N)  # 1.5 µ€ from north, 3 µ€ to south
    assert street.balances()[f"brp:{street.brps['north'].did}"] == -2
    assert street.balances()["rounding"] == 1  # the operator pays 1.5 µ€ net, rounded up to 2 µ€
    count = len(street.net.ledger.events)
    settle(street, [1_500] * N, run=2)
    assert not [name for name, _ in street.net.ledger.events[count:] if name == "accounts.posted"]
    allocate(street, at(3, 7200), at(3, -7200), at(3, 0), run=3, quality=1)
    settle(street, [1_500] * N, run=3)
    balances = street.balances()
    assert balances[f"brp:{street.brps['north'].did}"] == -3
    assert balances[f"brp:{street.brps['south'].did}"] == 3
    assert "rounding" not in balances or balances["rounding"] == 0
    with refused("run", "run"):
        settle(street, [0] * N, run=5)


def test_energy_that_does_not_close_is_refused(street: Street) -> None:
    after_delivery(street)
    with refused("energy_not_closed", "transformer_j.4"):
        allocate(street, at(5, 100), at(5, 200), at(5, 3), transformer_j=at(5, 302))
    with refused("isps", "losses_j"):
        allocate(street, at(5, 1), at(5, 2), at(5, 0), losses_j=[0] * (N - 1))
    with refused("missing_brp", "shares"):
        allocate(street, at(5, 1), at(5, 2), at(5, 0), shares=[{"brp": street.brps["north"].did, "energy_j": at(5, 1)}])
    twice = {"brp": street.brps["north"].did, "energy_j": at(5, 1)}
    with refused("duplicate", "shares.1.brp"):
        allocate(street, at(5, 1), at(5, 2), at(5, 0), shares=[twice, twice])
    with refused("unknown_brp", "shares.0.brp"):
        allocate(street, at(5, 1), at(5, 2), at(5, 0), shares=[{"brp": street.tso.did, "energy_j": at(5, 1)}])
    with refused("role", "losses_brp"):
        allocate(street, at(5, 1), at(5, 2), at(5, 0), losses_brp=street.tso.did)


def test_nobodys_number_keeps_the_day_from_being_settled(street: Street) -> None:
    """A nomination of 10^15 J would give amounts that nothing can hold, at a price as on a bad day, for everybody."""
    most = 10**10 * 900
    for energy in (most + 1, -most - 1, 10**15):
        with refused("energy", "energy_j.6"):
            nominate(street, "north", at(7, energy))
    nominate(street, "north", [most] * N)
    nominate(street, "south", [-most] * N)
    after_delivery(street)
    for field, values in (
        ("losses_j", [at(7, 0), at(7, 0), at(7, most + 1)]),
        ("shares.0.energy_j", [at(7, most + 1), at(7, 0), at(7, 0)]),
    ):
        with refused("energy", f"{field}.6"):
            allocate(street, *values)
    allocate(street, *[[0] * N] * 3)
    with refused("out_of_range", "price_nano_eur_per_wh"):
        settle(street, [10**9] * N)
    done = settle(street, [5_000_000] * N)  # 5,000 €/MWh
    assert sum(done["cash_micro_eur"].values()) + done["operator_cash_micro_eur"] + done["rounding_micro_eur"] == 0


def test_roles_times_and_areas_are_kept(street: Street) -> None:
    with refused("too_early", "date"):
        allocate(street, at(1, 0), at(1, 0), at(1, 0))
    with refused("role"):
        street.net.call(street.dso, "imbalance.nominate", date=DATE, energy_j=at(1, 0))
    with refused("isps", "energy_j"):
        nominate(street, "north", [0])
    after_delivery(street)
    with refused("gate_closed", "date"):
        nominate(street, "north", at(1, 0))
    other = street.net.actor("dso", org="dso")
    with refused("not_dso"):
        street.net.call(
            other,
            "imbalance.allocate",
            date=DATE,
            run=1,
            congestion_point="cp-1",
            shares=[],
            losses_brp=street.brps["north"].did,
            losses_j=[0] * N,
            transformer_j=[0] * N,
            quality=3,
            evidence_hash=HASH,
        )
    with refused("not_allocated", "areas.0"):
        settle(street, [0] * N)
    allocate(street, at(1, 1), at(1, 1), at(1, 1))
    with refused("allocated", "run"):
        allocate(street, at(1, 1), at(1, 1), at(1, 1))
    with refused("not_allocated", "areas.1"):
        settle(street, [0] * N, areas=("cp-1", "cp-2"))
    with refused("duplicate", "areas"):
        settle(street, [0] * N, areas=("cp-1", "cp-1"))
    with refused("isps", "price_nano_eur_per_wh"):
        settle(street, [0])
    with refused("role"):
        street.net.call(street.dso, "imbalance.settle", date=DATE, run=1, areas=["cp-1"], price_nano_eur_per_wh=[0] * N)
    settle(street, [0] * N)
    with refused("areas", "areas"):
        settle(street, [0] * N, run=2, areas=("cp-1", "cp-2"))
    second = street.net.actor("tso", org="agg-a")
    with refused("not_tso", "date"):
        street.net.call(second, "imbalance.settle", date=DATE, run=2, areas=["cp-1"], price_nano_eur_per_wh=[0] * N)


energies = st.lists(st.integers(-(10**9), 10**9), min_size=4, max_size=4)
prices = st.lists(st.integers(-(10**6), 10**6), min_size=4, max_size=4)


def day_of(values: list[int]) -> list[int]:
    return [*values, *[0] * (N - len(values))]


@settings(max_examples=60, deadline=None)
@given(energies, energies, st.lists(st.tuples(energies, energies, energies, prices), min_size=1, max_size=3))
def test_sums_hold_for_any_day(
    shared: Street,
    north: list[int],
    south: list[int],
    runs: list[tuple[list[int], list[int], list[int], list[int]]],
) -> None:
    """System = Σ BRPs = transformer − positions, cash as an independent formula says, nothing lost but < lines µ€."""
    with shared.scratch():
        nominate(shared, "north", day_of(north))
        nominate(shared, "south", day_of(south))
        after_delivery(shared)
        for number, (a, b, losses, price) in enumerate(runs, 1):
            allocate(shared, day_of(a), day_of(b), day_of(losses), run=number)
            settle(shared, day_of(price), run=number)
            balances = shared.balances()
            owed_north = sum((got - plan) * p for got, plan, p in zip(a, north, price, strict=True))
            owed_south = sum((x + y - plan) * p for x, y, plan, p in zip(b, losses, south, price, strict=True))
            brps = {name: balances.get(f"brp:{party.did}", 0) for name, party in shared.brps.items()}
            assert brps == {"north": -owed_north // 3_600_000, "south": -owed_south // 3_600_000}
            assert balances.get(f"imbalance:{shared.tso.did}", 0) == (owed_north + owed_south) // 3_600_000
            assert 0 <= balances.get("rounding", 0) < 3
            found = shared.net.ask("imbalance.run", date=DATE, run=number)
            for isp in range(4):
                drawn = a[isp] + b[isp] + losses[isp]
                assert found["system_imbalance_j"][isp] == drawn - north[isp] - south[isp]


def test_a_day_of_92_isps_is_settled_as_such() -> None:
    """Clocks go forward: the day has 92 quarters of an hour, and every list follows it."""
    street = Street.start()
    net = street.net
    last = net.ask("calendar.days")[-1]
    end = last["start"] + last["isps"] * last["isp_seconds"] * 1000
    short = {"date": "2016-05-26", "start": end, "isps": 92, "isp_seconds": 900, "working": True}
    assert last["date"] == "2016-05-25"
    net.call(net.operator, "calendar.publish", days=[short])
    for brp in street.brps.values():
        with refused("isps", "energy_j"):
            net.call(brp, "imbalance.nominate", date="2016-05-26", energy_j=[0] * 96)
        net.call(brp, "imbalance.nominate", date="2016-05-26", energy_j=[1000] * 92)
    net.to(end + 92 * 900_000)
    net.call(
        street.dso,
        "imbalance.allocate",
        date="2016-05-26",
        run=1,
        congestion_point="cp-1",
        shares=[{"brp": brp.did, "energy_j": [2000] * 92} for brp in street.brps.values()],
        losses_brp=street.brps["south"].did,
        losses_j=[500] * 92,
        transformer_j=[4500] * 92,
        quality=2,
        evidence_hash=HASH,
    )
    net.call(
        street.tso,
        "imbalance.settle",
        date="2016-05-26",
        run=1,
        areas=["cp-1"],
        price_nano_eur_per_wh=[3_600_000] * 92,
    )
    found = net.ask("imbalance.run", date="2016-05-26", run=1)
    assert found["system_imbalance_j"] == [2500] * 92
    assert found["cash_micro_eur"] == {
        street.brps["north"].did: -92_000,
        street.brps["south"].did: -138_000,
    }
