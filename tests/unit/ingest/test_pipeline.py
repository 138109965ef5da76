"""What becomes of a frame: stored, duplicate or dead letter, each after the commit."""

import asyncio
import json
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.contracts import Party, sign
from support.readings import NOW, IngestPath, PlainCodec, frame_of, ingest_path, registration, signed_payload

from flexrelay.ingest import Enrolment, Limits, NativeCodec
from flexrelay.journal import JournalUnavailable
from flexrelay.journal.segment import Trace
from flexrelay_schemas.canonical import canonical
from flexrelay_schemas.measurement import Measurement
from flexrelay_schemas.quality import Notice, Provenance
from flexrelay_schemas.reading import Reading, SignedReading
from flexrelay_sdk import Decoded, Frame, Outcome, Receipt, SinkUnavailable

T = NOW - 1000


async def put(path: IngestPath, party: Party, *payloads: bytes) -> list[Receipt]:
    return list(await path.ingest.put([frame_of(party.did, payload) for payload in payloads], NativeCodec()))


async def test_a_signed_reading_is_stored_with_its_exact_bytes(tmp_path: Path) -> None:
    meter = Party.new("device", Party.new().did)
    async with ingest_path(tmp_path, meter) as path:
        payload = signed_payload(meter, T, {"import_j": 5, "export_j": 0}, 1)
        (receipt,) = await put(path, meter, payload)
        assert (receipt.outcome, receipt.position) == (Outcome.STORED, 1)
        entry = await path.journal.entry(1)
        assert entry is not None
        assert (entry.payload, entry.evidence, entry.did, entry.signed) == (payload, payload, meter.did, True)
        (measurement,) = entry.measurements
        assert measurement.provenance is Provenance.METER_SIGNED
        assert measurement.registers == {"import_j": 5, "export_j": 0}
        (again,) = await put(path, meter, payload)
        assert again.outcome is Outcome.DUPLICATE
        assert path.journal.end == 1


def resigned(meter: Party, **changes: object) -> bytes:
    """A payload with fields changed before signing, without the checks of the model."""
    reading = {
        "did": meter.did,
        "key_version": 1,
        "network": "test",
        "observed_at": T,
        "registers": {"import_j": 1},
        "seq": 1,
        **changes,
    }
    signature = sign(meter.private, b"flexrelay-reading-v1" + canonical(reading))
    return json.dumps({"v": 1, "reading": reading, "signature": signature}).encode()


async def test_bad_input_gets_its_reason_and_the_others_go_on(tmp_path: Path) -> None:
    meter, other, stranger = Party.new("device"), Party.new("device"), Party.new("device")
    good = signed_payload(meter, T, {"import_j": 1}, 1)
    cases: list[tuple[bytes, str, str]] = [
        (b"", "malformed", ""),
        (b"{", "malformed", ""),
        (good[:-10], "malformed", ""),
        (b"[]", "invalid_value", ""),
        (b"\xff\xfe{}", "not_utf8", ""),
        (good.replace(b'"seq"', b'"s\xffq"'), "not_utf8", ""),
        (b" " * 70_000, "too_large", ""),
        (b"[" * 60_000, "malformed", ""),
        (good.replace(b'"v":1', b'"v":2'), "unknown_version", "v"),
        (good.replace(b'"v":1', b'"v":1,"x":1'), "unknown_field", "x"),
        (good.replace(b'"v":1', b'"v":1,"v":1'), "malformed", ""),
        (good.replace(b'"import_j":1', b'"import_j":1,"import_j":2'), "malformed", ""),
        (good.replace(b'"import_j":1', b'"import_j":NaN'), "invalid_value", "reading.registers.import_j"),
        (good.replace(b'"import_j":1', b'"import_j":Infinity'), "invalid_value", "reading.registers.import_j"),
        (good.replace(b'"import_j":1', b'"import_j":1.0'), "invalid_value", "reading.registers.import_j"),
        (good.replace(b'"import_j":1', b'"import_j":true'), "invalid_value", "reading.registers.import_j"),
        (good.replace(b'"import_j":1', b'"import_j":"1"'), "invalid_value", "reading.registers.import_j"),
        (good.replace(b'"import_j":1', b'"import_j":9007199254740992'), "invalid_value", "reading.registers.import_j"),
        (good.replace(b'"import_j":1', b'"import_j":' + b"9" * 5000), "malformed", ""),
        (good.replace(b'"import_j":1', b'"import_kwh":1'), "unknown_register", "reading.registers"),
        (good.replace(b'"import_j":1', b'"import_j":-1'), "invalid_value", "reading.registers"),
        (good.replace(b'"import_j":1', b""), "invalid_value", "reading.registers"),
        (good.replace(b'"import_j":1', b'"import_j":2'), "signature", "signature"),
        (signed_payload(other, T, {"import_j": 1}, 1), "wrong_identity", "did"),
        (resigned(meter, network="elsewhere"), "wrong_network", "network"),
        (resigned(meter, key_version=2), "key_version", "key_version"),
        (resigned(meter, observed_at=NOW + 60_001), "future", "observed_at"),
        (resigned(meter, observed_at=NOW - 365 * 86_400_000), "stale", "observed_at"),
        (resigned(meter, observed_at=NOW + 365 * 86_400_000), "future", "observed_at"),
    ]
    async with ingest_path(tmp_path, meter, other) as path:
        receipts = await put(path, meter, *[payload for payload, _, _ in cases], good)
        assert receipts[-1] == Receipt(Outcome.STORED, 1)
        letters = await path.journal.letters()
        assert len(letters) == len(cases)
        for (payload, reason, field), receipt, letter in zip(cases, receipts, letters, strict=False):
            assert receipt == Receipt(Outcome.DEAD_LETTER, 0, reason), payload[:200]
            assert (letter.reason, letter.field, letter.payload, letter.did) == (reason, field, payload, meter.did)
            assert letter.message
        (unknown,) = await put(path, stranger, signed_payload(stranger, T, {"import_j": 1}, 1))
        assert unknown.reason == "unknown_device"


async def test_neighbours_equivocation_backfill_and_gaps(tmp_path: Path) -> None:
    meter = Party.new("device")
    async with ingest_path(tmp_path, meter) as path:

        async def one(at: int, value: int, seq: int) -> tuple[str, Notice]:
            (receipt,) = await put(path, meter, signed_payload(meter, T + at, {"import_j": value}, seq))
            if receipt.outcome is not Outcome.STORED:
                return receipt.reason or receipt.outcome.value, Notice.NONE
            entry = await path.journal.entry(receipt.position)
            assert entry is not None
            return "stored", entry.measurements[0].notice

        assert await one(10, 100, 10) == ("stored", Notice.NONE)
        assert await one(20, 200, 12) == ("stored", Notice.GAP)
        assert await one(15, 150, 11) == ("stored", Notice.BACKFILLED)
        assert await one(15, 150, 11) == ("duplicate", Notice.NONE)
        assert await one(15, 151, 11) == ("equivocation", Notice.NONE)
        assert await one(17, 149, 11) == ("replay", Notice.NONE)
        assert await one(30, 199, 13) == ("register_backwards", Notice.NONE)
        assert await one(30, 200, 12) == ("replay", Notice.NONE)
        assert await one(30, 200, 13) == ("stored", Notice.NONE)
        (letter,) = [item for item in await path.journal.letters() if item.reason == "equivocation"]
        assert b'"import_j":151' in letter.payload  # the second signed value is kept as evidence


class _Doubting(PlainCodec):
    """A device that marks its own values as doubtful."""

    def decode(self, frame: Frame) -> Decoded:
        found = super().decode(frame).measurements
        return Decoded(tuple(item._replace(notice=Notice.DEVICE_FLAGGED) for item in found))


async def test_what_the_device_and_what_the_gateway_notice_stand_together(tmp_path: Path) -> None:
    meter = Party.new("device")
    async with ingest_path(tmp_path, unsigned=(meter,), due_until=lambda now: now - 500) as path:
        for at in (T + 600, T + 400):
            payload = json.dumps({"t": at, "import_j": at}).encode()
            (receipt,) = await path.ingest.put([frame_of(meter.did, payload)], _Doubting())
            assert receipt.outcome is Outcome.STORED
        entries = await path.journal.read(0, 10)
        assert [entry.measurements[0].notice for entry in entries] == [
            Notice.DEVICE_FLAGGED,
            Notice.DEVICE_FLAGGED | Notice.LATE | Notice.BACKFILLED,
        ]


async def test_revocation_refuses_from_the_call_that_applies_it(tmp_path: Path) -> None:
    meter = Party.new("device")
    async with ingest_path(tmp_path, meter) as path:
        first, second = (signed_payload(meter, T + seq, {"import_j": seq}, seq) for seq in (1, 2))
        task = asyncio.create_task(put(path, meter, first))
        await asyncio.sleep(0)  # the frame waits, it has not been judged
        path.registry.apply("identity.deactivated", {"did": meter.did, "kind": "device", "reason": "lost", "v": 1})
        assert [receipt.reason for receipt in await task] == ["device_deactivated"]
        assert [receipt.reason for receipt in await put(path, meter, second)] == ["device_deactivated"]
        assert path.journal.end == 0


async def test_a_rotated_key_counts_at_once(tmp_path: Path) -> None:
    meter = Party.new("device")
    async with ingest_path(tmp_path, meter) as path:
        new = Party.new("device")
        event = {"did": meter.did, "kind": "device", "version": 2, "key": new.operation.key}
        path.registry.apply("identity.rotated", json.dumps(event).encode())
        old, wrong = signed_payload(meter, T, {"import_j": 1}, 1), resigned(meter, key_version=2)
        meter.private, meter.version = new.private, 2
        receipts = await put(path, meter, old, wrong, signed_payload(meter, T, {"import_j": 1}, 1))
        assert [receipt.reason for receipt in receipts] == ["key_version", "signature", ""]


async def test_the_key_that_counts_is_that_of_the_observation(tmp_path: Path) -> None:
    meter, new, next_one = Party.new("device"), Party.new("device"), Party.new("device")
    async with ingest_path(tmp_path, meter) as path:

        def apply(name: str, market_ms: int, **more: object) -> None:
            event = {"did": meter.did, "kind": "device", "market_ms": market_ms, "v": 1, **more}
            path.registry.apply("identity." + name, canonical(event))

        first, second, third = meter.private, new.private, next_one.private

        def signed(private: Any, version: int, at: int) -> bytes:
            meter.private, meter.version = private, version
            return signed_payload(meter, at, {"import_j": at - T}, at - T)

        async def take(*payloads: bytes) -> list[str]:
            return [receipt.reason for receipt in await put(path, meter, *payloads)]

        apply("rotated", T + 100, version=2, key=new.operation.key)
        apply("rotated", T + 100, version=2, key=new.operation.key)  # an event that comes twice
        assert await take(signed(first, 1, T + 99), signed(first, 1, T + 100)) == ["", "key_not_valid_then"]
        assert await take(signed(second, 2, T + 99), signed(second, 2, T + 100)) == ["key_not_valid_then", ""]
        assert await take(signed(second, 1, T + 98), signed(second, 3, T + 110)) == ["signature", "key_version"]
        apply("suspended", T + 200, reason="equivocation")
        assert await take(signed(second, 2, T + 150)) == ["device_suspended"]
        apply("rotated", T + 300, version=3, key=next_one.operation.key)
        apply("reinstated", T + 400, version=3, key=next_one.operation.key)
        assert await take(signed(second, 2, T + 199), signed(second, 2, T + 200)) == ["", "key_not_valid_then"]
        assert await take(signed(third, 3, T + 399), signed(third, 3, T + 400)) == ["key_not_valid_then", ""]
        assert await take(signed(first, 1, T + 98)) == [""]


async def test_unsigned_readings_need_a_permission(tmp_path: Path) -> None:
    meter, plain = Party.new("device"), Party.new("device")
    async with ingest_path(tmp_path, meter, unsigned=(plain,)) as path:
        payload = b'[{"t": %d, "import_j": 1}, {"t": %d, "import_j": 2, "power_w": -4}]' % (T, T + 1)
        frames = [frame_of(meter.did, payload), frame_of(plain.did, payload), frame_of(plain.did, payload)]
        receipts = await path.ingest.put(frames, PlainCodec())
        assert [receipt.reason or receipt.outcome.value for receipt in receipts] == ["unsigned", "stored", "duplicate"]
        entry = await path.journal.entry(1)
        assert entry is not None and entry.evidence is None
        assert [item.provenance for item in entry.measurements] == [Provenance.GATEWAY_ATTESTED] * 2


async def test_a_frame_comes_in_whole_or_not_at_all(tmp_path: Path) -> None:
    plain = Party.new("device")
    async with ingest_path(tmp_path, unsigned=(plain,)) as path:
        half = b'[{"t": %d, "import_j": 5}, {"t": %d, "import_j": 4}]' % (T, T + 1)
        lower = b'{"t": %d, "import_j": 2}' % T
        texts = [b'{"t": %d, "import_j": "5"}' % T, b'{"t": %d, "volt": 5}' % T, b"[]", b'{"t": "x", "power_w": 1}']
        frames = [frame_of(plain.did, payload) for payload in (half, *texts, lower)]
        receipts = await path.ingest.put(frames, PlainCodec())
        assert [receipt.reason for receipt in receipts] == [
            "register_backwards",
            "invalid_value",
            "unknown_register",
            "no_measurement",
            "invalid_value",
            "",
        ]


async def test_a_codec_that_breaks_its_promise_harms_only_its_frame(tmp_path: Path) -> None:
    class Broken:
        def decode(self, frame: Frame) -> Decoded:
            raise ZeroDivisionError("oops")

    meter = Party.new("device")
    async with ingest_path(tmp_path, meter) as path:
        (receipt,) = await path.ingest.put([frame_of(meter.did, b"x")], Broken())
        assert receipt.reason == "codec_error"
        (letter,) = await path.journal.letters()
        assert letter.message == "ZeroDivisionError: oops"


async def test_a_history_that_cannot_be_read_is_not_the_frames_fault(tmp_path: Path) -> None:
    meter = Party.new("device")
    async with ingest_path(tmp_path, meter) as path:
        payloads = [signed_payload(meter, T + n, {"import_j": n}, n) for n in range(20)]
        await put(path, meter, *payloads)
        index = path.checks._index
        working = index._tail

        def broken(after: int) -> Iterator[list[Trace]]:
            raise sqlite3.OperationalError("disk I/O error")

        index._tail = broken
        new = signed_payload(meter, T + 20, {"import_j": 20}, 20)
        with pytest.raises(SinkUnavailable, match="disk I/O error"):
            await put(path, meter, new, payloads[0])
        index._tail = working
        assert [receipt.outcome for receipt in await put(path, meter, new, payloads[0])] == [
            Outcome.STORED,
            Outcome.DUPLICATE,
        ]
        assert await path.journal.letters() == []


async def test_a_commit_is_bounded_in_bytes_and_a_frame_in_measurements(tmp_path: Path) -> None:
    class Many:
        def decode(self, frame: Frame) -> Decoded:
            return Decoded(tuple(Measurement("", T + n, {"power_w": 1}) for n in range(int(frame.payload))))

    plain = Party.new("device")
    async with ingest_path(tmp_path, unsigned=(plain,), limits=Limits(batch_bytes=1000)) as path:
        padded = [b'{"t": %d, "import_j": %d}' % (T + n, n) + b" " * 300 for n in range(20)]
        receipts = await path.ingest.put([frame_of(plain.did, payload) for payload in padded], PlainCodec())
        assert [receipt.position for receipt in receipts] == list(range(1, 21))
        assert path.journal._reader.execute("SELECT max(last - first) FROM segment").fetchone() == (2,)
        frames = [frame_of(plain.did, b"65536"), frame_of(plain.did, b'{"t": %d, "import_j": 99}' % (T + 99))]
        receipts = [*await path.ingest.put(frames[:1], Many()), *await path.ingest.put(frames[1:], PlainCodec())]
        assert [receipt.reason for receipt in receipts] == ["too_many", ""]


async def test_what_names_no_sender_says_where_it_came_in(tmp_path: Path) -> None:
    async with ingest_path(tmp_path) as path:
        (receipt,) = await path.ingest.put([Frame("mqtt", "", b"{}", NOW, "some/where")], NativeCodec())
        assert receipt.reason == "no_identity"
        (letter,) = await path.journal.letters()
        assert "some/where" in letter.message


async def test_a_large_put_is_not_passed_for_ever(tmp_path: Path) -> None:
    plain = Party.new("device")
    limits = Limits(queue_frames=10, batch_frames=4)
    async with ingest_path(tmp_path, unsigned=(plain,), limits=limits) as path:
        clock = iter(range(1_000_000))
        stop = asyncio.Event()

        async def small() -> None:
            while not stop.is_set():
                await path.ingest.put(
                    [frame_of(plain.did, b'{"t": %d, "power_w": 1}' % (T + next(clock)))], PlainCodec()
                )

        smalls = [asyncio.create_task(small()) for _ in range(8)]
        await asyncio.sleep(0.05)
        large = [frame_of(plain.did, b'{"t": %d, "power_w": 2}' % (T - n)) for n in range(1, 31)]
        try:
            async with asyncio.timeout(60):
                assert len(await path.ingest.put(large, PlainCodec())) == 30
        finally:
            stop.set()
            await asyncio.gather(*smalls)


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_is_cancelled_nothing_is_receipted_that_is_not_stored(tmp_path: Path, seed: int) -> None:
    """Puts are cancelled at any await, the disk fills and empties, and the sink closes under those that still wait."""
    chance = random.Random(seed)
    plain = [Party.new("device") for _ in range(3)]
    receipted: dict[tuple[str, int], int] = {}
    duplicates: set[tuple[str, int]] = set()
    limits = Limits(queue_frames=20, batch_frames=7)
    async with ingest_path(tmp_path, unsigned=tuple(plain), limits=limits) as path:
        ends = {"done": 0, "cancelled": 0, "unavailable": 0}

        async def sender(party: Party) -> None:
            at = T
            while True:
                count = chance.randint(1, 9)
                instants = range(at, at + count)
                frames = [frame_of(party.did, b'{"t": %d, "power_w": 1}' % instant) for instant in instants]
                task = asyncio.create_task(path.ingest.put(frames, PlainCodec()))
                for _ in range(chance.randint(0, 12)):
                    await asyncio.sleep(0)
                if chance.random() < 0.4:
                    task.cancel()
                try:
                    receipts = await task
                except asyncio.CancelledError:
                    ends["cancelled"] += 1
                    continue  # the same frames come again, as from a broker
                except SinkUnavailable as error:
                    ends["unavailable"] += 1
                    if "shutting down" in str(error):
                        return
                    await asyncio.sleep(0.001)
                    continue
                for instant, receipt in zip(instants, receipts, strict=True):
                    if receipt.outcome is Outcome.STORED:
                        assert (party.did, instant) not in receipted
                        receipted[party.did, instant] = receipt.position
                    else:
                        assert receipt.outcome is Outcome.DUPLICATE
                        duplicates.add((party.did, instant))
                ends["done"] += 1
                at += count

        async def disk() -> None:
            while True:
                await asyncio.sleep(0.05)
                pages = path.journal._writer.execute("PRAGMA page_count").fetchone()[0]
                path.journal._writer.execute(f"PRAGMA max_page_count = {pages}")
                await asyncio.sleep(0.02)
                path.journal._writer.execute("PRAGMA max_page_count = 1000000")

        filling = asyncio.create_task(disk())
        senders = [asyncio.create_task(sender(party)) for party in plain for _ in range(2)]
        await asyncio.sleep(0.6)
        async with asyncio.timeout(60):
            while not (ends["done"] and ends["cancelled"]):  # noqa: ASYNC110 (the senders count)
                await asyncio.sleep(0.01)
        filling.cancel()
        path.journal._writer.execute("PRAGMA max_page_count = 1000000")
        async with asyncio.timeout(60):
            await path.ingest.close()
            await asyncio.gather(*senders)
        assert path.ingest.waiting == (0, 0)
        assert min(ends.values()) > 0, ends
        stored = {
            (entry.did, item.observed_at): entry.position
            for entry in await path.journal.read(0, path.journal.end)
            for item in entry.measurements
        }
        assert len(stored) == path.journal.end  # nothing twice
        assert all(stored[key] == position for key, position in receipted.items())
        assert duplicates <= stored.keys()
        assert await path.journal.verify() == path.journal.end


async def test_odd_text_in_channel_and_credential_stops_nothing(tmp_path: Path) -> None:
    plain = Party.new("device")
    async with ingest_path(tmp_path, unsigned=(plain,)) as path:
        payload = b'{"t": %d, "import_j": 1}' % T
        scid = plain.did.rpartition(":")[2]
        frames = [
            Frame("mqtt", scid, payload, NOW, "x" * 100_000 + "\udcff"),
            Frame("mqtt", "\udcff" * 70_000, payload, NOW, "\udcff"),
        ]
        receipts = await path.ingest.put(frames, PlainCodec())
        assert [receipt.outcome for receipt in receipts] == [Outcome.STORED, Outcome.DEAD_LETTER]


async def test_put_waits_while_the_queue_is_full(tmp_path: Path) -> None:
    plain = Party.new("device")
    limits = Limits(queue_frames=10, batch_frames=4)
    async with ingest_path(tmp_path, unsigned=(plain,), limits=limits) as path:
        puts = [
            asyncio.create_task(
                path.ingest.put(
                    [frame_of(plain.did, b'{"t": %d, "import_j": %d}' % (T + n, n)) for n in range(start, start + 6)],
                    PlainCodec(),
                )
            )
            for start in range(0, 60, 6)
        ]
        most = 0
        while not all(task.done() for task in puts):
            most = max(most, path.ingest.waiting[0])
            await asyncio.sleep(0)
        assert most == 6  # two of six would be more than ten
        positions = [receipt.position for task in puts for receipt in task.result()]
        assert sorted(positions) == list(range(1, 61))
        big = [frame_of(plain.did, b'{"t": %d, "import_j": %d}' % (T + n, n)) for n in range(100, 130)]
        receipts = await path.ingest.put(big, PlainCodec())  # larger than the whole queue: alone, in several commits
        assert [receipt.position for receipt in receipts] == list(range(61, 91))
        assert path.ingest.waiting == (0, 0)


async def test_a_journal_that_cannot_store_refuses_and_recovers(tmp_path: Path) -> None:
    meter = Party.new("device")
    async with ingest_path(tmp_path, meter) as path:
        assert (await put(path, meter, signed_payload(meter, T, {"import_j": 1}, 1)))[0].position == 1
        pages = path.journal._writer.execute("PRAGMA page_count").fetchone()[0]
        path.journal._writer.execute(f"PRAGMA max_page_count = {pages}")
        big = [signed_payload(meter, T + n, {"import_j": n}, n) for n in range(2, 40)]
        for _ in range(2):
            with pytest.raises(SinkUnavailable, match="full"):
                await put(path, meter, *big)
        assert path.journal.end == 1
        assert "cannot store now: database or disk is full" in path.ingest.trouble
        path.journal._writer.execute("PRAGMA max_page_count = 1000000")
        receipts = await put(path, meter, *big)
        assert [receipt.position for receipt in receipts] == list(range(2, 40))
        assert path.ingest.trouble == ""
        assert await path.journal.verify() == 39


async def test_after_close_nothing_is_taken(tmp_path: Path) -> None:
    meter = Party.new("device")
    async with ingest_path(tmp_path, meter) as path:
        await path.ingest.close()
        with pytest.raises(SinkUnavailable, match="shutting down"):
            await put(path, meter, b"x")
        await path.journal.close()
        with pytest.raises(JournalUnavailable, match="closed"):
            await path.journal.append([], [])


async def test_a_gateway_takes_only_what_its_organisation_may_receive(tmp_path: Path) -> None:
    meter = Party.new("device")
    async with ingest_path(tmp_path, meter) as path:
        path.registry.enrol(Enrolment(meter.did, orgs=("b",)))
        assert (await put(path, meter, b"x"))[0].reason == "not_permitted"
        path.registry.enrol(Enrolment(meter.did, orgs=("a", "b"), credentials=(("mqtt", "plant-7"),)))
        payload = signed_payload(meter, T, {"import_j": 1}, 1)
        (receipt,) = await path.ingest.put([Frame("mqtt", "plant-7", payload, NOW)], NativeCodec())
        assert receipt.outcome is Outcome.STORED
        (other,) = await path.ingest.put([Frame("lwm2m", "plant-7", payload, NOW)], NativeCodec())
        assert other.reason == "unknown_device"
        stranger = Party.new("device")
        path.registry.apply(*registration(stranger))
        with pytest.raises(ValueError, match="is bound to"):
            path.registry.enrol(Enrolment(stranger.did, credentials=(("mqtt", "plant-7"),)))


async def test_the_message_is_the_models_for_any_order_of_fields(tmp_path: Path) -> None:
    meter = Party.new("device", p256=False)
    async with ingest_path(tmp_path, meter) as path:
        reading = Reading(
            did=meter.did, key_version=1, network="test", observed_at=T, seq=3, registers={"power_w": -5, "import_j": 3}
        )
        signed = SignedReading(reading=reading, signature=sign(meter.private, reading.message()))
        (receipt,) = await put(path, meter, json.dumps(signed.model_dump(), indent=1).encode())
        assert receipt.outcome is Outcome.STORED
