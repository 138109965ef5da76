"""Quantities add among themselves and with nothing else, at run time and for mypy."""

from fractions import Fraction
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mypy import api

from flexrelay_schemas.quantities import Joules, MicroEuro, NanoEuroPerWh, Vars, Watts

TYPES: list[Any] = [Watts, Vars, Joules, MicroEuro, NanoEuroPerWh]
INTEGERS = st.integers(-(2**60), 2**60)


@pytest.mark.parametrize("kind", TYPES)
@given(a=INTEGERS, b=INTEGERS, factor=st.integers(-1000, 1000))
def test_arithmetic_is_that_of_integers(kind: Any, a: int, b: int, factor: int) -> None:
    assert (kind(a) + kind(b)).value == a + b
    assert (kind(a) - kind(b)).value == a - b
    assert (-kind(a)).value == -a
    assert abs(kind(a)).value == abs(a)
    assert (kind(a) * factor).value == (factor * kind(a)).value == a * factor
    assert (kind(a) < kind(b)) == (a < b)
    assert int(kind(a)) == a
    assert bool(kind(a)) == (a != 0)
    assert type(kind(a) + kind(b)) is kind


@pytest.mark.parametrize(("left", "right"), list(permutations(TYPES, 2)))
def test_kinds_do_not_mix(left: Any, right: Any) -> None:
    for operation in (lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a < b, lambda a, b: a * b):
        with pytest.raises(TypeError):
            operation(left(1), right(1))
    assert left(1) != right(1)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("other", [1, 1.5, True, "1", None])
def test_nothing_else_is_added(kind: Any, other: Any) -> None:
    with pytest.raises(TypeError):
        kind(1) + other
    with pytest.raises(TypeError):
        other + kind(1)
    if type(other) is not int:
        with pytest.raises(TypeError):
            kind(2) * other
        with pytest.raises(TypeError):
            kind(other)


def test_frozen_and_without_further_attributes() -> None:
    watts = Watts(1)
    with pytest.raises(AttributeError):
        watts.value = 2  # type: ignore[misc]  # the point of the test
    with pytest.raises((AttributeError, TypeError)):
        watts.other = 2  # type: ignore[attr-defined]  # the point of the test


@given(st.integers(-(10**9), 10**9), st.integers(1, 100_000))
def test_energy_is_power_times_time(power: int, seconds: int) -> None:
    assert Watts(power).over(seconds) == Joules(power * seconds)
    assert Watts(power).over(3600) == Joules.from_wh(power)


@given(st.integers(-(10**9), 10**9), st.integers(-(10**15), 10**15))
def test_value_is_floored_once(price: int, energy: int) -> None:
    exact = Fraction(price * energy, 3600 * 1000)
    value = NanoEuroPerWh(price).value_of(Joules(energy)).value
    assert value <= exact < value + 1


def test_a_known_price() -> None:
    """1 €/MWh is 1000 n€/Wh: 250 kWh at 80 €/MWh cost 20 €."""
    assert NanoEuroPerWh(80_000).value_of(Joules.from_wh(250_000)) == MicroEuro(20_000_000)


MIXED = """
from flexrelay_schemas.quantities import Joules, MicroEuro, NanoEuroPerWh, Vars, Watts

good: Joules = Watts(3).over(900) + Joules(1)
also_good: MicroEuro = NanoEuroPerWh(1).value_of(good) * 2
Watts(1) + Joules(1)  # 6
Watts(1) - Vars(1)  # 7
Watts(1) + 1  # 8
Watts(1) * 1.5  # 9
Watts(1.5)  # 10
wrong: Watts = Watts(1).over(900)  # 11
NanoEuroPerWh(1).value_of(Watts(1))  # 12
Watts(1) < Joules(1)  # 13
"""


def test_mypy_refuses_the_same(tmp_path: Path) -> None:
    snippet = tmp_path / "mixed.py"
    snippet.write_text(MIXED)
    schemas = Path(__file__).parents[3] / "schemas"
    (tmp_path / "mypy.ini").write_text(f"[mypy]\nstrict = True\nmypy_path = {schemas}\n")
    options = ["--config-file", str(tmp_path / "mypy.ini"), "--cache-dir", str(tmp_path / "cache")]
    out, err, _ = api.run([*options, str(snippet)])
    lines = {int(line.split(":")[1]) for line in out.splitlines() if ": error:" in line}
    assert lines == {6, 7, 8, 9, 10, 11, 12, 13}, out + err
