"""Every platform's page: its configuration, and a frame in the platform's documented format through the real adapter.

No platform runs here. MQTT goes through a real Mosquitto, HTTP through a socket.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
import pytest
from conformance.adapters.http.rig import NoNative
from support.mosquitto import mosquitto

from flexrelay.demo.accounts import Account
from flexrelay_adapters.http import HttpAdapter
from flexrelay_adapters.http import make_adapter as make_http
from flexrelay_adapters.mqtt import MqttAdapter
from flexrelay_adapters.mqtt import make_adapter as make_mqtt
from flexrelay_sdk.testkit import RecordingSink, running, until

ROOT = Path(__file__).parents[4]
PAGES = {page.name: page for page in sorted((ROOT / "docs" / "howto" / "platforms").glob("*.md"))}
FRAMES = Path(__file__).parent / "frames"
TOML = re.compile(r"^```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CASES = sorted(folder.name for folder in FRAMES.iterdir())


def section_of(page: Path) -> tuple[str, dict[str, Any]]:
    (block,) = TOML.findall(page.read_text())
    ((name, section),) = tomllib.loads(block)["adapters"].items()
    return name, section


def test_every_page_has_a_frame_and_every_platform_a_page() -> None:
    paged = {tomllib.loads((FRAMES / name / "case.toml").read_text())["page"] for name in CASES}
    assert paged == set(PAGES) - {"README.md"}
    listed = (ROOT / "docs" / "howto" / "platforms" / "README.md").read_text()
    for name in paged:
        assert f"({name})" in listed
        text = PAGES[name].read_text()
        assert "Documented format:" in text and "tested with" not in text.lower()


@pytest.mark.parametrize("page", sorted(set(PAGES) - {"README.md"}))
def test_the_configuration_of_the_page_makes_its_adapter_as_it_stands(page: str) -> None:
    name, section = section_of(PAGES[page])
    kind = section.pop("type")
    made = (make_http if kind == "http" else make_mqtt)(name, section, Path("/nowhere"), NoNative())
    assert isinstance(made, HttpAdapter | MqttAdapter) and made.endpoint.startswith(section["host"])
    if section["tls"]:
        with pytest.raises(ValueError, match="there is no file"):
            made.validate()  # the configuration names files that are yours


@pytest.mark.mosquitto
@pytest.mark.parametrize("case", CASES)
async def test_a_documented_frame_becomes_readings(case: str, tmp_path: Path) -> None:
    about = tomllib.loads((FRAMES / case / "case.toml").read_text())
    frame = (FRAMES / case / "frame.json").read_bytes()
    expected = json.loads((FRAMES / case / "expected.json").read_text())["readings"]
    assert about["source"]
    name, section = section_of(PAGES[about["page"]])
    section.pop("tls")
    sink = RecordingSink()
    if section.pop("type") == "http":
        await post(
            make_http(name, {**section, "port": 0, **tokens(section, tmp_path)}, tmp_path, NoNative()), frame, sink
        )
    else:
        await publish(name, section, tmp_path, about["topic"], frame, sink, len(expected))
    assert sink.dead == [] and sink.faults == []
    found = [
        {"credential": stored.frame.credential, "observed_at": one.observed_at, "registers": dict(one.registers)}
        for stored in sink.stored
        for one in stored.measurements
    ]
    assert found == expected


def tokens(section: dict[str, Any], folder: Path) -> dict[str, str]:
    (platform,) = section["platforms"]
    (folder / "tokens").write_text(f"{platform}:{hashlib.sha256(b'token of the platform').hexdigest()}\n")
    return {"tokens_file": "tokens"}


async def post(adapter: HttpAdapter, frame: bytes, sink: RecordingSink) -> None:
    async with running(adapter, sink), httpx.AsyncClient(base_url=f"http://127.0.0.1:{adapter.port}") as platform:
        path = adapter.config.path
        for origin in adapter.config.webhook_origins:
            asked = await platform.options(path, headers={"webhook-request-origin": origin})
            assert asked.headers["webhook-allowed-origin"] == origin
        assert (await platform.post(path, content=frame)).status_code == 401
        headers = {"authorization": "Bearer token of the platform"}
        answer = await platform.post(path, content=frame, headers=headers)
        assert answer.status_code == 200, answer.text
        assert {each["outcome"] for each in answer.json()["outcomes"]} == {"stored"}


async def publish(
    name: str, section: dict[str, Any], folder: Path, topic: str, frame: bytes, sink: RecordingSink, count: int
) -> None:
    accounts = [Account("gateway", "secret-g", read=("#",), write=("#",)), Account("platform", "p", write=("#",))]
    async with mosquitto(folder / "broker", accounts) as broker:
        here = {"host": "127.0.0.1", "port": broker.port, "username": "gateway", "password": "secret-g"}
        adapter = make_mqtt(name, {**section, **here}, folder, NoNative())
        async with running(adapter, sink):
            async with aiomqtt.Client("127.0.0.1", broker.port, username="platform", password="p") as platform:
                await platform.publish(topic, frame, qos=1)
            await until(lambda: len(sink.stored) >= count or bool(sink.dead), what="the readings")
