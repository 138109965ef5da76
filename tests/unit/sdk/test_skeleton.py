"""Names of new adapters."""

from pathlib import Path

import pytest

from flexrelay_sdk.skeleton import generate


@pytest.mark.parametrize("name", ["", "Solar", "1a", "a--b", "a.b", "ü", "x" * 41, "../x"])
def test_a_name_that_cannot_be_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="use lower-case letters"):
        generate(name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["modbus", "fiware-json", "opcua_pubsub"])
def test_the_name_of_an_adapter_of_flexrelay(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="flexrelay has an adapter of that name"):
        generate(name, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert (generate(f"acme-{name}", tmp_path / "new") / "pyproject.toml").is_file()
