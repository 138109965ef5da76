"""`flexrelay custody` on a populated folder: everything verifies, and any changed byte of a stored reading shows."""

import json
import random
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from support.pilot import ISP_MS, READINGS, START_MS, answer, flexrelay, problems

from flexrelay.journal.segment import decode_segment, encode_segment
from flexrelay_schemas.encoding import b64u_decode

Copy = Callable[[Path], Path]
FLIPS = 12


def did_of(folder: Path, name: str) -> str:
    return str(answer("device", "show", folder, name)["did"])


def test_everything_verifies(populated: Path) -> None:
    report = answer("custody", "verify", populated)
    assert report["verified"]
    agg = next(item for item in report["gateways"] if item["org"] == "agg")
    assert agg["problems"] == agg["notices"] == []
    assert (agg["readings"], agg["anchored"], agg["waiting"]) == (READINGS + 8, READINGS + 8, 0)
    assert agg["windows"] == READINGS + 8
    assert agg["anchors"] >= 1 and agg["anchors_waiting"] == 0


@pytest.mark.parametrize("name", ["m1", "pv1"])
def test_a_record_by_position_and_by_reading_is_the_same(populated: Path, name: str) -> None:
    at = START_MS + 3 * ISP_MS
    by_reading = answer("custody", "show", populated, "--org", "agg", "--reading", f"{did_of(populated, name)}@{at}")
    by_name = answer("custody", "show", populated, "--org", "agg", "--reading", f"{name}@2026-03-02T00:45:00Z")
    position = by_reading["frame"]["position"]
    assert answer("custody", "show", populated, "--org", "agg", "--position", position) == by_reading == by_name
    tx = by_reading["anchor"]["block"]["tx_id"]
    assert answer("custody", "show", populated, "--org", "agg", "--tx", tx)["anchor"] == by_reading["anchor"]
    verified = answer("custody", "verify", populated, "--org", "agg", "--position", position)
    assert verified["verified"] and all(check["holds"] for check in verified["checks"])
    assert {check["link"] for check in verified["checks"]} >= {"inclusion", "signature", "anchor block", "journal"}


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--position", "1", "--order", "x"),
        ("--position", "999"),
        ("--order", "no-such-order"),
        ("--tx", "00"),
        ("--reading", "nobody@1"),
        ("--reading", "m1"),
        ("--reading", "m1@yesterday"),
        ("--line", "x"),
        ("--line", "x/3"),
        ("--line", "x/²"),
    ],
)
def test_a_wrong_selection_is_bad_input(populated: Path, arguments: tuple[str, ...]) -> None:
    result = flexrelay("custody", "show", populated, "--org", "agg", *arguments)
    assert result.exit_code == 2, result.output
    assert "flexrelay: " in result.stderr


def test_any_flipped_byte_of_a_stored_segment_is_found(populated: Path, copy_of: Copy) -> None:
    folder = copy_of(populated)
    path = folder / "agg" / "journal.db"
    random.seed(20)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        segments = database.execute("SELECT first, body FROM segment").fetchall()
        for _ in range(FLIPS):
            first, body = random.choice(segments)
            at = random.randrange(len(body))
            damaged = bytearray(body)
            damaged[at] ^= 1 << random.randrange(8)
            database.execute("UPDATE segment SET body = ? WHERE first = ?", (bytes(damaged), first))
            result = flexrelay("custody", "verify", folder, "--json")
            assert result.exit_code == 1, f"segment {first}, byte {at}: {result.output}"
            assert any(f"segment {first}–" in text for text in problems(result))
            one = flexrelay("custody", "verify", folder, "--org", "agg", "--position", first)
            assert one.exit_code == 1 and "its bytes do not give its hash" in one.stderr
            database.execute("UPDATE segment SET body = ? WHERE first = ?", (body, first))
    assert flexrelay("custody", "verify", folder).exit_code == 0


def test_any_flipped_byte_of_a_reading_in_the_raw_file_is_found(populated: Path, copy_of: Copy) -> None:
    folder = copy_of(populated)
    path = folder / "agg" / "journal.db"
    payloads = []
    for position in range(1, READINGS + 9):
        frame = answer("custody", "show", folder, "--org", "agg", "--position", position)["frame"]
        payloads.append(b64u_decode(frame["payload"]))
    good = path.read_bytes()
    pieces = [payload[at : at + 20] for payload in payloads for at in range(0, len(payload) - 20, 20)]
    spots = [start for piece in pieces if (start := good.find(piece)) > 0]  # pages cut a few of them
    assert len(spots) > len(pieces) * 9 // 10
    random.seed(21)
    for _ in range(FLIPS):
        at = random.choice(spots) + random.randrange(20)
        path.write_bytes(good[:at] + bytes([good[at] ^ (1 << random.randrange(8))]) + good[at + 1 :])
        result = flexrelay("custody", "verify", folder)
        assert result.exit_code == 1, f"byte {at}: {result.output}"
        assert "journal" in result.stderr
    path.write_bytes(good)
    assert flexrelay("custody", "verify", folder).exit_code == 0


def test_a_flip_anywhere_in_the_journal_file_never_ends_in_a_traceback(populated: Path, copy_of: Copy) -> None:
    """Unused space may be flipped without harm; everything else is exit 1 with a message."""
    folder = copy_of(populated)
    path = folder / "agg" / "journal.db"
    good = path.read_bytes()
    random.seed(22)
    found = 0
    for _ in range(FLIPS):
        at = random.randrange(len(good))
        path.write_bytes(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])
        for wal in path.parent.glob("journal.db-*"):
            wal.unlink()
        result = flexrelay("custody", "verify", folder)
        assert result.exit_code in (0, 1, 4), f"byte {at}: {result.exit_code} {result.exception!r}"
        if result.exit_code:
            found += 1
            assert result.stderr.strip(), f"byte {at}"
    assert found


def test_who_recomputes_the_journals_chain_is_found_by_signature_and_leaf(populated: Path, copy_of: Copy) -> None:
    folder = copy_of(populated)
    forge(folder / "agg" / "journal.db", lambda payload: payload.replace(b'"import_j":3000', b'"import_j":3001'))
    result = flexrelay("custody", "verify", folder, "--json")
    assert result.exit_code == 1
    texts = problems(result)
    assert any("signature does not hold" in text for text in texts)
    assert any("does not give its leaf" in text for text in texts)


def test_who_changes_an_attested_reading_is_found(populated: Path, copy_of: Copy) -> None:
    folder = copy_of(populated)
    forge(folder / "agg" / "journal.db", lambda payload: payload.replace(b'"export_j": 3', b'"export_j": 4'))
    result = flexrelay("custody", "verify", folder, "--json")
    assert result.exit_code == 1
    assert any("does not give its leaf" in text for text in problems(result))


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM window_leaf WHERE rowid_of = 1", "has no leaf"),
        ("UPDATE window_leaf SET hash = zeroblob(32) WHERE rowid_of = 1", "does not give its leaf"),
        ("UPDATE window_anchor SET root = hex(zeroblob(32))", "its windows do not give its root"),
        ("DELETE FROM window_anchor", "that is not there"),
        ("UPDATE window_revision SET leaf = zeroblob(32) WHERE revision = 1", "do not give its root"),
        ("UPDATE window_revision SET document = '{}' WHERE revision = 1", "its document is damaged"),
        ("UPDATE twin_reading SET export_j = export_j + 1 WHERE seq = 3", "is not the journal's"),
        ("UPDATE twin_reading SET provenance = 99 WHERE seq = 3", "is not the journal's"),
        ("UPDATE twin_reading SET observed_at = observed_at + 1 WHERE seq = 3", "that are not in the journal"),
        ("UPDATE twin_entity SET entity = replace(entity, 'meter_signed', 'estimated')", "newest entity"),
        ("UPDATE twin_entity SET entity = substr(entity, 2)", "is damaged"),
    ],
)
def test_changed_windows_and_anchors_are_found(populated: Path, copy_of: Copy, statement: str, said: str) -> None:
    folder = copy_of(populated)
    one = "(device, observed_at) = (SELECT device, observed_at FROM window_leaf LIMIT 1)"
    with closing(sqlite3.connect(folder / "agg" / "store.db", isolation_level=None)) as database:
        assert database.execute(statement.replace("rowid_of = 1", one)).rowcount > 0
    result = flexrelay("custody", "verify", folder, "--json")
    assert result.exit_code == 1
    assert any(said in text for text in problems(result)), problems(result)


def test_a_journal_that_lost_its_end_is_found(populated: Path, copy_of: Copy) -> None:
    folder = copy_of(populated)
    with closing(sqlite3.connect(folder / "agg" / "journal.db", isolation_level=None)) as database:
        database.execute("DELETE FROM segment WHERE first = (SELECT max(first) FROM segment)")
    result = flexrelay("custody", "verify", folder, "--json")
    assert result.exit_code == 1
    assert any("leaves are of later entries" in text for text in problems(result))


def test_an_anchor_that_this_gateway_does_not_know_is_a_notice(populated: Path, copy_of: Copy) -> None:
    folder = copy_of(populated)
    for name in ("journal.db", "store.db", "vault.db"):
        for path in (folder / "agg").glob(f"{name}*"):
            path.unlink()
    report = answer("custody", "verify", folder, "--org", "agg")
    assert report["gateways"][0]["readings"] == 0
    assert "this gateway has no windows of it" in report["gateways"][0]["notices"][0]


@pytest.mark.parametrize(("name", "lost"), [("store.db", "enrolments"), ("vault.db", "salts")])
def test_a_folder_without_one_of_its_databases_is_refused(populated: Path, copy_of: Copy, name: str, lost: str) -> None:
    """Made anew in silence, it would turn every reading away, or prove none of the old ones."""
    folder = copy_of(populated)
    for path in (folder / "agg").glob(f"{name}*"):
        path.unlink()
    for command in (("device", "list"), ("custody", "verify"), ("run",)):
        result = flexrelay(*command, folder)
        assert result.exit_code == 1
        assert f"{name} is missing or empty" in result.stderr and lost in result.stderr
    assert not (folder / "agg" / name).exists(), "what was not there is not made"


def test_a_store_that_is_missing_is_refused_before_the_first_reading_too(tmp_path: Path) -> None:
    """What is enrolled, and intents that are under way, are in no other file."""
    folder = tmp_path / "data"
    answer("init", folder, "--network", "pilot", "--org", "dso", "--http-port", 0)
    answer("device", "list", folder)
    store = folder / "dso" / "store.db"
    store.unlink()
    for command in (("device", "list"), ("run",)):
        result = flexrelay(*command, folder)
        assert result.exit_code == 1
        assert "store.db is missing or empty" in result.stderr and "enrolments" in result.stderr
    assert not store.exists(), "what was not there is not made"


def forge(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change payloads and recompute every segment's hash, as somebody who knows the format would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        rows = database.execute("SELECT first, last, newest_at, body FROM segment ORDER BY first").fetchall()
        before, changed = bytes(32), 0
        for first, last, newest, body in rows:
            entries = decode_segment(body, first, last - first + 1)
            forged = encode_segment([entry._replace(payload=change(entry.payload)) for entry in entries])
            changed += forged != body
            digest = sha256(before + struct.pack("<qqq", first, last, newest) + forged).digest()
            update = "UPDATE segment SET previous = ?, hash = ?, body = ? WHERE first = ?"
            database.execute(update, (before, digest, forged, first))
            before = digest
        assert changed


def test_json_of_a_failure_says_what_is_wrong(populated: Path) -> None:
    result = flexrelay("custody", "show", populated, "--org", "nobody", "--position", 1, "--json")
    assert result.exit_code == 2
    assert "has no gateway here" in json.loads(result.stdout)["error"]["message"]
