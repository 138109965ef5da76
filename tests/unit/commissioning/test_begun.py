"""A data folder that was begun on one ledger does not go on with another."""

from pathlib import Path

import pytest

from flexrelay.commissioning import CommissioningError, NetworkPlan, found_network
from flexrelay.commissioning.network import _prepare


@pytest.fixture
def profiles(tmp_path: Path) -> tuple[Path, Path]:
    first, second = tmp_path / "dso.toml", tmp_path / "other.toml"
    first.touch()
    second.touch()
    return first, second


async def test_a_folder_goes_on_with_the_ledger_that_it_was_begun_with(
    tmp_path: Path, profiles: tuple[Path, Path]
) -> None:
    embedded = NetworkPlan("pilot", ("dso",))
    fabric, other = (NetworkPlan("pilot", ("dso",), profiles={"dso": profile}) for profile in profiles)
    for name, begun, asked in (("a", embedded, fabric), ("b", fabric, embedded), ("c", fabric, other)):
        folder = tmp_path / name
        for _ in range(2):
            _prepare(folder, begun)
        with pytest.raises(CommissioningError, match="was begun with another ledger") as caught:
            await found_network(folder, asked)
        told = f"--profile dso={profiles[0]}" if begun is fabric else "no --profile"
        assert f"give {told}, change flexrelay.toml" in str(caught.value)
        assert not (folder / "ledger").exists()
