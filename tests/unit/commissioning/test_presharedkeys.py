"""Keys and accounts are written as the LwM2M adapter reads them; what stands there stays."""

from pathlib import Path

import pytest

from flexrelay.commissioning.errors import CommissioningError
from flexrelay.commissioning.onboarding.presharedkeys import Account, KeyBook, Places, unfit_key
from flexrelay_adapters.lwm2m.bootstrap import read_accounts
from flexrelay_adapters.lwm2m.dtls.keys import KeyFile

URI = "coaps://gateway.example:5684"


def test_what_is_written_the_adapter_reads(tmp_path: Path) -> None:
    one, two = tmp_path / "one.psk", tmp_path / "two.psk"
    boot = tmp_path / "boot.json"
    one.write_text("# by hand\nold:0011223344556677")
    both, alone = Places((one, two), (boot,)), Places((one,), (boot,))
    book = KeyBook([both])
    wanted = [(Account(f"m-{n}", bootstrap=f"b-{n}"), both) for n in range(50)]
    book.write([*wanted, (Account("given", key="aabbccddeeff0011"), alone)], URI)
    first, second = KeyFile(one), KeyFile(two)
    assert len(first) == 102 and len(second) == 100
    assert first.find("old") == bytes.fromhex("0011223344556677") and first.find("given") == bytes.fromhex(
        "aabbccddeeff0011"
    )
    assert all(first.find(f"m-{n}") == second.find(f"m-{n}") for n in range(50)), "one device, one key"
    assert len({first.find(f"m-{n}") for n in range(50)}) == 50
    accounts = read_accounts(boot)
    assert len(accounts) == 50 and accounts["b-7"].identity == "m-7"
    assert bytes.fromhex(accounts["b-7"].key) == first.find("m-7") != first.find("b-7")
    assert one.stat().st_mode & 0o777 == 0o600 and one.read_text().startswith("# by hand\n")
    before = (one.read_bytes(), two.read_bytes(), boot.read_bytes())
    KeyBook([both]).write(wanted, URI)
    assert (one.read_bytes(), two.read_bytes(), boot.read_bytes()) == before, "again, nothing changes"


def test_a_file_that_is_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / "boot.json").write_text('{"b": 7}')
    with pytest.raises(CommissioningError, match=r"boot\.json is not .*no object of objects"):
        KeyBook([Places((), (tmp_path / "boot.json",))])
    (tmp_path / "boot.json").write_text("[")
    with pytest.raises(CommissioningError, match=r"boot\.json is not a file of bootstrap accounts"):
        KeyBook([Places((), (tmp_path / "boot.json",))])


def test_keys_as_people_write_them(tmp_path: Path) -> None:
    keys, boot = tmp_path / "keys.psk", tmp_path / "boot.json"
    keys.write_text("m:00 11 22 33 44 55 66 77\n")
    places = Places((keys,), (boot,))
    KeyBook([places]).write([(Account("m", bootstrap="b", bootstrap_key="AA BB CC DD EE FF 00 11"), places)], URI)
    assert bytes.fromhex(read_accounts(boot)["b"].key) == KeyFile(keys).find("m") == bytes.fromhex("0011223344556677")
    assert KeyFile(keys).find("b") == bytes.fromhex("aabbccddeeff0011")


@pytest.mark.parametrize("text", ["", "xyz", "00", "00" * 65])
def test_keys_that_no_device_may_have(text: str) -> None:
    told = unfit_key(text)
    assert told and (not text or text not in told.replace("8 to 64", ""))
    assert not unfit_key("00" * 16)
