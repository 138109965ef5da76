"""Requests to the HTTP adapter: who may send what, batches, repeated keys, bodies that are too much."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from conformance.adapters.http.rig import tokens
from support.certificates import Authority

from flexrelay_adapters.http import HttpAdapter, make_adapter
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.testkit import RecordingSink, running, until

CODEC = {"kind": "json", "registers": {"power_w": {"pointer": "/p", "unit": "W"}}}


@asynccontextmanager
async def listening(folder: Path, sink: RecordingSink, **changes: Any) -> AsyncIterator[tuple[HttpAdapter, Any]]:
    """The adapter and a function that makes a client with the token of somebody."""
    names = {name: f"token of {name}, long enough" for name in ("meter1", "meter2", "edge7", "cloud")}
    (folder / "tokens").write_text(tokens(**names))
    section = {"port": 0, "tokens_file": "tokens", "codec": CODEC, "relays": ["edge7"], **changes}
    adapter = make_adapter("push", section, folder, NoNativeCodec())
    scheme = "https" if adapter.config.tls is not None else "http"
    async with running(adapter, sink):

        def client(name: str = "", **options: Any) -> httpx.AsyncClient:
            headers, url = (
                {"authorization": f"Bearer {names[name]}"} if name else {},
                f"{scheme}://127.0.0.1:{adapter.port}",
            )
            return httpx.AsyncClient(base_url=url, headers=headers, timeout=60, **options)

        yield adapter, client


async def test_each_element_of_a_batch_has_its_own_outcome_and_its_exact_bytes(tmp_path: Path) -> None:
    sink = RecordingSink()
    async with listening(tmp_path, sink) as (_, client), client("meter1") as device:
        answer = await device.post("/readings/batch", content=b'[ {"p": 1.0 } ,{"q":2},\n{"p": 3}]')
        assert answer.status_code == 200
        assert answer.json()["outcomes"] == [
            {"outcome": "stored", "position": 1},
            {"outcome": "dead_letter", "reason": "missing_field"},
            {"outcome": "stored", "position": 2},
        ]
        assert [frame.payload for frame in sink.frames] == [b'{"p": 1.0 }', b'{"p": 3}']
        lines = await device.post(
            "/readings/batch", content=b'{"p":4}\n{"p":5}\n', headers={"content-type": "application/x-ndjson"}
        )
        assert [each["outcome"] for each in lines.json()["outcomes"]] == ["stored", "stored"]
        assert sink.values() == [1, 3, 4, 5]
        assert sink.frames[0].received_at < sink.frames[1].received_at, "two readings of one instant"


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"", "not_json"), (b'{"p": 1}', "bad_items"), (b"[]", "bad_items"), (b"[1", "not_json"), (b"[] []", "not_json"),
     (b"[" * 9999, "not_json"), (b"\xff", "not_utf8"), (b"[" + b"1," * 20 + b"1]", "bad_items")],
)  # fmt: skip
async def test_a_batch_that_cannot_be_taken_apart_is_one_dead_letter(tmp_path: Path, body: bytes, reason: str) -> None:
    sink = RecordingSink()
    async with listening(tmp_path, sink, max_batch=20) as (_, client), client("meter1") as device:
        answer = await device.post("/readings/batch", content=body)
        assert (answer.status_code, answer.json()["reason"]) == (422, reason)
        assert [(frame.payload, why) for frame, why in sink.dead] == [(body, reason)]


async def test_a_repeated_key_gets_the_stored_outcome_and_stores_nothing(tmp_path: Path) -> None:
    sink = RecordingSink()
    async with listening(tmp_path, sink) as (_, client), client("meter1") as device, client("meter2") as other:
        key = {"idempotency-key": "k1"}
        first = await device.post("/readings", content=b'{"p":1}', headers=key)
        again = await device.post("/readings", content=b'{"p":1}', headers=key)
        assert (again.status_code, again.content) == (200, first.content)
        assert again.headers["idempotent-replayed"] == "true" and "idempotent-replayed" not in first.headers
        assert (await device.post("/readings", content=b'{"p":2}', headers=key)).status_code == 422
        assert (await other.post("/readings", content=b'{"p":7}', headers=key)).status_code == 200, (
            "keys are a sender's"
        )
        assert sink.values() == [1, 7]


async def test_a_key_is_free_again_when_nothing_was_stored(tmp_path: Path) -> None:
    sink = RecordingSink()
    sink.refuse = 1
    async with listening(tmp_path, sink) as (_, client), client("meter1") as device:
        key = {"idempotency-key": "k1"}
        busy = await device.post("/readings", content=b'{"p":1}', headers=key)
        assert busy.status_code == 503 and int(busy.headers["retry-after"]) >= 1
        assert (await device.post("/readings", content=b'{"p":1}', headers=key)).json()["outcome"] == "stored"


async def test_a_key_that_is_under_way_is_told_so(tmp_path: Path) -> None:
    sink = RecordingSink()
    sink.hold()
    async with listening(tmp_path, sink) as (_, client), client("meter1") as device:
        key = {"idempotency-key": "k1"}
        first = asyncio.create_task(device.post("/readings", content=b'{"p":1}', headers=key))
        await until(lambda: sink.waiting > 0, what="the first request")
        assert (await device.post("/readings", content=b'{"p":1}', headers=key)).status_code == 409
        sink.release()
        assert (await first).status_code == 200


async def test_a_relay_speaks_for_its_own_devices_only(tmp_path: Path) -> None:
    sink = RecordingSink()
    async with listening(tmp_path, sink) as (adapter, client), client("edge7") as relay, client("meter1") as device:
        assert (await relay.post("/readings/m9", content=b'{"p":1}')).status_code == 200
        assert (await relay.post("/readings/m9/batch", content=b'[{"p":2}]')).status_code == 200
        assert (await relay.post("/readings", content=b'{"p":3}')).status_code == 403
        assert (await relay.post("/readings/a/b", content=b'{"p":3}')).status_code == 403
        assert (await device.post("/readings/meter1", content=b'{"p":4}')).status_code == 200
        assert (await device.post("/readings/meter2", content=b'{"p":5}')).status_code == 403
        assert [frame.credential for frame in sink.frames] == ["edge7/m9", "edge7/m9", "meter1"]
        assert adapter.channels_for("edge7/m9") == ["/readings/m9"] and adapter.channels_for("meter1") == ["/readings"]
        for frame in sink.frames:
            assert adapter.codec_for(frame.channel) is not None
        assert adapter.codec_for("/other") is None


async def test_a_platform_names_its_devices_in_the_body(tmp_path: Path) -> None:
    sink = RecordingSink()
    changes = {"platforms": ["cloud"], "elements": "/data", "device": "/id", "webhook_origins": ["events.example.org"]}
    async with listening(tmp_path, sink, **changes) as (_, client), client("cloud") as platform:
        body = b'{"type": "Notification", "data": [{"id": "urn:a", "p": 1}, {"id": 7, "p": 2.50}, {"p": 3}]}'
        answer = await platform.post("/readings", content=body)
        assert answer.status_code == 200
        named = [(frame.credential, frame.payload) for frame in sink.frames]
        assert named == [("cloud/urn:a", b'{"id": "urn:a", "p": 1}'), ("cloud/7", b'{"id": 7, "p": 2.50}'),
                         ("cloud", b'{"p": 3}')]  # fmt: skip
        torn = await platform.post("/readings", content=b'{"data": 5}')
        assert (torn.status_code, torn.json()["reason"]) == (422, "bad_items")
        assert (await platform.post("/readings/x", content=body)).status_code == 403
        async with client() as stranger:
            asked = {"webhook-request-origin": "events.example.org"}
            answer = await stranger.options("/readings", headers=asked)
            assert answer.status_code == 200 and answer.headers["webhook-allowed-origin"] == "events.example.org"
            asked = {"webhook-request-origin": "elsewhere.example.org"}
            assert (await stranger.options("/readings", headers=asked)).status_code == 403


async def test_a_withdrawn_token_is_worth_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flexrelay_adapters._tokens._LOOK_S", 0.0)
    sink = RecordingSink()
    async with listening(tmp_path, sink) as (_, client), client("meter1") as device:
        assert (await device.post("/readings", content=b'{"p":1}')).status_code == 200
        (tmp_path / "tokens").write_text("")
        assert (await device.post("/readings", content=b'{"p":2}')).status_code == 401
        (tmp_path / "tokens").write_text("torn line\n")
        assert (await device.post("/readings", content=b'{"p":3}')).status_code == 401
    assert sink.values() == [1]


async def test_the_certificate_that_tls_has_verified_is_the_identity(tmp_path: Path) -> None:
    good, foreign = Authority(tmp_path / "ca"), Authority(tmp_path / "other", "other CA")
    server, mine, theirs = good.server(), good.client("meter8"), foreign.client("meter8")
    files = {"certificate": str(server.certificate), "key": str(server.key), "client_ca": str(good.ca)}
    sink = RecordingSink()

    def context(pair: Any) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(good.ca))
        if pair is not None:
            made.load_cert_chain(str(pair.certificate), str(pair.key))
        return made

    async with listening(tmp_path, sink, tls=files) as (_, client):
        async with client(verify=context(mine)) as device:
            assert (await device.post("/readings", content=b'{"p":1}')).status_code == 200
        async with client(verify=context(None)) as nobody:
            assert (await nobody.post("/readings", content=b'{"p":2}')).status_code == 401
        async with client("meter2", verify=context(None)) as by_token:
            assert (await by_token.post("/readings", content=b'{"p":3}')).status_code == 200
        async with client(verify=context(theirs)) as forged:
            with pytest.raises(httpx.TransportError):
                await forged.post("/readings", content=b'{"p":4}')
    assert [(frame.credential, stored) for frame, stored in zip(sink.frames, sink.values(), strict=True)] == [
        ("meter8", 1),
        ("meter2", 3),
    ]


async def test_a_broken_certificate_ends_the_start(tmp_path: Path) -> None:
    """Nobody would be served, and nobody would know."""
    authority = Authority(tmp_path / "ca")
    server = authority.server()
    (tmp_path / "torn.pem").write_bytes(server.key.read_bytes()[:-60])
    for torn, files in (
        ("torn.pem", {"certificate": str(server.certificate), "key": str(tmp_path / "torn.pem")}),
        ("torn.pem", {"certificate": str(server.certificate), "key": str(server.key), "client_ca": "torn.pem"}),
    ):
        with pytest.raises(OSError, match=f"push: .*{torn}.* cannot be used"):
            async with asyncio.timeout(60), listening(tmp_path, RecordingSink(), tls=files):
                await asyncio.sleep(60)


async def test_a_slow_and_a_lying_body_do_not_hold_the_others(tmp_path: Path) -> None:
    sink = RecordingSink()
    async with listening(tmp_path, sink, body_timeout_s=0.3, max_body_bytes=1000) as (adapter, client):
        reader, writer = await asyncio.open_connection("127.0.0.1", adapter.port)
        head = b"POST /readings HTTP/1.1\r\nhost: x\r\nauthorization: Bearer token of meter1, long enough\r\n"
        writer.write(head + b"content-length: 900\r\n\r\n{")
        async with client("meter2") as device:
            assert (await device.post("/readings", content=b'{"p":1}')).status_code == 200

            async def endless() -> AsyncIterator[bytes]:
                for _ in range(10_000):
                    yield b" " * 500

            assert (await device.post("/readings", content=endless())).status_code == 413
        assert b"408" in await asyncio.wait_for(reader.readline(), 60)
        writer.close()
        assert sink.values() == [1] and sink.dead == []


def test_configurations_that_let_nobody_in_or_mix_roles_are_refused(tmp_path: Path) -> None:
    base = {"port": 0, "codec": CODEC}
    for section, place in [
        (base, "nobody could send"),
        ({**base, "tokens_file": "t", "platforms": ["a"]}, "platforms and device"),
        ({**base, "tokens_file": "t", "elements": "/a"}, "elements is for platforms"),
        ({**base, "tokens_file": "t", "commands": "/readings/c"}, "commands must not"),
        ({**base, "tokens_file": "t", "relays": ["a"], "platforms": ["a"], "device": "/d"}, "not in both"),
    ]:
        with pytest.raises(ValueError, match=place):
            make_adapter("push", section, tmp_path, NoNativeCodec())
    (tmp_path / "t").write_text("meter1:token in clear\n")
    with pytest.raises(ValueError, match="line 1") as told:
        make_adapter("push", {**base, "tokens_file": "t"}, tmp_path, NoNativeCodec()).validate()
    assert "clear" not in str(told.value)


async def test_a_device_with_many_slow_bodies_leaves_room_for_the_others(tmp_path: Path) -> None:
    sink = RecordingSink()
    bounds = {"max_pending_bytes": 2**16, "max_body_bytes": 2**14, "body_timeout_s": 20}
    async with listening(tmp_path, sink, **bounds) as (adapter, client), client("meter2") as good:
        head = b"POST /readings HTTP/1.1\r\nhost: x\r\nauthorization: Bearer token of meter1, long enough\r\n"
        slow = [await asyncio.open_connection("127.0.0.1", adapter.port) for _ in range(30)]
        for _, writer in slow:
            writer.write(head + b"content-length: 8000\r\n\r\n{")
        await asyncio.sleep(0.3)
        for number in range(20):
            assert (await good.post("/readings", content=b'{"p":%d}' % number)).status_code == 200
        for _, writer in slow:
            writer.close()
    assert sink.values() == list(range(20))


async def test_who_never_ends_a_head_is_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flexrelay_adapters._http._HEAD_S", 0.3)
    sink = RecordingSink()
    async with listening(tmp_path, sink) as (adapter, client), client("meter1") as device:
        idle, _ = await asyncio.open_connection("127.0.0.1", adapter.port)
        reader, writer = await asyncio.open_connection("127.0.0.1", adapter.port)
        writer.write(b"POST /readings HTTP/1.1\r\nhost: x\r\nx-a")
        assert await asyncio.wait_for(idle.read(), 60) == b""
        assert await asyncio.wait_for(reader.read(), 60) == b""
        sink.delay_s = 0.6  # an answer may take longer than a head
        assert (await device.post("/readings", content=b'{"p":1}')).status_code == 200
        await asyncio.sleep(0.4)
        assert (await device.post("/readings", content=b'{"p":2}')).status_code == 200
    assert sink.values() == [1, 2]


@pytest.mark.parametrize("wait_s", ["nan", "-nan", "soon", ""])
async def test_a_wait_that_is_no_number_is_refused(tmp_path: Path, wait_s: str) -> None:
    """A timer of it would upset the order of all the others."""
    async with listening(tmp_path, RecordingSink(), commands="/commands") as (_, client), client("meter1") as device:
        assert (await device.get(f"/commands?wait_s={wait_s}")).status_code == 400
        assert (await device.get("/commands?wait_s=-inf")).json() == {"commands": []}
