"""Notifications → frames: exact bytes, each device its own, and nothing told twice."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.opcua_frames import AT, item

from flexrelay_adapters.opcua import NodeCodec, OpcuaAdapter, OpcuaConfig
from flexrelay_adapters.opcua.framing import FRAME_BYTES, Framing
from flexrelay_adapters.opcua.wire import Changes, Publish
from flexrelay_sdk import Codec, DecodeError, Frame, Outcome, Receipt
from flexrelay_sdk.testkit import RecordingSink


def config(devices: int = 2, **more: Any) -> OpcuaConfig:
    sections = {
        f"d{n}": {
            "registers": {
                "import_j": {"node": f"ns=2;s=d{n}.I", "unit": "J"},
                "power_w": {"node": f"ns=2;s=d{n}.P", "unit": "W"},
            }
        }
        for n in range(devices)
    }
    return OpcuaConfig.from_section("t", {"url": "opc.tcp://h:1", "security": "None", "devices": sections, **more})


def changes(*items: bytes) -> Changes:
    body = b"before" + b"".join(items) + struct.pack("<i", 0)
    return Changes(body, 6, len(body), len(items))


class Line:
    """Framing and codec, as the adapter uses them."""

    def __init__(self, found: OpcuaConfig) -> None:
        self.framing = Framing(found, "c")
        self.codec = NodeCodec(found)
        self.frames: list[Frame] = []

    def take(self, *items: bytes) -> list[Frame]:
        framed = self.framing.frames(changes(*items), AT)
        self.framing.told(framed)
        self.frames += framed.frames
        return framed.frames

    def readings(self, credential: str) -> list[tuple[int, dict[str, int]]]:
        return [
            (m.observed_at - AT, dict(m.registers))
            for frame in self.frames
            if frame.credential == credential
            for m in self.codec.decode(frame).measurements
        ]


def test_each_device_gets_its_own_bytes_exactly() -> None:
    line = Line(config())
    parts = [item(1, 5.0), item(2, 6.0), item(3, 7.0), item(4, 8.0)]
    for number in range(3):
        stamped = [item(n + 1, 5.0 + n, source=AT + number) for n in range(4)]
        first, second = line.take(*stamped)
        assert (first.credential, second.credential) == ("h:1/d0", "h:1/d1")
        assert first.payload.endswith(stamped[0] + stamped[1]) and second.payload.endswith(stamped[2] + stamped[3])
    assert line.readings("h:1/d0")[0] == (0, {"import_j": 5, "power_w": 6})
    first, second = Line(config()).take(parts[2], parts[0], parts[3], parts[1])  # in any order
    assert first.payload.endswith(parts[2] + parts[3]) and second.payload.endswith(parts[0] + parts[1])


def test_what_a_new_subscription_tells_again_is_left_out() -> None:
    line = Line(config())
    line.take(item(1, 5.0), item(2, 6.0))
    line.take(item(2, 7.0, source=AT + 10))
    assert line.take(item(1, 5.0), item(2, 7.0, source=AT + 10)) == []
    for number in range(20):
        line.take(item(2, 8.0 + number, source=AT + 20 + number))
    assert line.take(item(1, 5.0), item(2, 27.0, source=AT + 39)) == []  # long after: by the newest time of the node
    assert len(line.readings("h:1/d0")) == 22


def test_a_register_that_comes_late_to_its_instant_gets_one_of_its_own() -> None:
    line = Line(config())
    line.take(item(2, 6.0))
    line.take(item(1, 5.0))
    line.take(item(1, 5.5, source=AT + 1, server=0), item(2, 6.5, source=AT + 1, server=0))
    assert line.readings("h:1/d0") == [(0, {"power_w": 6}), (1, {"import_j": 5}), (2, {"import_j": 6, "power_w": 6})]


def test_unusable_values_stand_alone() -> None:
    line = Line(config())
    frames = line.take(item(1, 5.0), item(2, 6.0, status=0x808C_0000), item(3, 1.0), item(77, 1.0))
    credentials = sorted(frame.credential for frame in frames)
    assert credentials == ["", "h:1/d0", "h:1/d0", "h:1/d1"]
    reasons = []
    for frame in frames:
        try:
            line.codec.decode(frame)
        except DecodeError as error:
            reasons.append(error.reason)
    assert sorted(reasons) == ["bad_status", "unknown_device"]
    assert line.take(item(1, 0.0, status=0x8032_0000)) == []  # nothing yet


def test_what_cannot_be_read_is_framed_whole() -> None:
    line = Line(config())
    (frame,) = line.take(b"\x01\x00\x00\x00\xff\xff")
    assert frame.credential == "" and b"\xff\xff" in frame.payload


def test_large_ones_are_divided_between_instants() -> None:
    line = Line(config(1))
    items = [item(handle, 5.0 + n, source=AT + n) for handle in (1, 2) for n in range(3000)]
    frames = line.take(*items)
    assert len(frames) > 2 and all(len(frame.payload) <= FRAME_BYTES for frame in frames)
    readings = line.readings("h:1/d0")
    assert [at for at, _ in readings] == list(range(3000)) and all(len(registers) == 2 for _, registers in readings)


class Judge(RecordingSink):
    """Refuses frames of wrong times, as a gateway does."""

    async def put(self, frames: Sequence[Frame], codec: Codec) -> Sequence[Receipt]:
        found = [[m.observed_at for m in codec.decode(frame).measurements] for frame in frames]
        reasons = ["future" if max(at) > AT + 60_000 else "stale" if min(at) < AT - 10**9 else "" for at in found]
        await super().put([frame for frame, reason in zip(frames, reasons, strict=True) if not reason], codec)
        return [Receipt(Outcome.DEAD_LETTER, 0, why) if why else Receipt(Outcome.STORED) for why in reasons]


async def test_a_wrong_time_costs_no_others_of_its_publication(tmp_path: Path) -> None:
    adapter, sink = OpcuaAdapter(config(state=str(tmp_path)), clock=lambda: AT + 500), Judge()
    times = [(1, AT), (2, AT), (2, AT + 10**9), (1, AT + 1), (2, 1000)]
    told = changes(*[item(handle, float(n), source=at) for n, (handle, at) in enumerate(times)])
    await adapter._store([Publish(1, 1, False, (told,), None, ())], sink)
    found = [(m.observed_at - AT, dict(m.registers)) for m in sink.measurements]
    assert found == [(0, {"import_j": 0, "power_w": 1}), (1, {"import_j": 3})]


async def test_a_refused_time_that_lies_ahead_hides_no_outage(tmp_path: Path) -> None:
    adapter, sink = OpcuaAdapter(config(state=str(tmp_path)), clock=lambda: AT + 500), Judge()
    framing, reached = adapter._framing, []
    for number, (handle, at) in enumerate([(1, AT), (3, AT), (1, AT + 10**9), (1, AT + 1000)], 1):
        told = changes(item(handle, float(number), source=at))
        await adapter._store([Publish(1, number, False, (told,), None, ())], sink)
        reached.append((framing.reach_ms(1), framing.reach_ms(3)))
    assert reached == [(AT, 0), (AT, AT), (AT + 500, AT), (AT + 1000, AT)], "from where a history is read"


def test_history_and_restart() -> None:
    line = Line(config())
    framed = line.framing.history("d0", [(AT + n, item(1, 5.0 + n, source=AT + n)) for n in range(3)], AT)
    line.framing.told(framed)
    assert line.framing.reach_ms(1) == AT + 2 and line.framing.reach_ms(2) == 0
    late = line.framing.history("d0", [(AT + 1, item(2, 9.0, source=AT + 1))], AT, after_outage=True)
    line.frames += late.frames
    assert line.readings("h:1/d0") == [(2, {"power_w": 9})]  # import_j stands at AT + 1
    heir = Framing(config(), "c")
    heir.resume(line.framing.newest)
    assert heir.reach_ms(1) == AT + 2
    assert heir.frames(changes(item(1, 7.0, source=AT + 2)), AT).frames == []
    heir.forget()
    assert len(heir.frames(changes(item(1, 7.0, source=AT + 2)), AT).frames) == 1
