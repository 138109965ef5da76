"""`flexrelay simulate` over LwM2M: readings come in through the adapter, and commands act."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from flexrelay_adapters.lwm2m import Lwm2mAdapter, make_adapter
from flexrelay_adapters.lwm2m.simulator import Lwm2mSimulator, make_simulator, psk_of
from flexrelay_sdk import Command, CommandState, CommandUpdate, Decoded, DecodeError, Frame
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.simulation import Plan, Profile, make_devices
from flexrelay_sdk.testkit import Life, RecordingSink, running, until

T0 = 1_463_738_400_000
PROFILE = {
    "step_s": 60,
    "series": {"home": [400, 900, -300], "roof": [0, 2_000, 4_000]},
    "devices": [
        {"kind": "meter", "series": "home"},
        {"kind": "pv", "series": "roof"},
        {"kind": "battery", "parameters": {"rated_w": 3_000, "ramp_w": 500}},
    ],
}


def simulator(adapter: Lwm2mAdapter, folder: Path, *, psk: bool) -> Lwm2mSimulator:
    devices = make_devices(Profile.model_validate(PROFILE), 3, "seed", T0)
    plan = Plan(T0, time.time_ns() // 1_000_000, interval_s=10.0, rate=20)
    section = {"port": adapter.coaps_port if psk else adapter.coap_port, "psk": psk, "rated_w": 3_000}
    made = make_simulator(section, folder, devices, plan, "seed")
    assert isinstance(made, Lwm2mSimulator)
    return made


@pytest.mark.parametrize("psk", [False, True])
async def test_readings_and_commands(tmp_path: Path, psk: bool) -> None:
    names = ("meter-1", "pv-2", "battery-3")
    (tmp_path / "keys").write_text("".join(f"{name}:{psk_of('seed', name).hex()}\n" for name in names))
    section = {
        "coap": {"port": 0},
        "coaps": {"port": 0, "psk_file": "keys"},
        "observe": (),
        "commands": {"rated_w": 3_000},
    }
    adapter = make_adapter("field", section, tmp_path, NoNativeCodec())
    sink = RecordingSink()
    async with running(adapter, sink):
        devices = simulator(adapter, tmp_path, psk=psk)
        living = asyncio.create_task(devices.run())
        try:
            await until(lambda: len({frame.credential for frame in sink.frames}) == 3, 90, "readings of all three")
            expected = set(names) if psk else {f"udp:127.100.0.{number}" for number in (1, 2, 3)}
            assert {frame.credential for frame in sink.frames} == expected
            (first,) = [s.measurements for s in sink.stored if s.frame.credential == devices.credential(0)][:1]
            assert first[0].observed_at == T0 + 10_000 and first[0].registers["power_w"] == 400
            parameters = {"power_w": 1_500, "from_ms": T0, "until_ms": T0 + 3_600_000}
            expires_at = time.time_ns() // 1_000_000 + 120_000
            life = Life()
            command = Command("c-1", "did:x", devices.credential(2), "set_power", parameters, expires_at, "order")
            await adapter.execute(command, life)
            assert life.states == [CommandState.QUEUED, CommandState.SENT, CommandState.ACKED]
            battery = devices.credential(2)
            await until(
                lambda: any(
                    m.registers.get("power_w") == 1_500
                    for stored in sink.stored
                    if stored.frame.credential == battery
                    for m in stored.measurements
                ),
                90,
                "the battery's power",
            )
            refused = Life()
            await adapter.execute(
                Command("c-2", "did:x", devices.credential(0), "set_power", parameters, expires_at, "order"), refused
            )
            assert refused.states[-1] is CommandState.FAILED  # a meter obeys nobody
        finally:
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)
    assert sink.dead == [] and sink.faults == []


@pytest.mark.parametrize("via", ["load_control", "set_point"])
async def test_many_commands_to_one_device_at_once(tmp_path: Path, via: str) -> None:
    """A device has one instance of each object: each command reads back what it wrote, not what the next one did. A
    set point says every watt, in both directions."""
    commands = {"rated_w": 3_000, "via": via}
    adapter = make_adapter(
        "field", {"coap": {"port": 0}, "observe": (), "commands": commands}, tmp_path, NoNativeCodec()
    )
    sink = RecordingSink()
    wanted = {f"c-{n}": 30 * (n + 1) if via == "load_control" else (n - 16) * 117 for n in range(30)}
    told: dict[str, list[CommandUpdate]] = {name: [] for name in wanted}

    async def give(name: str, number: int, power_w: int) -> None:
        async def heard(update: CommandUpdate) -> None:
            told[name].append(update)

        from_ms = T0 + 86_400_000 + number * 900_000
        parameters = {"power_w": power_w, "from_ms": from_ms, "until_ms": from_ms + 900_000}
        expires_at = time.time_ns() // 1_000_000 + 120_000
        await adapter.execute(Command(name, "did:x", battery, "set_power", parameters, expires_at, "order"), heard)

    async with running(adapter, sink):
        devices = simulator(adapter, tmp_path, psk=False)
        battery = devices.credential(2)
        living = asyncio.create_task(devices.run())
        try:
            async with asyncio.timeout(280):
                await asyncio.gather(*(give(name, n, power_w) for n, (name, power_w) in enumerate(wanted.items())))
        finally:
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)
    assert {name: updates[-1].state for name, updates in told.items()} == dict.fromkeys(wanted, CommandState.ACKED)
    assert {name: updates[-1].values["power_w"] for name, updates in told.items()} == wanted
    taken = [order.parameters["power_w"] for order in devices._devices[2].model._orders]
    assert sorted(taken) == sorted(wanted.values())


async def test_a_reading_that_is_refused_for_good_stops_no_device(tmp_path: Path) -> None:
    adapter = make_adapter("field", {"coap": {"port": 0}, "observe": ()}, tmp_path, NoNativeCodec())
    sink = RecordingSink()
    taken = adapter._codec.decode

    def picky(frame: Frame) -> Decoded:
        decoded = taken(frame)
        if decoded.measurements[0].observed_at == T0 + 20_000:
            raise DecodeError("register_backwards", "as a gateway would say")
        return decoded

    adapter._codec.decode = picky
    async with running(adapter, sink):
        devices = simulator(adapter, tmp_path, psk=False)
        living = asyncio.create_task(devices.run())
        try:
            first = devices.credential(0)
            await until(lambda: sum(frame.credential == first for frame in sink.frames) >= 3, 90, "the next readings")
        finally:
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)
    assert [reason for _, reason in sink.dead][:1] == ["register_backwards"] and devices.stats.reconnects == 0
