"""`flexrelay init`: founds, goes on, refuses what is not its own."""

import stat
from pathlib import Path

import pytest
from support.pilot import answer, flexrelay

from flexrelay.config import load


def test_a_real_time_network_is_founded_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLEXRELAY_PASSPHRASE", raising=False)
    folder = tmp_path / "net"
    plan = ("init", folder, "--network", "real", "--org", "dso", "--org", "agg", "--holidays", "de")
    first = answer(*plan)
    assert first["products"] == ["congestion-day-ahead", "local-energy-auction"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    secret = folder / "secrets" / "flexrelay_passphrase"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    config = load(folder)
    assert [gateway.org for gateway in config.gateways] == ["dso", "agg"]
    assert config.http.port == 9464
    again = answer(*plan)
    assert again == first, "nothing new stands on the ledger"
    assert answer("ledger", "verify", folder)["verified"]


def test_an_interrupted_founding_goes_on(founded: Path, tmp_path: Path) -> None:
    """Every file that a founding leaves behind on its way is a state that `init` starts from."""
    folder = tmp_path / "net"
    plan = ("init", folder, "--network", "real", "--org", "dso", "--http-port", 0)
    folder.mkdir()
    (folder / ".flexrelay.toml.00.part").write_text("network")
    answer(*plan)
    before = {path.name for path in (folder / "dso" / "keys").iterdir()}
    for name in ("blocks.dat", "state.db", "private.db", "operator.key"):
        (folder / "ledger" / name).unlink()
    answer(*plan)  # the keys are there, the ledger is not: as after a crash between them
    assert {path.name for path in (folder / "dso" / "keys").iterdir()} == before
    assert answer("custody", "verify", folder)["verified"]


def test_the_passphrase_of_the_environment_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEXRELAY_PASSPHRASE", "from the environment")
    folder = tmp_path / "net"
    answer("init", folder, "--network", "real", "--org", "dso")
    assert not (folder / "secrets").exists()
    monkeypatch.delenv("FLEXRELAY_PASSPHRASE")
    result = flexrelay("actor", "list", folder)
    assert result.exit_code == 2 and "FLEXRELAY_PASSPHRASE" in result.stderr
    monkeypatch.setenv("FLEXRELAY_PASSPHRASE", "another one")
    result = flexrelay("actor", "list", folder)
    assert result.exit_code == 4 and "passphrase is wrong" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--network", "other", "--org", "dso"), "is of network pilot"),
        (("--network", "pilot", "--org", "dso"), "with dso, agg, not of pilot with dso"),
        (("--network", "Bad Name", "--org", "dso"), "network 'Bad Name'"),
        (("--network", "pilot", "--org", "secrets"), "folder of this name"),
        (("--network", "pilot", "--org", "dso", "--org", "dso"), "stands twice"),
        (("--network", "pilot", "--org", "dso", "--rate", "60"), "--simulation"),
        (("--network", "pilot", "--org", "dso", "--simulation", "--market-start", "soon"), "no ISO 8601"),
        (("--network", "pilot", "--org", "dso", "--zone", "Mars/Olympus"), "Mars/Olympus"),
        (("--network", "pilot", "--org", "dso", "--holidays", "fr"), "there is: de"),
    ],
)
def test_what_cannot_be_founded_is_said(founded: Path, arguments: tuple[str, ...], said: str) -> None:
    result = flexrelay("init", founded, *arguments)
    assert result.exit_code == 2, result.output
    assert said in result.stderr


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("important")
    result = flexrelay("init", tmp_path, "--network", "real", "--org", "dso")
    assert result.exit_code == 2 and "something else" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
