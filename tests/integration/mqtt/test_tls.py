"""TLS with user and password, TLS with client certificates, and what each refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from support.certificates import Authority
from support.mosquitto import mosquitto
from support.sinks import MemorySink, until

from flexrelay.demo.broker import Mosquitto, Tls
from flexrelay_adapters.mqtt import MappingCodec, MqttAdapter
from flexrelay_adapters.mqtt._client import ConnectionLost, MqttiumConnection

from .conftest import ACCOUNTS, MAPPING, config, device, reading, running

TOPIC = "flexrelay/v1/dso/meter1/readings"


@pytest.mark.mosquitto
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_tls_with_user_and_password(tmp_path: Path, protocol: str) -> None:
    authority = Authority(tmp_path / "pki")
    server = authority.server()
    tls = Tls(authority.ca, server.certificate, server.key)
    async with mosquitto(tmp_path / "broker", ACCOUNTS, tls=tls) as broker:
        sink = MemorySink()
        settings = config(broker, protocol=protocol, tls={"ca": authority.ca})
        parameters = aiomqtt.TLSParameters(ca_certs=str(authority.ca))
        async with running(settings, sink), device(broker, tls_params=parameters) as meter:
            await meter.publish(TOPIC, reading(1), qos=1)
            await until(lambda: sink.payloads() == [reading(1)], what="the reading")
        with pytest.raises(ConnectionLost, match="cannot connect"):
            await MqttiumConnection.open(config(broker, tls={}))  # the system's roots do not know our CA
        with pytest.raises(
            ConnectionLost, match=r"refuses the connection \(code (5|135)\): check `username`, the password"
        ):
            wrong = config(broker, protocol=protocol, tls={"ca": authority.ca}, password="wrong")
            await MqttiumConnection.open(wrong)
        with pytest.raises(ConnectionLost, match="cannot connect"):
            await MqttiumConnection.open(config(broker, tls=None, connect_timeout_s=2))


@pytest.mark.mosquitto
async def test_client_certificates_are_the_identity(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    server, gateway, meter1 = authority.server(), authority.client("gateway-dso"), authority.client("meter1")
    foreign = Authority(tmp_path / "foreign", "foreign CA").client("gateway-dso")
    tls = Tls(authority.ca, server.certificate, server.key, require_certificate=True)

    def settings(pair: Any) -> dict[str, Any]:
        return {
            "username": None,
            "password": None,
            "tls": {"ca": authority.ca, "certificate": pair.certificate, "key": pair.key},
        }

    async with mosquitto(tmp_path / "broker", ACCOUNTS, tls=tls) as broker:
        sink = MemorySink()
        parameters = aiomqtt.TLSParameters(
            ca_certs=str(authority.ca), certfile=str(meter1.certificate), keyfile=str(meter1.key)
        )
        client = device(broker, username=None, password=None, tls_params=parameters)
        async with running(config(broker, **settings(gateway)), sink), client as meter:
            await meter.publish("flexrelay/v1/dso/meter2/readings", reading(2), qos=1)  # its certificate says meter1
            await meter.publish(TOPIC, reading(1), qos=1)
            await until(lambda: sink.payloads() == [reading(1)], what="the reading")
        with pytest.raises(ConnectionLost):
            await MqttiumConnection.open(config(broker, **settings(foreign)))
        with pytest.raises(ConnectionLost):
            await MqttiumConnection.open(config(broker, tls={"ca": authority.ca}))


def test_missing_files_are_named(tmp_path: Path, unused_broker: Mosquitto) -> None:
    settings = config(unused_broker, tls={"ca": tmp_path / "none.pem"})
    with pytest.raises(ValueError, match=r"mqtt\.tls\.ca: there is no file"):
        MqttAdapter(settings, MappingCodec(MAPPING)).validate()
