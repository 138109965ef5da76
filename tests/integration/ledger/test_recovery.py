"""What opening does with a folder that a crash, or a person, has left."""

import asyncio
import errno
import hashlib
import os
import random
import resource
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from conformance.ledger.contract import QUERIES, TRANSACTIONS
from conformance.ledger.embedded import EmbeddedNetwork, held
from conformance.ledger.harness import fresh, wall_ms
from integration.ledger.keys import SPEC

from flexrelay.ledger.embedded import EmbeddedLedger, GenesisMismatch, LedgerCorrupt, LedgerLocked, verify
from flexrelay.ledger.embedded.blockfile import OVERHEAD, BlockFile
from flexrelay.ledger.embedded.private import PrivateChange, PrivateValues
from flexrelay.ledger.port import (
    Call,
    Checkpoint,
    Committed,
    LedgerError,
    LedgerUnavailable,
    NotFound,
    OutcomeUnknown,
    Rejected,
    Validation,
)


@pytest.fixture
async def net(tmp_path: Path) -> AsyncIterator[EmbeddedNetwork]:
    """A closed ledger with a few blocks; key "last" was written by the last one."""
    network = EmbeddedNetwork(SPEC, tmp_path)
    async with network.running():
        await network.bootstrap()
        for number in range(5):
            await network.run("probe.put", key=f"key-{number}", value="v")
        await network.run("probe.put", key="last", value="v")
    yield network


def _blocks(net: EmbeddedNetwork) -> Path:
    return net.folder / "blocks.dat"


def _offsets(net: EmbeddedNetwork) -> list[int]:
    blocks = BlockFile(_blocks(net), applied=0)
    blocks.close()
    return [*blocks.offsets, blocks.end]


def _forget_state(net: EmbeddedNetwork) -> None:
    """The state as if it had never heard of the last blocks (it is derived)."""
    for path in net.folder.glob("state.db*"):
        path.unlink()


async def test_everything_is_there_again(net: EmbeddedNetwork) -> None:
    async with net.running():
        assert await net.get("last") == "v"
        assert await net.ledger.height() == 8
        assert net.ledger.recovery.cut_bytes == 0
        await net.run("probe.put", key="more", value="v")
    async with net.running():
        assert await net.get("more") == "v"


@contextmanager
def _no_room(beyond: int = 1) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes: what it sees of a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (beyond, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_disk_that_is_full_at_the_start_is_no_damage(net: EmbeddedNetwork) -> None:
    files = {name: (net.folder / name).read_bytes() for name in ("blocks.dat", "state.db", "private.db")}
    with pytest.raises(LedgerUnavailable, match=r"state\.db cannot be used now"), _no_room():
        async with net.running():
            pass
    with pytest.raises(LedgerUnavailable, match=r"private\.db cannot be used now"), _no_room():
        PrivateValues(net.folder / "private.db")
    assert {name: (net.folder / name).read_bytes() for name in files} == files, "nothing was thrown away"
    async with net.running():
        assert not net.ledger.recovery.rebuilt_state
        assert await net.get("last") == "v"


def test_a_purge_without_room_to_wipe_the_log_is_done_and_wiped_the_next_time(tmp_path: Path) -> None:
    path, log = tmp_path / "private.db", tmp_path / "private.db-wal"
    values = PrivateValues(path)

    def hashed(key: str) -> str:
        return hashlib.sha256(key.encode()).hexdigest()

    for number, (key, size) in enumerate((("small", 100), ("large", 240_000))):
        values.stage(f"t{number}", 0, [("c", hashed(key), key, b"v" * size)])
        values.apply(number, [f"t{number}"], [PrivateChange(f"t{number}", "c", hashed(key), "x")])
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    values.stage("t2", 0, [("c", hashed("more"), "more", b"m" * 760_000)])  # fits the log, not yet the file
    with _no_room(log.stat().st_size + 65_536):
        values.apply(2, [], [PrivateChange("t3", "c", hashed("small"), None)])
        assert log.stat().st_size > 0, "there was room"
    assert values.height == 3 and values.get("c", "small") is None
    values.apply(3, [], [])
    assert log.stat().st_size == 0
    values.close()


async def test_a_torn_last_block_is_cut_wherever_it_was_torn(net: EmbeddedNetwork) -> None:
    whole, offsets = _blocks(net).read_bytes(), _offsets(net)
    begin, end = offsets[-2], offsets[-1]
    for cut in sorted({begin + 1, begin + 5, begin + OVERHEAD, *range(begin + 1, end, (end - begin) // 12), end - 1}):
        _forget_state(net)
        _blocks(net).write_bytes(whole[:cut])
        async with net.running():
            assert net.ledger.recovery.cut_bytes == cut - begin
            assert await net.get("last") is None
            assert await net.get("key-4") == "v"
            await net.run("probe.put", key="last", value="again")
        async with net.running():
            assert net.ledger.recovery.cut_bytes == 0
            assert await net.get("last") == "again"


@pytest.mark.parametrize("filling", [b"\x00", b"\xff"])
async def test_a_last_block_that_was_never_filled_is_cut(net: EmbeddedNetwork, filling: bytes) -> None:
    whole, offsets = _blocks(net).read_bytes(), _offsets(net)
    begin, end = offsets[-2], offsets[-1]
    for middle in (begin, begin + 10, (begin + end) // 2):
        _forget_state(net)
        _blocks(net).write_bytes(whole[:middle] + filling * (end - middle))
        async with net.running():
            assert net.ledger.recovery.cut_bytes == end - begin
            assert await net.get("last") is None


async def test_a_damaged_block_is_an_error_that_names_block_and_offset(net: EmbeddedNetwork) -> None:
    whole, offsets = _blocks(net).read_bytes(), _offsets(net)
    for number in (0, 3):
        for position in (offsets[number], offsets[number] + 13, offsets[number] + 200, offsets[number + 1] - 1):
            for forgotten in (False, True):
                if forgotten:
                    _forget_state(net)
                damaged = bytearray(whole)
                damaged[position] ^= 0x40
                _blocks(net).write_bytes(damaged)
                with pytest.raises(LedgerCorrupt) as caught:
                    async with net.running():
                        pass
                assert (caught.value.block, caught.value.offset) == (number, offsets[number])
                assert _blocks(net).read_bytes() == damaged, "a damaged file is left as it is"
                _blocks(net).write_bytes(whole)
    async with net.running():
        assert await net.get("last") == "v"


async def test_losing_an_acknowledged_block_is_an_error(net: EmbeddedNetwork) -> None:
    whole, offsets = _blocks(net).read_bytes(), _offsets(net)
    for end in (offsets[-2], offsets[-2] + 30, offsets[-1] - 1):
        _blocks(net).write_bytes(whole[:end])
        with pytest.raises(LedgerCorrupt) as caught:
            async with net.running():
                pass
        assert caught.value.block == 7


async def test_the_state_is_rebuilt_from_the_blocks(net: EmbeddedNetwork, caplog: pytest.LogCaptureFixture) -> None:
    async with net.running():
        intent = net.intent("probe.private_put", collection="both", key="p")
        ledger = net.connect("dso")
        await net.commit(ledger, await ledger.prepare(Call(intent, {"value": b"secret"})))
    for damage in ("delete", "garbage"):
        if damage == "delete":
            _forget_state(net)
        else:
            for path in net.folder.glob("state.db*"):
                path.write_bytes(b"this is no database " * 1000)
        async with net.running():
            assert net.ledger.recovery.replayed_blocks == 9
            assert net.ledger.recovery.rebuilt_state == (damage == "garbage")
            assert ("state.db was damaged and has been made again from 9 blocks" in caplog.text) == (
                damage == "garbage"
            )
            assert await net.get("last") == "v"
            args = {"collection": "both", "key": "p"}
            assert await net.connect("agga").evaluate("probe.private_get", args) == "secret"


async def test_an_envelope_of_before_the_restart_is_accepted_after_it(net: EmbeddedNetwork) -> None:
    async with net.running():
        ledger = net.connect("dso")
        prepared = await net.prepare(ledger, "probe.put", key="held", value="v")
        private = net.intent("probe.private_put", collection="both", key="p")
        secret = await ledger.prepare(Call(private, {"value": b"secret"}))
    async with net.running():
        ledger = net.connect("dso")
        for item in (prepared, secret):
            assert (await net.commit(ledger, item)).validation is Validation.VALID
        assert await net.get("held") == "v"
        args = {"collection": "both", "key": "p"}
        assert await ledger.evaluate("probe.private_get", args) == "secret"


async def test_a_folder_is_open_once(net: EmbeddedNetwork) -> None:
    async with net.running():
        with pytest.raises(LedgerLocked):
            async with EmbeddedLedger.open(net.folder, transactions={}, queries={}):
                pass
    async with net.running():
        pass


async def test_another_genesis_is_refused_and_says_what_differs(net: EmbeddedNetwork) -> None:
    other = net.genesis.model_copy(update={"tx_time_guard_ms": 1})
    with pytest.raises(GenesisMismatch, match="tx_time_guard_ms"):
        async with EmbeddedLedger.open(net.folder, other, transactions={}, queries={}):
            pass


async def test_a_missing_genesis_for_a_new_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(GenesisMismatch, match="genesis is needed"):
        async with EmbeddedLedger.open(tmp_path / "new", transactions={}, queries={}):
            pass
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["LOCK"], "nothing of a ledger is made"


async def test_a_lost_operators_secret_is_an_error(net: EmbeddedNetwork) -> None:
    secret = (net.folder / "operator.key").read_bytes()
    (net.folder / "operator.key").unlink()
    with pytest.raises(LedgerCorrupt, match=r"operator\.key is missing"):
        async with net.running():
            pass
    (net.folder / "operator.key").write_bytes(bytes(32))
    with pytest.raises(LedgerCorrupt, match=r"not the secret"):
        async with net.running():
            pass
    (net.folder / "operator.key").write_bytes(secret)
    async with net.running():
        assert await net.get("last") == "v"


async def test_a_checkpoint_beyond_the_ledger_is_an_error(net: EmbeddedNetwork) -> None:
    async with net.running():
        for checkpoint in (Checkpoint(99), Checkpoint(3, "0" * 64)):
            with pytest.raises(LedgerError):
                await anext(aiter(net.connect("dso").events(checkpoint)))


async def test_closing_ends_subscribers_and_writes_what_waits(net: EmbeddedNetwork) -> None:
    async with net.running():
        ledger = net.connect("dso")
        height = await net.ledger.height()

        async def follow() -> None:
            async for _ in ledger.events(Checkpoint(height - 1)):
                pass

        follower = asyncio.create_task(follow())
        prepared = [await net.prepare(ledger, "probe.put", key=fresh(), value="v") for _ in range(20)]
        submitted = [asyncio.create_task(ledger.submit(item.envelope)) for item in prepared]
        await asyncio.sleep(0)
    results = await asyncio.gather(*submitted, return_exceptions=True)
    with pytest.raises(LedgerUnavailable):
        await follower
    for call in (ledger.submit(prepared[0].envelope), ledger.status("0" * 64), ledger.evaluate("probe.get", {})):
        with pytest.raises(LedgerUnavailable):
            await call
    async with net.running():
        for item, result in zip(prepared, results, strict=True):
            found = await net.connect("dso").status(item.tx_id)
            assert isinstance(found, Committed) == (result is None)


async def test_blocks_are_cut_by_number_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = EmbeddedNetwork(SPEC, tmp_path)
    cutting = net.genesis.block_cutting.model_copy(update={"max_messages": 10, "timeout_ms": 300})
    net.genesis = net.genesis.model_copy(update={"block_cutting": cutting})
    async with net.running():
        await net.bootstrap()
        ledger = net.connect("dso")
        prepared = [await net.prepare(ledger, "probe.put", key=fresh(), value="v") for _ in range(25)]
        fill, missing = net.ledger._fill, [25]

        async def late(messages: int, seconds: float) -> None:
            """The first block's time begins when all are there."""
            await held(net.ledger, missing.pop() if missing else 0)
            await fill(messages, seconds)

        monkeypatch.setattr(net.ledger, "_fill", late)
        outcomes = await asyncio.gather(*(net.commit(ledger, item) for item in prepared))
        blocks = [outcome.block for outcome in outcomes]
        assert [blocks.count(number) for number in sorted(set(blocks))] == [10, 10, 5]


async def test_a_failing_device_stops_the_ledger_until_it_is_opened_again(
    net: EmbeddedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with net.running():
        ledger = net.connect("dso")
        prepared = await net.prepare(ledger, "probe.put", key="doubtful", value="v")

        def fail(descriptor: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "fdatasync", fail)
        for _ in range(2):
            with pytest.raises(OutcomeUnknown):
                await ledger.submit(prepared.envelope)
            monkeypatch.undo()
        assert isinstance(await ledger.status(prepared.tx_id), NotFound)
        assert await net.get("last") == "v"
    async with net.running():
        assert (await net.commit(net.connect("dso"), prepared)).validation is Validation.VALID


async def test_private_values_of_abandoned_transactions_are_forgotten(net: EmbeddedNetwork) -> None:
    now = 1_900_000_000_000
    opening = EmbeddedLedger.open(net.folder, transactions=TRANSACTIONS, queries=QUERIES, clock=lambda: now)
    async with opening as ledger:
        intent = net.operator.intent("probe.private_put", {"collection": "both", "key": "p"}, deadline=now)
        await ledger.connect("dso", net.gateways["dso"]).prepare(Call(intent, {"value": b"abandoned-secret"}))
    assert b"abandoned-secret" in _private(net)
    now += 3 * SPEC.guard_ms
    opening = EmbeddedLedger.open(net.folder, transactions=TRANSACTIONS, queries=QUERIES, clock=lambda: now)
    async with opening:
        assert b"abandoned-secret" not in _private(net)
    assert (net.folder / "private.db").stat().st_mode & 0o077 == 0


def _private(net: EmbeddedNetwork) -> bytes:
    return b"".join(path.read_bytes() for path in net.folder.glob("private.db*"))


async def test_an_envelope_too_old_is_refused_unless_it_stands_already(net: EmbeddedNetwork) -> None:
    shift = 0

    def clock() -> int:
        return wall_ms() + shift

    opening = EmbeddedLedger.open(net.folder, transactions=TRANSACTIONS, queries=QUERIES, clock=clock)
    async with opening as ledger:
        gateway = ledger.connect("dso", net.gateways["dso"])
        known = await net.prepare(gateway, "probe.put", key="known", value="v")
        late = await net.prepare(gateway, "probe.put", key="late", value="v")
        await net.commit(gateway, known)
        shift = 2 * SPEC.guard_ms
        with pytest.raises(Rejected, match="behind the ledger's clock"):
            await gateway.submit(late.envelope)
        await gateway.submit(known.envelope)
        assert (await gateway.status(known.tx_id)) == Committed(known.tx_id, 8, Validation.VALID)


async def test_a_garbled_folder_opens_to_a_prefix_or_not_at_all(net: EmbeddedNetwork) -> None:
    """Cut, overwrite, insert, repeat: whatever is done to the block file, what opens is a true beginning of the chain,
    and nothing that the state knew to be acknowledged goes missing silently."""
    whole = _blocks(net).read_bytes()
    state = {path.name: path.read_bytes() for path in net.folder.glob("state.db*")}
    async with net.running():
        hashes = [(await net.ledger.block(number)).hash for number in range(8)]
    chance = random.Random(11)
    opened = refused = 0
    for _ in range(60):
        garbled = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            position, length = chance.randrange(len(garbled)), chance.randint(1, 400)
            change = chance.choice(("cut", "overwrite", "insert", "zero", "repeat"))
            if change == "cut":
                del garbled[position:]
                if not garbled:
                    break
            elif change == "overwrite":
                garbled[position : position + length] = chance.randbytes(length)
            elif change == "insert":
                garbled[position:position] = chance.randbytes(length)
            elif change == "zero":
                garbled[position : position + length] = bytes(length)
            else:
                garbled += garbled[position : position + length]
        _blocks(net).write_bytes(garbled)
        _forget_state(net)
        knows = chance.random() < 0.5
        if knows:
            for name, data in state.items():
                (net.folder / name).write_bytes(data)
        try:
            async with net.running():
                height = await net.ledger.height()
                assert [(await net.ledger.block(number)).hash for number in range(height)] == hashes[:height]
                assert height == 8 or not knows
                opened += 1
        except LedgerError:
            refused += 1
        else:
            report = await asyncio.to_thread(verify, net.folder, transactions=TRANSACTIONS)
            assert report.ok, report.problems[:3]
    assert opened
    assert refused
