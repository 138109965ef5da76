"""Certificates that have expired or are another's, for every adapter that speaks TLS; for DTLS and OPC UA see
tests/integration/lwm2m/test_dtls.py and tests/integration/opcua/test_security.py."""

from __future__ import annotations

import hashlib
import json
import logging
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from conformance.adapters.iotagent.rig import KEY
from conformance.adapters.lorawan.rig import PORTS, chirpstack_up
from conformance.adapters.sigfox.rig import SECTION as SIGFOX
from support.certificates import Authority, Pair
from support.mosquitto import mosquitto

from flexrelay.demo.broker import Account, Tls
from flexrelay_adapters import _http, fiware_json, http, lorawan, mqtt, opcua_pubsub, sigfox, sparkplug, ultralight
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.testkit import RecordingSink, running, until

PATIENCE_S = 60.0
MAPPED = {"registers": {"power_w": {"pointer": "/p", "unit": "W"}}}
METRIC = {"registers": {"power_w": {"metric": "P", "unit": "W"}}}
FIELD = {"datasets": [{"writers": ["1"], "registers": {"power_w": {"field": "P", "unit": "W"}}}]}
MqttSection = Callable[[dict[str, Any]], dict[str, Any]]


def _lorawan(broker: dict[str, Any]) -> dict[str, Any]:
    own = {name: broker.pop(name) for name in ("client_id", "username", "password")}
    place = {name: broker.pop(name) for name in ("host", "port")}
    return {"server": "chirpstack", **own, "mqtt": {**place, "application": "app", "options": broker}, "ports": PORTS}


BROKERED: dict[str, tuple[Any, MqttSection]] = {
    "mqtt": (mqtt, lambda broker: {**broker, "readings": ["r/{device}"], "codec": MAPPED}),
    "ultralight": (ultralight, lambda broker: {"mqtt": broker, "apikeys": [KEY], "codec": MAPPED}),
    "fiware_json": (fiware_json, lambda broker: {"mqtt": broker, "apikeys": [KEY], "codec": MAPPED}),
    "sparkplug": (sparkplug, lambda broker: {**broker, "host_id": "h", **METRIC}),
    "lorawan": (lorawan, _lorawan),
    "opcua_pubsub": (opcua_pubsub, lambda broker: {**broker, **FIELD}),
}


@pytest.mark.mosquitto
@pytest.mark.parametrize("name", BROKERED)
async def test_a_broker_whose_certificate_has_expired(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing goes to it, the log says why, and the adapter is there when it has a new one."""
    authority = Authority(tmp_path / "pki")
    server, (package, section) = authority.server(ends_in_s=-3600), BROKERED[name]
    accounts = (Account("gateway", "secret-g", read=("#",), write=("#",)),)
    async with mosquitto(
        tmp_path / "broker", accounts, tls=Tls(authority.ca, server.certificate, server.key)
    ) as broker:
        common = {"client_id": "gw", "username": "gateway", "password": "secret-g", "tls": {"ca": str(authority.ca)}}
        pace = {"backoff_min_s": 0.05, "backoff_max_s": 0.2}
        made = section({"host": broker.host, "port": broker.port, **common, **pace})
        adapter, sink = package.make_adapter("plant", made, tmp_path, NoNativeCodec()), RecordingSink()
        with caplog.at_level(logging.WARNING):
            async with running(adapter, sink, connected=False):
                await until(lambda: "certificate has expired" in caplog.text, PATIENCE_S, "a word about it")
                assert not adapter.connected and "secret-g" not in caplog.text
                await broker.stop()
                authority.server()
                await broker.restart()
                await until(lambda: adapter.connected, PATIENCE_S, "the connection with the new certificate")


class Pushed(NamedTuple):
    """An adapter that is pushed to, and a request of the holder of the certificate `meter8`; the same of another device
    where the certificate is the device's."""

    package: Any
    section: Callable[[dict[str, Any]], dict[str, Any]]
    path: str
    body: bytes
    strange: str = ""


def _agent(tls: dict[str, Any]) -> dict[str, Any]:
    ours = {"certificate": tls["certificate"], "key": tls["key"], "ca": tls["client_ca"]}
    return {"http": {"port": 0, "tls": ours, "relays": ["concentrator"]}, "apikeys": [KEY], "codec": MAPPED}


UPLINK = {"device": "1A", "time": 1_463_738_400, "data": "00000001", "seqNumber": 1, "ack": False}
PUSHED = {
    "http": Pushed(
        http,
        lambda tls: {"port": 0, "tls": tls, "codec": {"kind": "json", **MAPPED}},
        "/readings",
        b'{"p": 1}',
        "/readings/meter9",
    ),
    "ultralight": Pushed(ultralight, _agent, f"/iot/d?k={KEY}&i=meter8", b"p|1", f"/iot/d?k={KEY}&i=meter9"),
    "fiware_json": Pushed(
        fiware_json, _agent, f"/iot/json?k={KEY}&i=meter8", b'{"p": 1}', f"/iot/json?k={KEY}&i=meter9"
    ),
    "lorawan": Pushed(
        lorawan,
        lambda tls: {"server": "chirpstack", "http": {"port": 0, "tls": tls, "tokens_file": "tokens"}, "ports": PORTS},
        "/lorawan?event=up",
        json.dumps(chirpstack_up(bytes((0, 0, 0, 1)))).encode(),
    ),
    "sigfox": Pushed(
        sigfox,
        lambda tls: {**SIGFOX, "port": 0, "tls": tls},
        "/sigfox",
        json.dumps(UPLINK).encode(),
    ),
}


class Over(_http.ClientCertificate):
    """One that has ended since the handshake."""

    def __init__(self, der: bytes) -> None:
        super().__init__(der)
        self.ends_at = datetime.now(UTC) - timedelta(seconds=1)


@pytest.mark.parametrize("name", PUSHED)
async def test_a_certificate_that_is_over_or_anothers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs, way = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs", "other CA"), PUSHED[name]
    server, mine = ours.server(), ours.client("meter8")
    (tmp_path / "tokens").write_text(f"somebody:{hashlib.sha256(b'a token of another').hexdigest()}\n")
    tls = {"certificate": str(server.certificate), "key": str(server.key), "client_ca": str(ours.ca)}
    adapter, sink = way.package.make_adapter("push", way.section(tls), tmp_path, NoNativeCodec()), RecordingSink()

    def client(pair: Pair) -> httpx.AsyncClient:
        context = ssl.create_default_context(cafile=str(ours.ca))
        context.load_cert_chain(str(pair.certificate), str(pair.key))
        port = adapter.ports["http"] if hasattr(adapter, "ports") else adapter.port
        return httpx.AsyncClient(base_url=f"https://127.0.0.1:{port}", verify=context, trust_env=False, timeout=60)

    async with running(adapter, sink):
        async with client(mine) as device:
            assert (await device.post(way.path, content=way.body)).is_success
            if way.strange:
                answer = await device.post(way.strange, content=way.body)
                assert answer.status_code == 403, "another device in the middle of a session"
        with monkeypatch.context() as patch:
            patch.setattr(_http, "ClientCertificate", Over)
            async with client(mine) as device:
                assert (await device.post(way.path, content=way.body)).status_code == 401
        for pair in (ours.client("meter8", ends_in_s=-60), theirs.client("meter8")):
            async with client(pair) as stranger:
                with pytest.raises(httpx.TransportError):
                    await stranger.post(way.path, content=way.body)
    assert sink.values() == [1]
