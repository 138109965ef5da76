"""`flexrelay simulate` over Sigfox: the backend's callbacks come into the journal, downlinks in the answers act."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from support.http_device import free_port
from support.simulated import (
    NAMES,
    PATIENCE_S,
    PROFILE,
    Readings,
    command,
    devices,
    expected,
    gateway,
    living,
    obeyed_with_ramp,
    plan,
    shown,
    told,
    until_stored,
)

from flexrelay_adapters.sigfox import SigfoxAdapter, make_adapter
from flexrelay_adapters.sigfox.simulator import SigfoxDevice, adapter_section, device_id, make_simulator
from flexrelay_sdk import CommandState
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.testkit import running, until

pytestmark = pytest.mark.timeout(300)
IDS = [device_id("a", number) for number in range(5)]
STORES = {**PROFILE, "devices": [PROFILE["devices"][2], PROFILE["devices"][3]]}


def adapter(folder: Path, port: int, *, state_of_charge: bool = False) -> SigfoxAdapter:
    (folder / "tokens").write_text(f"backend:{hashlib.sha256(b'of the backend').hexdigest()}\n")
    section = {"port": port, "tokens_file": "tokens", **adapter_section(state_of_charge=state_of_charge)}
    return make_adapter("radio", section, folder, NoNativeCodec())


def settings(port: int, **changes: Any) -> dict[str, Any]:
    return {"port": port, "token": "of the backend", "asks_every": 2, "backoff_s": 0.05, **changes}


def as_carried(simulated: Readings, *, charge: bool = False) -> Readings:
    """Whole Wh and %, at whole seconds: what the payload has room for."""
    return {
        at // 1000 * 1000: {
            "import_j": registers["import_j"] // 3600 * 3600,
            "export_j": registers["export_j"] // 3600 * 3600,
            "power_w": registers["power_w"],
            **({"soc_permille": registers["soc_permille"] // 10 * 10} if charge else {}),
        }
        for at, registers in simulated.items()
    }


async def test_readings_of_every_kind_are_in_the_journal_exactly(tmp_path: Path) -> None:
    port, simulated = free_port(), expected(5, 12)
    async with gateway(tmp_path / "gw", "sigfox", IDS) as found:
        simulator = make_simulator(settings(port), tmp_path, devices(), plan(), "a")
        target = adapter(tmp_path, port)
        async with living(simulator, target, found):
            for credential, name in zip(IDS, NAMES, strict=True):
                await found.until(credential, lambda readings: len(readings) >= 12, f"12 readings of {name}")
                wanted, got = as_carried(simulated[name]), await found.registers(credential)
                assert {at: got[at] for at in wanted} == wanted, name
        assert await found.journal.letters() == [] and target.counters.missing == target.counters.restarts == 0


async def test_a_state_of_charge_is_carried_and_a_command_obeyed_and_confirmed(tmp_path: Path) -> None:
    port, when, made = free_port(), plan(), devices(2, profile=STORES)
    async with gateway(tmp_path / "gw", "sigfox", IDS) as found:
        simulator = make_simulator(settings(port, state_of_charge=True), tmp_path, made, when, "a")
        target = adapter(tmp_path, port, state_of_charge=True)
        async with living(simulator, target, found):
            await until_stored(found, 8)
            order = command("set_power", IDS[0], power_w=-1_500)
            assert await told(target, order) is CommandState.ACKED
            await found.until(IDS[0], shown(order), "the confirmation")
            await found.until(IDS[0], lambda got: got[-1].registers["soc_permille"] < 490, "what was discharged")
            refused = command("set_power", IDS[0], power_w=3_001)
            assert await told(target, refused) is CommandState.FAILED
            limit = command("limit_power", IDS[1], min_power_w=0, max_power_w=4_200)
            assert await told(target, limit) is CommandState.ACKED
            await found.until(IDS[1], lambda got: got[-1].registers["power_w"] == 4_200, "the limit")
            fine = command("limit_power", IDS[1], min_power_w=0, max_power_w=4_250)
            assert await told(target, fine) is CommandState.FAILED, "8 bytes have no room for it"
            await until(lambda: simulator.stats.commands >= 3, PATIENCE_S, "the counter of commands")
        obeyed_with_ramp(await found.registers(IDS[0]), -1_500, 60)


def test_the_same_seed_gives_the_same_frames() -> None:
    def frames(seed: str) -> list[tuple[str, int, bytes]]:
        radios = [
            SigfoxDevice(device, device_id(seed, number), state_of_charge=False)
            for number, device in enumerate(devices(9, seed))
        ]
        at = range(1_463_738_410_000, 1_463_738_530_000, 10_000)
        return [(radio.credential, radio.seq, radio.uplink(instant)) for instant in at for radio in radios]

    assert frames("a") == frames("a") != frames("b")
    assert len({credential for credential, _, _ in frames("a")}) == 9
    assert all(len(data) == 11 for _, _, data in frames("a"))


def test_a_downlink_is_done_once_and_not_when_it_is_too_late() -> None:
    (device,) = devices(1, profile={**PROFILE, "devices": [PROFILE["devices"][2]]})
    radio = SigfoxDevice(device, "1A", state_of_charge=True)
    now = 1_463_738_410_000
    radio.uplink(now)

    def down(kind: int, body: bytes, until_ms: int) -> bool | None:
        return radio.downlink(bytes([kind]) + body + (until_ms // 1000).to_bytes(4, "big"), now)

    assert down(1, (600).to_bytes(3, "big"), now - 1000) is None
    assert [down(1, (600).to_bytes(3, "big"), now + 900_000) for _ in range(2)] == [True, True]
    assert radio.uplink(now + 60_000)[8:11] == (600).to_bytes(3, "big")
    assert down(1, (5_000).to_bytes(3, "big"), now + 900_000) is False  # more than it can
    assert down(9, bytes(3), now + 900_000) is False and radio.downlink(b"", now) is False


async def test_a_wrong_token_is_said_and_ends_it(tmp_path: Path) -> None:
    port = free_port()
    async with gateway(tmp_path / "gw", "sigfox", IDS) as found, running(adapter(tmp_path, port), found.ingest):
        with pytest.raises(ConnectionError, match=r"answers POST /sigfox with 401"):
            await make_simulator(settings(port, token="wrong"), tmp_path, devices(), plan(), "a").run()


def test_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    for section, words in (
        ({}, "^token"),
        ({"token": "x", "state_of_charge": True}, "^state_of_charge: meter-1 has none"),
        ({"token": "x", "asks_every": 0}, "^asks_every"),
        ({"token": "x", "ca": "nothing.pem"}, "^ca: there is no file"),
    ):
        with pytest.raises(ValueError, match=words):
            make_simulator(section, tmp_path, devices(), plan(), "a")
    with pytest.raises(ValueError, match="whole seconds"):
        make_simulator({"token": "x"}, tmp_path, devices(), plan(interval_s=0.5), "a")
