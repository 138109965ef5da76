"""`verify` finds whatever was changed, and names it."""

import random
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from conformance.ledger.contract import TRANSACTIONS
from conformance.ledger.embedded import EmbeddedNetwork
from conformance.ledger.harness import fresh
from integration.ledger.keys import SPEC

from flexrelay.ledger.embedded import Report, envelope, verify
from flexrelay.ledger.embedded.block import decode_block, encode_block
from flexrelay.ledger.embedded.blockfile import BlockFile, encode_frame
from flexrelay.ledger.port import Call, Validation

SECRET = "a-private-value-that-must-vanish"


@pytest.fixture
async def net(tmp_path: Path) -> AsyncIterator[EmbeddedNetwork]:
    """A closed ledger with every kind of transaction in it."""
    network = EmbeddedNetwork(SPEC, tmp_path)
    async with network.running():
        await network.bootstrap()
        ledger = network.connect("dso")
        key = fresh()
        await network.run("probe.put", key=key, value="1")
        late = await network.prepare(ledger, "probe.add", key=key, value="1")
        await network.run("probe.add", key=key, value="1")
        assert (await network.commit(ledger, late)).validation is Validation.MVCC_READ_CONFLICT
        await ledger.submit(late.envelope)
        await network.run("probe.count", start="k", end="l", out="counted")
        await network.run("probe.count", start="k", end="l", out="counted in part", limit=1)
        await network.run("probe.emit", names=["one", "two"])
        await network.run("probe.policy", key=key, orgs=["agga"])
        await network.run("probe.delete", key=key)
        await network.run("probe.put_and_read", key="own", value="v")
        await network.run("probe.about")
        for name in ("kept", "purged"):
            intent = network.intent("probe.private_put", collection="both", key=name)
            await network.commit(ledger, await ledger.prepare(Call(intent, {"value": (SECRET + name).encode()})))
        await network.run("probe.private_copy", collection="both", key="kept", out="length")
        await network.run("probe.private_purge", collection="both", key="purged")
    yield network


def _verify(net: EmbeddedNetwork) -> Report:
    return verify(net.folder, transactions=TRANSACTIONS)


async def test_an_untouched_ledger_is_in_order(net: EmbeddedNetwork) -> None:
    seen: list[tuple[int, int]] = []
    report = verify(net.folder, transactions=TRANSACTIONS, progress=lambda done, total: seen.append((done, total)))
    assert report.ok, report.problems
    assert (report.height, report.transactions) == (17, 16)
    assert (report.executed, report.hash_only, report.private_values) == (11, 3, 1)
    assert report.compared_state
    assert seen[-1][0] == seen[-1][1]


async def test_a_running_ledger_can_be_verified(net: EmbeddedNetwork) -> None:
    async with net.running():
        await net.run("probe.put", key="live", value="v")
        report = _verify(net)
        assert report.ok, report.problems
        assert report.compared_state
        assert report.last_hash == (await net.ledger.block(report.height - 1)).hash


async def test_a_purged_value_is_in_no_file(net: EmbeddedNetwork) -> None:
    async with net.running():
        for open_files in (True, False):
            for path in net.folder.iterdir():
                assert (SECRET + "purged").encode() not in path.read_bytes(), (path.name, open_files)
    assert (SECRET + "kept").encode() in b"".join(p.read_bytes() for p in net.folder.glob("private.db*"))


async def test_any_flipped_byte_of_the_blocks_is_found_and_named(net: EmbeddedNetwork) -> None:
    path = net.folder / "blocks.dat"
    whole = path.read_bytes()
    file = BlockFile(path, applied=0)
    file.close()
    chance = random.Random(7)
    for number, begin in enumerate(file.offsets):
        end = [*file.offsets, file.end][number + 1]
        for position in {begin, end - 1, *(chance.randrange(begin, end) for _ in range(6))}:
            changed = bytearray(whole)
            changed[position] ^= 1 << chance.randrange(8)
            path.write_bytes(changed)
            report = _verify(net)
            assert not report.ok
            first = report.problems[0]
            assert (first.file, first.block, first.offset) == ("blocks.dat", number, begin), str(first)
    path.write_bytes(whole)
    assert _verify(net).ok


async def test_a_forger_who_repairs_every_checksum_is_found(net: EmbeddedNetwork) -> None:
    """Change each part of an envelope or block, then recompute CRCs, data hashes and the chain of block hashes."""
    path = net.folder / "blocks.dat"
    whole = path.read_bytes()
    file = BlockFile(path, applied=0)
    blocks = [decode_block(number, file.read(number)) for number in range(file.height)]
    file.close()
    target = next(block for block in blocks if block.number == 2)
    parts = envelope.split(target.items[0])
    body = envelope.decode_body(parts.body)
    assert body["function"] == "probe.put"
    changes = {
        "writes": [["k", "eA=="]],
        "timestamp": body["timestamp"] + 1,
        "result": "{}",
        "orgs": [["agga", "executed"]],
        "intent": body["intent"][:-8] + "AAAAAAA=",
    }
    secret = (net.folder / "operator.key").read_bytes()
    for name, value in changes.items():
        forged = envelope.encode_body({**body, name: value})
        attestation = envelope.attest(secret, forged)  # even the operator's secret does not help
        item = envelope.join(parts.signature, attestation, forged)
        _write(path, blocks, {target.number: ((item,), target.codes)})
        assert any(problem.block == 2 for problem in _verify(net).problems), name
    _write(path, blocks, {target.number: (target.items, (Validation.MVCC_READ_CONFLICT,))})
    assert any("recorded as MVCC" in problem.message for problem in _verify(net).problems)
    _write(path, blocks, {target.number: ((), ())})
    assert not _verify(net).ok
    _write(path, blocks, {})
    assert path.read_bytes() == whole
    assert _verify(net).ok


def _write(path: Path, blocks, changes) -> None:  # type: ignore[no-untyped-def] # local
    previous, frames = bytes(32), []
    for block in blocks:
        items, codes = changes.get(block.number, (block.items, block.codes))
        payload, previous = encode_block(block.number, previous, codes, items)
        frames.append(encode_frame(block.number, payload))
    path.write_bytes(b"".join(frames))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE state SET value = CAST('2' AS BLOB) WHERE key = CAST('counted' AS BLOB)",
        "UPDATE state SET tx = tx + 1 WHERE key = CAST('counted' AS BLOB)",
        "DELETE FROM state WHERE key = CAST('counted' AS BLOB)",
        "INSERT INTO state VALUES (CAST('extra' AS BLOB), CAST('v' AS BLOB), 1, 0, NULL)",
        "UPDATE state SET policy = '[\"agga\"]' WHERE key = CAST('counted' AS BLOB)",
        "UPDATE tx SET code = 1 WHERE block = 3",
        "DELETE FROM tx WHERE block = 3",
        "UPDATE meta SET hash = zeroblob(32)",
        "UPDATE meta SET height = height + 1",
    ],
)
async def test_a_changed_state_is_found(net: EmbeddedNetwork, statement: str) -> None:
    database = sqlite3.connect(net.folder / "state.db")
    assert database.execute(statement).rowcount > 0
    database.commit()
    database.close()
    problems = _verify(net).problems
    assert {problem.file for problem in problems} == {"state.db"}, problems


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE private SET value = CAST('forged' AS BLOB)",
        "DELETE FROM private",
        "UPDATE private SET key = CAST('other' AS BLOB)",
    ],
)
async def test_a_changed_private_value_is_found(net: EmbeddedNetwork, statement: str) -> None:
    database = sqlite3.connect(net.folder / "private.db")
    assert database.execute(statement).rowcount == 1
    database.commit()
    database.close()
    assert {problem.file for problem in _verify(net).problems} == {"private.db"}


async def test_a_damaged_state_file_is_reported_not_raised(net: EmbeddedNetwork) -> None:
    (net.folder / "state.db").write_bytes(b"garbage" * 1000)
    assert {problem.file for problem in _verify(net).problems} == {"state.db"}


async def test_changed_contract_code_is_found(net: EmbeddedNetwork) -> None:
    from dataclasses import replace

    from conformance.ledger import contract

    def other(ctx, caller, args):  # type: ignore[no-untyped-def] # a contract function
        ctx.put(args.key, b"something else")
        return {"written": args.key}

    changed = {**TRANSACTIONS, "probe.put": replace(TRANSACTIONS["probe.put"], run=other)}
    problems = verify(net.folder, transactions=changed).problems
    assert [problem.message for problem in problems] == ["executed again, its writes differ"]
    assert contract.TRANSACTIONS is TRANSACTIONS
