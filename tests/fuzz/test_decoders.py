"""Every decoder of what others sent or a disk gave back: its own error or a good value, whatever the bytes are.

`make soak` runs a million inputs and 20,000 of hypothesis for each decoder and prints seed and count; the seed of a
failure can be set again with FLEXRELAY_SEED.
"""

import json
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conformance.journal.contract import entry
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.chance import told_seed
from support.contracts import Party
from support.mutation import mutants
from support.opcua_publisher import data_set_message, encoded_by_node_opcua, metadata_message, network_message
from support.readings import NOW, signed_payload

from flexrelay.identity.keyfile import generate, sign_with
from flexrelay.ingest import decode_signed
from flexrelay.journal.segment import decode_segment, encode_segment
from flexrelay.ledger.embedded import envelope as wire
from flexrelay.ledger.embedded.block import BlockFormatError, decode_block, encode_block
from flexrelay.ledger.embedded.blockfile import BlockFile, encode_frame, read_frame
from flexrelay.ledger.embedded.engine import Engine
from flexrelay.ledger.embedded.errors import LedgerCorrupt
from flexrelay.ledger.embedded.genesis import Genesis, Organisation
from flexrelay.ledger.embedded.private import PrivateValues
from flexrelay.ledger.embedded.state import State
from flexrelay.ledger.port import Rejected, Validation
from flexrelay_adapters.mqtt import JsonMapping, MappingCodec
from flexrelay_adapters.mqtt.commands import parse_result
from flexrelay_adapters.opcua_pubsub import DataSet, PubSubCodec
from flexrelay_adapters.opcua_pubsub.frame import framed
from flexrelay_adapters.opcua_pubsub.message import METADATA, writer_of
from flexrelay_adapters.opcua_pubsub.message import data_set_message as data_set_message_of
from flexrelay_adapters.opcua_pubsub.message import network_message as divided
from flexrelay_adapters.opcua_pubsub.metadata import metadata_of
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import carried_intent
from flexrelay_schemas.canonical import MAX_INTEGER, CanonicalError, canonical, parse
from flexrelay_schemas.keys import multikey
from flexrelay_schemas.reading import SignedReading
from flexrelay_sdk import DecodeError, Frame

CI_MUTANTS, SOAK_MUTANTS = 10_000, 1_000_000
CI_EXAMPLES, SOAK_EXAMPLES = 60, 20_000
GROWTH_KB = 120_000
"""What a campaign may add to the process's greatest size: caches have bounds, inputs leave nothing behind."""


@dataclass(frozen=True)
class Target:
    """`check` takes an input and says whether it was accepted; it raises for anything but the decoder's own error."""

    samples: tuple[bytes, ...]
    check: Callable[[bytes], bool]
    share: int = 1
    """A slow decoder gets one in `share` of the counts."""


def _mapping() -> Target:
    power = {"pointer": "/b/0", "unit": "kW", "scale": -3, "required": False}
    registers = {"import_j": {"pointer": "/a", "unit": "Wh"}, "power_w": power}
    quality = {"pointer": "/q", "good": ["ok", 0]}
    timed = {"registers": registers, "seq": "/n", "quality": quality}
    forms = ("ms", "s", "iso8601")
    codecs = [
        MappingCodec(JsonMapping.model_validate({**timed, "observed_at": {"pointer": "/t", "form": form}, **more}))
        for form in forms
        for more in ({}, {"items": "/list"})
    ]
    times = (b"1463004000123", b"1463004000.5", b'"2016-05-12T00:00:00.1234+02:00"')
    alone = [b'{"a":%d.5,"b":[-3.25],"n":7,"q":"ok","t":%b}' % (n, text) for n, text in enumerate(times)]
    lists = [b'{"list":[%b,%b]}' % (one, one) for one in alone]
    samples = (*alone, *lists, b'{"a":5,"n":1,"q":0,"t":1463004000123}')

    def check(payload: bytes) -> bool:
        accepted = False
        for codec in codecs:
            try:
                found = codec.decode(Frame("mqtt", "m", payload, NOW, "t")).measurements
            except DecodeError as error:
                assert error.reason.replace("_", "").isalnum()
                continue
            accepted = True
            for one in found:
                assert one.registers and 0 < one.observed_at <= MAX_INTEGER
                for value in (*one.registers.values(), one.seq):
                    assert type(value) is int and -MAX_INTEGER <= value <= MAX_INTEGER
        return accepted

    return Target(samples, check, share=4)


def _reading() -> Target:
    meters = [Party.new("device", p256=True), Party.new("device", p256=False)]
    samples = [signed_payload(meter, NOW, {"import_j": 5, "power_w": -7}, 3) for meter in meters]
    samples.append(json.dumps(json.loads(samples[0]), indent=1).encode())

    def check(payload: bytes) -> bool:
        try:
            decoded = decode_signed(payload)
        except DecodeError as error:
            assert error.reason.replace("_", "").isalnum()
            assert not _is_evidence(payload)
            return False
        signed = SignedReading.model_validate(parse(payload))
        assert decoded.proof is not None and decoded.proof.message == signed.reading.message()
        assert decoded.measurements[0].registers == signed.reading.registers
        return True

    return Target(tuple(samples), check, share=2)


def _is_evidence(payload: bytes) -> bool:
    """Whether a contract would take it as a reading's evidence."""
    try:
        SignedReading.model_validate(parse(payload))
    except ValueError:
        return False
    return True


def _intent() -> Target:
    actor = Party.new()
    args = {"name": "é\u0000", "list": [1, None, {"x": "\U0010ffff"}], "n": -(2**53) + 1}
    good = actor.intent("accounts.fund", args, deadline=5)
    samples = (good, actor.intent("evidence.anchor", {}, deadline=2**53 - 1), json.dumps(json.loads(good)).encode())

    def check(data: bytes) -> bool:
        try:
            carried = carried_intent(data)
        except Refused as refused:
            assert refused.code in ("malformed", "unknown_version", "too_large") and refused.message
            return False
        assert carried.message == carried.signed.intent.message()
        return True

    return Target(samples, check)


def _envelope() -> Target:
    """Nothing that this ledger has not made comes past the attestation and the signature."""
    private = generate()
    key = multikey(private.public_key())
    genesis = Genesis(network="fuzz", organisations=(Organisation(name="dso", gateways=(key,)),))
    engine = Engine(
        genesis, State(""), PrivateValues(":memory:"), b"s" * 32, transactions={}, queries={}, clock=lambda: NOW
    )
    samples = []
    for number in range(3):
        body: wire.Body = {
            "v": 1, "network": "fuzz", "tx_id": f"{number}" * 64, "nonce": "0" * 48, "creator": ["dso", key],
            "timestamp": NOW, "function": "a.b", "intent": wire.b64(b"{}"), "transient": [], "result": "{}",
            "orgs": [["dso", wire.EXECUTED]], "events": [], "policies": [], "private": [], "private_reads": [],
            "ranges": [], "reads": [["k", 1, 2]], "writes": [["k", wire.b64(b"v" * number)]],
        }  # fmt: skip
        encoded = wire.encode_body(body)
        attestation = wire.attest(b"s" * 32, encoded)
        signature = sign_with(private, wire.signing_message(attestation, encoded))
        samples.append(wire.join(signature, attestation, encoded))
        assert engine.accept(samples[-1]).body == body

    def check(data: bytes) -> bool:
        try:
            accepted = engine.accept(data)
        except Rejected as rejected:
            assert str(rejected)
            return False
        assert accepted.envelope in samples
        return True

    return Target(tuple(samples), check)


def _block() -> Target:
    codes = [Validation.VALID, Validation.MVCC_READ_CONFLICT]
    samples = (
        encode_block(7, b"p" * 32, codes, [b"one" * 20, b"two"])[0],
        encode_block(7, b"p" * 32, [], [])[0],
        encode_block(7, bytes(32), codes[:1], [b""])[0],
    )

    def check(payload: bytes) -> bool:
        try:
            block = decode_block(7, payload)
        except BlockFormatError as error:
            assert str(error)
            return False
        assert encode_block(7, block.previous, block.codes, block.items) == (payload, block.hash)
        return True

    return Target(samples, check)


def _frame() -> Target:
    frames = [encode_frame(number, b"payload %d" % number * (number + 1)) for number in range(3)]

    def check(data: bytes) -> bool:
        payload = read_frame(data, 0, None)
        if payload is None:
            return False
        assert data.startswith(encode_frame(int.from_bytes(data[4:12], "big"), bytes(payload)))
        return True

    return Target((*frames, b"".join(frames)), check)


def _block_file() -> Target:
    """A file is opened with whole blocks from the beginning, or refused; nothing but its torn tail is ever cut."""
    frames = [encode_frame(number, bytes([number]) * 40 * number) for number in range(4)]
    whole = b"".join(frames)
    folder = Path(tempfile.mkdtemp(prefix="flexrelay-fuzz-"))

    def check(data: bytes) -> bool:
        path = folder / "blocks.dat"
        path.write_bytes(data)
        try:
            blocks = BlockFile(path, applied=1)
        except LedgerCorrupt as error:
            assert str(error)
            assert path.read_bytes() == data
            return False
        try:
            kept = b"".join(encode_frame(number, blocks.read(number)) for number in range(blocks.height))
        finally:
            blocks.close()
        assert kept == data[: len(kept)] == path.read_bytes() and blocks.height >= 1
        return True

    return Target((whole, whole[:-5], frames[0] + frames[1]), check, share=20)


def _segment() -> Target:
    segments = [encode_segment([entry(number) for number in range(1, count + 1)]) for count in (1, 2, 3)]

    def check(body: bytes) -> bool:
        accepted = False
        for count in (1, 2, 3):
            try:
                found = decode_segment(body, 1, count)
            except ValueError as error:
                assert str(error)
                continue
            accepted = True
            assert len(found) == count
            assert decode_segment(body, 1, count, skip=1) == found[1:]
        return accepted

    return Target(tuple(segments), check, share=2)


def _result() -> Target:
    good = {"v": 1, "command_id": "c-1", "state": "acked", "values": {"power_w": -5}, "detail": "é"}

    def check(payload: bytes) -> bool:
        try:
            result = parse_result(payload)
        except ValueError as error:
            assert str(error)
            return False
        assert all(type(value) is int for value in result.values.values())
        return True

    return Target((canonical(good), json.dumps(good).encode(), canonical({**good, "state": "failed"})), check)


def _json() -> Target:
    good = {"a": [1, -(2**53) + 1, True, None, "x\u0000\u2028é"], "é": {"": [[]]}, "\U00010000": "\uffff"}

    def check(data: bytes) -> bool:
        try:
            value = parse(data)
        except CanonicalError as error:
            assert str(error)
            return False
        again = canonical(value)
        assert parse(again) == value == json.loads(data)
        assert canonical(parse(again)) == again
        return True

    return Target(
        (canonical(good), json.dumps(good, indent=1).encode(), b"[" * 60 + b"]" * 60, b'"\\ud83d\\ude00"'), check
    )


def _pubsub() -> Target:
    """A NetworkMessage is divided into exactly its bytes; each part is a reading or refused."""
    registers = {
        "power_w": {"field": "Power", "unit": "kW"},
        "import_j": {"field": "Import", "unit": "Wh"},
        "voltage_mv": {"field": "Voltage", "unit": "V"},
    }
    codec = PubSubCodec([DataSet.model_validate({"registers": registers})])
    fields = ("Power", "Import", "Voltage")
    written = encoded_by_node_opcua().values()
    samples = [network_message(each["values"], each["variants"]) for each in written]
    samples += [json.dumps(each["metadata"]).encode() for each in written]
    samples += [metadata_message({"Power": 4937556}), json.dumps([data_set_message({"Import": "7"})]).encode()]

    def check(payload: bytes) -> bool:
        try:
            found = divided(payload)
            if found.kind == METADATA:
                assert len(metadata_of(found.document, fields).facts) < 1000
                return True
            parts = [(each, writer_of(each.header)) for each in found.messages]
        except DecodeError as error:
            assert error.reason.replace("_", "").isalnum()
            return False
        for each, writer in parts:
            assert each.raw in payload and data_set_message_of(each.raw) == each
            try:
                frame = Frame("opcua_pubsub", f"plc1/{writer}", framed(each.raw), NOW, "t")
                (reading,) = codec.decode(frame).measurements
            except DecodeError as error:
                assert error.reason.replace("_", "").isalnum()
                continue
            assert reading.registers and 0 < reading.observed_at <= MAX_INTEGER
            assert all(type(n) is int and -MAX_INTEGER <= n <= MAX_INTEGER for n in reading.registers.values())
        return True

    return Target(tuple(samples), check)


MAKERS: Mapping[str, Callable[[], Target]] = {
    "mqtt_mapping": _mapping,
    "pubsub_message": _pubsub,
    "signed_reading": _reading,
    "intent": _intent,
    "envelope": _envelope,
    "block": _block,
    "block_frame": _frame,
    "block_file": _block_file,
    "segment": _segment,
    "command_result": _result,
    "canonical_json": _json,
}


@pytest.fixture(scope="module", params=MAKERS)
def target(request: pytest.FixtureRequest) -> tuple[str, Target]:
    return request.param, MAKERS[request.param]()


def campaign(name: str, target: Target, count: int, seed: int) -> tuple[int, float]:
    """(accepted inputs, seconds). A failure names seed, number and input."""
    begin, accepted = time.monotonic(), 0
    for number, data in enumerate(mutants(target.samples, count, seed)):
        try:
            accepted += target.check(data)
        except BaseException as error:
            message = f"{name}, seed {seed}, input {number}: {error!r} for {data[:600].hex()}"
            raise AssertionError(message) from error
    return accepted, time.monotonic() - begin


def explore(name: str, target: Target, examples: int) -> None:
    """Inputs of hypothesis: any bytes, any JSON value, and a piece of a sample exchanged."""
    scalars: Any = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    values = st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    )
    texts = values.map(lambda value: json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass"))
    spliced = st.tuples(
        st.sampled_from(target.samples), st.integers(0, 4096), st.integers(0, 16), st.binary(max_size=16) | texts
    ).map(lambda parts: parts[0][: parts[1]] + parts[3] + parts[0][parts[1] + parts[2] :])

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.binary(max_size=300) | texts | spliced)
    def run(data: bytes) -> None:
        target.check(data)

    run()


def test_samples_are_good(target: tuple[str, Target]) -> None:
    name, made = target
    assert all(made.check(sample) for sample in made.samples), name


def test_changed_inputs(target: tuple[str, Target]) -> None:
    name, made = target
    accepted, _ = campaign(name, made, CI_MUTANTS // made.share, told_seed())
    assert accepted < CI_MUTANTS // made.share, "most changes matter"


def test_inputs_of_hypothesis(target: tuple[str, Target]) -> None:
    explore(*target, max(CI_EXAMPLES // target[1].share, 10))


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_million_changed_inputs(target: tuple[str, Target]) -> None:
    name, made = target
    count, seed = SOAK_MUTANTS // made.share, told_seed()
    campaign(name, made, 2_000, seed + 1)  # caches are full from here on
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    accepted, seconds = campaign(name, made, count, seed)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"\n{name}: {count} inputs from seed {seed}, {accepted} accepted, {seconds:.0f} s, + {grown} kB")
    assert grown < GROWTH_KB


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_many_inputs_of_hypothesis(target: tuple[str, Target]) -> None:
    explore(*target, SOAK_EXAMPLES // target[1].share)
