"""From the journal to anchored windows and proofs that hold offline."""

import hashlib
import hmac
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.contracts import NETWORK, Party
from support.readings import NOW, IngestPath, PlainCodec, frame_of, ingest_path, signed_payload

from flexrelay.ingest import NativeCodec
from flexrelay.journal import Entry
from flexrelay.journal.consumer import catch_up
from flexrelay.store import Store
from flexrelay.windows import WINDOWS, Anchor, BadProof, Calendar, Erased, NoProof, Prover, Vault, Windows, check_proof
from flexrelay.windows.attest import attested
from flexrelay.windows.vault import period_of, salt_of
from flexrelay_schemas.canonical import MAX_INTEGER, canonical
from flexrelay_schemas.evidence import InclusionProof
from flexrelay_schemas.intervals import CalendarDay
from flexrelay_schemas.measurement import Measurement
from flexrelay_schemas.quality import Notice
from flexrelay_schemas.reading import (
    REGISTERS,
    AnchoredAttestation,
    Attestation,
    Attested,
    SignedAttestation,
)
from flexrelay_sdk import Outcome

ISP = 900_000
DAY = CalendarDay(date="2023-11-14", start=NOW - 40 * ISP, isps=96, isp_seconds=900, working=True)
GRACE = 60_000


@dataclass
class Gateway:
    path: IngestPath
    store: Store
    vault: Vault
    windows: Windows
    prover: Prover

    async def put(self, party: Party, *readings: tuple[int, int, int]) -> list[Outcome]:
        """(observed_at, import_j, seq)"""
        frames = [
            frame_of(party.did, signed_payload(party, at, {"import_j": value, "export_j": 0}, seq))
            for at, value, seq in readings
        ]
        receipts = await self.path.ingest.put(frames, NativeCodec())
        await catch_up(self.path.journal, self.windows)
        return [receipt.outcome for receipt in receipts]


@asynccontextmanager
async def gateway(
    folder: Path, *parties: Party, unsigned: tuple[Party, ...] = (), windows_file: str = "store.db"
) -> AsyncIterator[Gateway]:
    async with AsyncExitStack() as stack:
        calendar = Calendar([DAY])
        path = await stack.enter_async_context(
            ingest_path(folder, *parties, unsigned=unsigned, due_until=lambda now: calendar.ended_by(now - GRACE))
        )
        store = await stack.enter_async_context(Store(folder / windows_file, [WINDOWS]))
        vault = stack.enter_context(Vault(folder / "vault.db"))
        counts = path.registry.counts
        windows = await Windows.open(store, vault, calendar, counts, GRACE)
        yield Gateway(path, store, vault, windows, Prover(store, path.journal, vault, "a"))


def end_of(isp: int) -> int:
    return DAY.bounds(isp)[1]


async def test_windows_close_a_grace_after_their_end_and_hold_the_reading_at_their_end(tmp_path: Path) -> None:
    meter = Party.new("device")
    async with gateway(tmp_path, meter) as side:
        end = end_of(30)
        await side.put(meter, (end - ISP, 1, 1), (end - 1, 2, 2), (end, 3, 3), (end + 1, 4, 4))
        assert (await side.windows.close(end + GRACE - 1)).windows == 1  # ISP 29 only
        closed = await side.windows.close(end + GRACE)
        assert (closed.windows, closed.leaves) == (1, 2)
        first, second = await side.windows.windows(meter.did, 0, NOW)
        assert (first.isp, first.leaves, second.isp, second.leaves) == (29, 1, 30, 2)
        assert (await side.windows.close(end + GRACE)).windows == 0


async def test_proofs_lead_to_the_anchor_and_nothing_else_does(tmp_path: Path) -> None:
    meters = [Party.new("device", p256=index % 2 == 0) for index in range(5)]
    async with gateway(tmp_path, *meters) as side:
        for number, meter in enumerate(meters):
            await side.put(
                meter, *[(end_of(10) - index * 60_000, 10_000 - index, 100 - index) for index in range(number + 1)]
            )
        await side.windows.close(NOW)
        anchor = await side.windows.anchor(NOW)
        assert anchor is not None
        assert (anchor.windows, anchor.leaves, anchor.last_ms) == (5, 15, end_of(10))
        assert await side.windows.anchor(NOW) is None
        for number, meter in enumerate(meters):
            for index in range(number + 1):
                at = end_of(10) - index * 60_000
                proof = await side.prover.proof(meter.did, at)
                again = InclusionProof.model_validate_json(proof.model_dump_json())
                payload = check_proof(again, anchor.root, anchor.windows)
                assert payload == signed_payload_of(side, payload)
                wrong = proof.model_copy(update={"salt": "A" * 22})
                with pytest.raises(BadProof):
                    check_proof(wrong, anchor.root, anchor.windows)
                with pytest.raises(BadProof):
                    check_proof(proof, "0" * 64, anchor.windows)
        with pytest.raises(NoProof):
            await side.prover.proof(meters[0].did, end_of(10) - 5)


def signed_payload_of(side: Gateway, payload: bytes) -> bytes:
    assert payload.startswith(b'{"reading":')
    return payload


async def test_a_reading_is_late_from_the_moment_its_window_is_due(tmp_path: Path) -> None:
    meter = Party.new("device")
    async with gateway(tmp_path, meter) as side:
        end = end_of(20)
        side.path.now[0] = end + GRACE - 1
        assert (await side.windows.close(end + GRACE - 1)).windows == 0
        await side.put(meter, (end - 10, 5, 5), (end, 9, 7))
        side.path.now[0] = end + GRACE
        assert side.windows.due_until(end + GRACE) == end
        assert (await side.windows.close(end + GRACE)).windows == 1
        await side.put(meter, (end - 5, 7, 6), (end + 1, 10, 8))
        assert (await side.windows.close(end + GRACE)).leaves == 1
        assert [window.revision for window in await side.windows.windows(meter.did, 0, NOW)] == [1, 2]
        entries = await side.path.journal.read(0, 10)
        assert [entry.measurements[0].notice for entry in entries] == [
            Notice.NONE,
            Notice.GAP,
            Notice.LATE | Notice.BACKFILLED,
            Notice.NONE,
        ]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5), st.integers(4, 9)), max_size=4), st.integers(0, 400_000)
)
def test_the_last_ended_isp(shapes: list[tuple[int, int, int]], instant: int) -> None:
    days, start = [], 20_000
    for number, (gap, isps, seconds) in enumerate(shapes):
        start += gap * 10_000
        days.append(
            CalendarDay(date=f"2016-05-0{number + 1}", start=start, isps=isps, isp_seconds=seconds, working=True)
        )
        start = days[-1].end
    ends = [day.bounds(isp)[1] for day in days for isp in range(1, day.isps + 1)]
    calendar = Calendar(days)
    assert calendar.ended_by(instant) == max([end for end in ends if end <= instant], default=-1)


async def test_a_late_reading_makes_a_revision_that_names_the_one_before(tmp_path: Path) -> None:
    meter = Party.new("device")
    async with gateway(tmp_path, meter) as side:
        end = end_of(20)
        await side.put(meter, (end - 10, 5, 5), (end, 9, 9))
        await side.windows.close(NOW)
        first_anchor = await side.windows.anchor(NOW)
        await side.put(meter, (end - 5, 7, 7))
        await side.windows.close(NOW)
        second_anchor = await side.windows.anchor(NOW)
        one, two = await side.windows.windows(meter.did, 0, NOW)
        assert (one.revision, one.previous, one.leaves) == (1, "", 2)
        assert (two.revision, two.previous, two.leaves) == (2, one.root, 3)
        assert first_anchor is not None and second_anchor is not None
        early = await side.prover.proof(meter.did, end)
        check_proof(early, first_anchor.root, first_anchor.windows)
        same_later = await side.prover.proof(meter.did, end, revision=2)
        check_proof(same_later, second_anchor.root, second_anchor.windows)
        late = await side.prover.proof(meter.did, end - 5)
        assert late.window.revision == 2
        check_proof(late, second_anchor.root, second_anchor.windows)


async def test_windows_rebuilt_from_journal_and_vault_are_the_same_bytes(tmp_path: Path) -> None:
    meter, plain = Party.new("device"), Party.new("device")
    async with gateway(tmp_path, meter, unsigned=(plain,)) as side:
        await side.put(meter, *[(end_of(3) - index * 1000, 500 - index, 500 - index) for index in range(20)])
        frames = [frame_of(plain.did, b'{"t": %d, "import_j": 7}' % (end_of(3) - 3))]
        await side.path.ingest.put(frames, PlainCodec())
        await catch_up(side.path.journal, side.windows)
        await side.windows.close(NOW)
        anchor = await side.windows.anchor(NOW)
        async with Store(tmp_path / "again.db", [WINDOWS]) as store:
            again = await Windows.open(
                store,
                side.vault,
                Calendar([DAY]),
                lambda did, at: True,
                GRACE,
            )
            await catch_up(side.path.journal, again)
            await again.close(NOW)
            assert await again.anchor(NOW) == anchor
            for did in (meter.did, plain.did):
                assert await again.windows(did, 0, NOW) == await side.windows.windows(did, 0, NOW)


async def test_a_gateway_attests_what_cannot_sign(tmp_path: Path) -> None:
    plain = Party.new("device")
    async with gateway(tmp_path, unsigned=(plain,)) as side:
        frames = [
            frame_of(plain.did, b'[{"t": %d, "import_j": 7}, {"t": %d, "import_j": 9}]' % (end_of(3) - 3, end_of(3)))
        ]
        await side.path.ingest.put(frames, PlainCodec())
        await catch_up(side.path.journal, side.windows)
        await side.windows.close(NOW)
        anchor = await side.windows.anchor(NOW)
        assert anchor is not None
        proof = await side.prover.proof(plain.did, end_of(3))
        stated = AnchoredAttestation.model_validate_json(check_proof(proof, anchor.root, anchor.windows)).attestation
        assert (stated.did, stated.network, stated.registers) == (plain.did, NETWORK, {"import_j": 9})
        assert stated.frame_sha256 == hashlib.sha256(frames[0].payload).hexdigest()


async def test_a_signed_attestation_of_an_earlier_release_stays_the_evidence(tmp_path: Path) -> None:
    """Those of another instant, before and after it, are in the form of today."""
    plain, other = Party.new("device"), Party.new("device")
    at = end_of(3)
    old = Attestation(
        did=plain.did, frame_sha256="ab" * 32, gateway=other.did, key_version=1, network=NETWORK, observed_at=at,
        registers={"import_j": 8},
    )  # fmt: skip
    kept = canonical(SignedAttestation(attestation=old, signature="A" * 86).model_dump())
    with Vault(tmp_path / "vault.db"):
        pass
    with closing(sqlite3.connect(tmp_path / "vault.db", isolation_level=None)) as file:
        file.execute("INSERT INTO vault_attestation VALUES (?, ?, ?)", (plain.did, at, kept))
    async with gateway(tmp_path, unsigned=(plain, other)) as side:
        times = [(plain, at - 1, 7), (plain, at, 8), (plain, at + 1, 9), (other, at, 5)]
        frames = [frame_of(party.did, b'{"t": %d, "import_j": %d}' % (t, value)) for party, t, value in times]
        await side.path.ingest.put(frames, PlainCodec())
        await catch_up(side.path.journal, side.windows)
        await side.windows.close(NOW)
        anchor = await side.windows.anchor(NOW)
        assert anchor is not None
        for party, t, value in times:
            proof = await side.prover.proof(party.did, t)
            data = check_proof(proof, anchor.root, anchor.windows)
            if (party, t) == (plain, at):
                assert data == kept
            else:
                assert AnchoredAttestation.model_validate_json(data).attestation.registers == {"import_j": value}


@given(secret=st.binary(min_size=32, max_size=32), observed_at=st.integers(0, MAX_INTEGER), evidence=st.binary())
def test_a_salt_is_an_hmac(secret: bytes, observed_at: int, evidence: bytes) -> None:
    content = b"flexrelay-salt-v1" + observed_at.to_bytes(8, "big") + hashlib.sha256(evidence).digest()
    assert salt_of(secret, observed_at, evidence) == hmac.digest(secret, content, "sha256")[:16]


@given(
    observed_at=st.integers(0, MAX_INTEGER),
    registers=st.dictionaries(st.sampled_from(sorted(REGISTERS)), st.integers(0, MAX_INTEGER), min_size=1),
    payload=st.binary(max_size=40),
    sign=st.sampled_from([1, -1]),
)
def test_attested_evidence_is_the_canonical_document(
    observed_at: int, registers: dict[str, int], payload: bytes, sign: int
) -> None:
    did = "did:flexrelay:demo:zQmQsjRUb8aftf27qgqFMw7RLAsxcGcvXWeWmKYnKdxZdLC"
    registers |= {"power_w": sign * 7}
    measurements = (Measurement(did, observed_at, registers), Measurement(did, 1, {"import_j": 5}))
    entry = Entry(1, 0, did, "p", "c", "c", 0, False, payload, measurements)
    found = list(attested(entry))
    assert [measurement for measurement, _ in found] == list(measurements)
    for measurement, data in found:
        document = AnchoredAttestation(
            attestation=Attested(
                did=did, frame_sha256=hashlib.sha256(payload).hexdigest(), network="demo",
                observed_at=measurement.observed_at, registers=dict(measurement.registers),
            )
        )  # fmt: skip
        assert data == canonical(document.model_dump())


async def test_a_revoked_device_is_withheld_when_its_window_closes(tmp_path: Path) -> None:
    good, bad = Party.new("device"), Party.new("device")
    async with gateway(tmp_path, good, bad) as side:
        await side.put(good, (end_of(5), 1, 1))
        await side.put(bad, (end_of(5), 1, 1))
        side.path.registry.apply("identity.suspended", {"did": bad.did, "kind": "device", "reason": "test"})
        closed = await side.windows.close(NOW)
        assert (closed.windows, closed.withheld) == (1, 1)
        assert await side.windows.windows(bad.did, 0, NOW) == []
        side.path.registry.apply(
            "identity.reinstated", {"did": bad.did, "kind": "device", "version": 2, "key": bad.operation.key}
        )
        assert (await side.windows.close(NOW)).windows == 1


async def test_what_was_observed_before_the_revocation_is_anchored_and_nothing_after(tmp_path: Path) -> None:
    meter = Party.new("device")
    async with gateway(tmp_path, meter) as side:
        ended = end_of(5) - 10

        def apply(name: str, market_ms: int) -> None:
            event = {"did": meter.did, "kind": "device", "market_ms": market_ms, "version": 2, "key": "k"}
            side.path.registry.apply("identity." + name, event)

        await side.put(meter, (ended - 1, 1, 1), (ended, 2, 2), (end_of(5), 3, 3), (end_of(6), 4, 4))
        apply("suspended", ended)
        closed = await side.windows.close(NOW)
        assert (closed.windows, closed.leaves, closed.withheld) == (1, 1, 3)
        anchor = await side.windows.anchor(NOW)
        assert anchor is not None and anchor.leaves == 1
        check_proof(await side.prover.proof(meter.did, ended - 1), anchor.root, anchor.windows)
        with pytest.raises(NoProof):
            await side.prover.proof(meter.did, ended)
        apply("reinstated", end_of(6) - 1)  # what lies between the two stays out for good
        closed = await side.windows.close(NOW)
        assert (closed.windows, closed.leaves, closed.withheld) == (1, 1, 2)
        apply("deactivated", end_of(7))
        closed = await side.windows.close(NOW)
        assert (closed.windows, closed.withheld) == (0, 2)


async def test_a_reading_of_an_unpublished_day_waits(tmp_path: Path) -> None:
    meter = Party.new("device")
    async with gateway(tmp_path, meter) as side:
        await side.put(meter, (DAY.start, 1, 1), (DAY.start + 1, 2, 2))  # the day's start belongs to the day before
        closed = await side.windows.close(NOW)
        assert (closed.windows, closed.undated) == (1, 1)


async def test_anchors_are_handed_over_exactly_once_with_their_intent(tmp_path: Path) -> None:
    meter = Party.new("device")
    async with gateway(tmp_path, meter) as side:
        await side.store.write(
            lambda connection: connection.execute("CREATE TABLE given (id TEXT, data BLOB)") and None
        )
        await side.put(meter, (end_of(5), 1, 1))
        await side.windows.close(NOW)
        anchor = await side.windows.anchor(NOW)
        assert anchor is not None

        async def intent(given: Anchor) -> bytes:
            return given.anchor_id.encode()

        def full(connection: sqlite3.Connection, given: Anchor, data: bytes) -> None:
            connection.execute("INSERT INTO given VALUES (?, ?)", (given.anchor_id, data))
            raise RuntimeError("the outbox is full")

        def add(connection: sqlite3.Connection, given: Anchor, data: bytes) -> None:
            connection.execute("INSERT INTO given VALUES (?, ?)", (given.anchor_id, data))

        with pytest.raises(RuntimeError):
            await side.windows.hand_over(intent, full)
        assert await side.windows.hand_over(intent, add) == 1
        assert await side.windows.hand_over(intent, add) == 0
        rows = await side.store.read(lambda connection: connection.execute("SELECT id FROM given").fetchall())
        assert rows == [(anchor.anchor_id,)]


def holds(folder: Path, secret: bytes) -> bool:
    return any(secret in file.read_bytes() for file in folder.glob("vault.db*"))


async def test_erasing_the_secret_ends_the_proofs_and_leaves_no_copy(tmp_path: Path) -> None:
    meter, other = Party.new("device"), Party.new("device")
    async with gateway(tmp_path, meter, other) as side:
        await side.put(meter, (end_of(5), 1, 1))
        await side.put(other, (end_of(5), 1, 1))
        await side.windows.close(NOW)
        await side.windows.anchor(NOW)
        secret = side.vault.secrets([(meter.did, "2023-11")])[meter.did, "2023-11"]
        assert secret is not None and holds(tmp_path, secret)
        assert side.vault.erase(meter.did) == 1
        assert not holds(tmp_path, secret)
        with pytest.raises(Erased):
            await side.prover.proof(meter.did, end_of(5))
        await side.prover.proof(other.did, end_of(5))
        await side.put(meter, (end_of(6), 2, 2))  # stays erased: no new secret for an erased month
        assert (await side.windows.close(NOW)).windows == 0


def test_an_erasure_that_is_stopped_half_way_can_be_asked_for_again(tmp_path: Path) -> None:
    did, at = "did:flexrelay:pilot:z1", end_of(5)
    stop = "CREATE TRIGGER stop BEFORE DELETE ON vault_attestation BEGIN SELECT RAISE(ABORT, 'stopped'); END"
    with (
        Vault(tmp_path / "vault.db") as vault,
        closing(sqlite3.connect(tmp_path / "vault.db", isolation_level=None)) as file,
    ):
        vault.secrets([(did, period_of(at))])
        file.execute("INSERT INTO vault_attestation VALUES (?, ?, ?)", (did, at, b"what it measured"))
        file.execute(stop)
        with pytest.raises(sqlite3.DatabaseError, match="stopped"):
            vault.erase(did)
        file.execute("DROP TRIGGER stop")
        assert vault.erase(did) == 1
        assert file.execute("SELECT count(*) FROM vault_attestation").fetchone() == (0,)


async def test_many_windows_close_in_several_transactions_and_one_anchor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flexrelay.windows.windows.CLOSE_AT_ONCE", 25)
    meters = [Party.new("device", p256=False) for _ in range(3)]
    async with gateway(tmp_path, *meters) as side:
        for meter in meters:
            await side.put(meter, *[(end_of(isp), isp, isp) for isp in range(1, 41)])
        first = await side.windows.close(NOW + 2 * GRACE)
        assert (first.windows, first.leaves) == (120, 120)
        anchor = await side.windows.anchor(NOW)
        assert anchor is not None and anchor.windows == 120
        for isp in (1, 17, 40):
            proof = await side.prover.proof(meters[2].did, end_of(isp))
            check_proof(proof, anchor.root, anchor.windows)


async def test_closing_goes_on_after_a_crash_between_transactions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flexrelay.windows.windows.CLOSE_AT_ONCE", 7)
    meter = Party.new("device")
    async with gateway(tmp_path, meter) as side:
        await side.put(meter, *[(end_of(isp), isp, isp) for isp in range(1, 31)])
        counts = side.windows._counts
        asked = 0

        def dies(did: str, observed_at: int) -> bool:
            nonlocal asked
            asked += 1
            if asked > 30 + 16:  # in the third transaction
                raise KeyboardInterrupt
            return counts(did, observed_at)

        side.windows._counts = dies
        with pytest.raises(KeyboardInterrupt):
            await side.windows.close(NOW)
        assert len(await side.windows.windows(meter.did, 0, NOW)) == 14
        side.windows._counts = counts
        assert (await side.windows.close(NOW)).windows == 16
        assert [window.revision for window in await side.windows.windows(meter.did, 0, NOW)] == [1] * 30
