"""What is not served is refused at once and named in the log: raw public keys, CoAP at DTLS's port, DTLS at CoAP's."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.certificates import Authority
from support.leshan import leshan, needs_leshan

from flexrelay_adapters.lwm2m.coap import codes
from flexrelay_adapters.lwm2m.coap.layer import NoAnswer, Timing
from flexrelay_adapters.lwm2m.device import DeviceClient, Security, Tree
from flexrelay_sdk.testkit import until

from .conftest import KEY, Serve

pytestmark = pytest.mark.timeout(600)

PATIENCE_S = 60.0
SLOW = Timing(ack_timeout_s=30.0)
"""So that no answer would be noticed as a test that takes too long."""


def device(port: int, security: Security | None = None) -> DeviceClient:
    return DeviceClient(("127.0.0.1", port), "meter", Tree({(1, 0, 0): 1}), security=security, timing=SLOW)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"meter-1:{KEY}\n")
    return path


@needs_leshan
@pytest.mark.parametrize("by", ["psk", "x509"])
async def test_raw_public_keys_of_leshan(
    serve: Serve, keys: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, by: str
) -> None:
    coaps: dict[str, Any] = {"port": 0, "psk_file": "keys"}
    if by == "x509":
        authority = Authority(tmp_path / "ours")
        server = authority.server()
        coaps = {"port": 0, "ca": authority.ca, "certificate": server.certificate, "key": server.key}
    own, servers = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    files = [tmp_path / name for name in ("public.der", "private.der", "server.der")]
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    files[0].write_bytes(own.public_key().public_bytes(serialization.Encoding.DER, form))
    files[1].write_bytes(
        own.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    files[2].write_bytes(servers.public_key().public_bytes(serialization.Encoding.DER, form))
    async with serve(coap=None, coaps=coaps) as adapter:
        arguments = {"url": f"coaps://127.0.0.1:{adapter.coaps_port}", "name": "raw"}
        arguments |= dict(zip(("publicKey", "privateKey", "serverPublicKey"), files, strict=True))
        with caplog.at_level(logging.WARNING):
            async with leshan("Device", **arguments) as raw:
                told = await raw.says("registration failed", PATIENCE_S)  # not: timeout
                assert "SendFailedException" in told, told
                await until(lambda: adapter.counters().get("raw_keys", 0) >= 1, PATIENCE_S, "the refusal's count")
        assert any("raw public keys only, which are not taken here" in record.message for record in caplog.records)
        assert len(adapter.registrations) == 0 and adapter.counters()["sessions"] == 0


async def test_coap_at_the_port_of_dtls(serve: Serve, keys: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with serve(coap=None, coaps={"port": 0, "psk_file": "keys"}) as adapter:
        client = device(adapter.coaps_port)
        await client.open()
        with caplog.at_level(logging.WARNING), pytest.raises(NoAnswer, match="rejected the message"):
            await client.register()
        client.close()
        assert adapter.counters()["unencrypted"] == 1
        assert any("CoAP without DTLS" in record.message for record in caplog.records)


async def test_dtls_at_the_port_of_coap(serve: Serve, keys: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with serve(observe=()) as adapter:
        client = device(adapter.coap_port, Security(identity="meter-1", key=bytes.fromhex(KEY)))
        with caplog.at_level(logging.WARNING), pytest.raises(ConnectionError, match="refuses"):
            await client.open()
        client.close()
        assert any("speaks DTLS at the port of plain CoAP" in record.message for record in caplog.records)
        plain = device(adapter.coap_port)
        await plain.open()
        await plain.register()  # CoAP is served there all the same
        assert (await plain.ask(codes.GET, [])).code == codes.NOT_FOUND
        plain.close()


@needs_leshan
async def test_leshan_with_dtls_at_the_port_of_coap(serve: Serve) -> None:
    async with serve(observe=()) as adapter:
        url = f"coaps://127.0.0.1:{adapter.coap_port}"
        async with leshan("Device", url=url, name="lost", identity="meter-1", key=KEY) as lost:
            told = await lost.says("registration failed", PATIENCE_S)
            assert "SendFailedException" in told, told
