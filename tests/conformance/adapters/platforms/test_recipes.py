"""Every platform's page: its configuration, and a frame in the platform's documented format through the real adapter.

No platform runs here. MQTT goes through a real Mosquitto, HTTP through a socket.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
import pytest
from support.contracts import Party
from support.mosquitto import mosquitto
from support.readings import ingest_path

from flexrelay.demo.accounts import Account
from flexrelay.ingest import Enrolment
from flexrelay_adapters.http import HttpAdapter
from flexrelay_adapters.http import make_adapter as make_http
from flexrelay_adapters.mqtt import MqttAdapter
from flexrelay_adapters.mqtt import make_adapter as make_mqtt
from flexrelay_sdk import Sink
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.testkit import RecordingSink, running, until

ROOT = Path(__file__).parents[4]
PAGES = {page.name: page for page in sorted((ROOT / "docs" / "howto" / "platforms").glob("*.md"))}
FRAMES = Path(__file__).parent / "frames"
TOML = re.compile(r"^```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
Push = Callable[[bytes], Awaitable[Any]]
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
    made = (make_http if kind == "http" else make_mqtt)(name, section, Path("/nowhere"), NoNativeCodec())
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
    sink = RecordingSink()
    async with connected(about, tmp_path, sink) as push:
        answer = await push(frame)
        assert answer is None or {each["outcome"] for each in answer.json()["outcomes"]} == {"stored"}
        await until(lambda: len(sink.stored) >= len(expected) or bool(sink.dead), 60, "the readings")
    assert sink.dead == [] and sink.faults == []
    found = [
        {"credential": stored.frame.credential, "observed_at": one.observed_at, "registers": dict(one.registers)}
        for stored in sink.stored
        for one in stored.measurements
    ]
    assert found == expected


@pytest.mark.mosquitto
@pytest.mark.parametrize("case", CASES)
async def test_what_a_platform_sends_twice_torn_too_large_or_of_unknown_devices(case: str, tmp_path: Path) -> None:
    """To the journal: each reading once, everything else a dead letter with its reason, and the connection stays."""
    about = tomllib.loads((FRAMES / case / "case.toml").read_text())
    frame = (FRAMES / case / "frame.json").read_bytes()
    expected = json.loads((FRAMES / case / "expected.json").read_text())["readings"]
    _, section = section_of(PAGES[about["page"]])
    protocol = section["type"]
    oversized = frame + b" " * (2**20 if protocol == "http" else 2**16 + 1000)
    parties = {credential: Party.new("device") for credential in sorted({each["credential"] for each in expected})}
    wanted = {(parties[each["credential"]].did, each["observed_at"]): each["registers"] for each in expected}
    async with ingest_path(tmp_path, *parties.values()) as path:
        path.now[0] = max(each["observed_at"] for each in expected) + 1000
        outcomes = path.ingest.outcomes

        async def stored() -> dict[tuple[str, int], dict[str, int]]:
            entries = await path.journal.read(0, 1000)
            found = [(entry.did, one) for entry in entries for one in entry.measurements]
            assert len(found) == len({(did, one.observed_at) for did, one in found}), "a reading stands twice"
            return {(did, one.observed_at): dict(one.registers) for did, one in found}

        async with connected(about, tmp_path, path.ingest) as push:
            await push(frame)
            await until(lambda: outcomes["dead_letter:unknown_device"] >= len(wanted), 60, "dead letters of strangers")
            for credential, party in parties.items():
                path.registry.enrol(Enrolment(party.did, ((protocol, credential),), unsigned=True))
            for body in (frame[: len(frame) * 2 // 3], b"", b"\xff\xfe", oversized):
                await push(body)
            await push(frame)
            await push(frame)
            await until(lambda: outcomes["duplicate"] >= len(wanted), 60, "the repetition")
        assert await stored() == wanted
        refused = {reason.partition(":")[2] for reason in outcomes if reason.startswith("dead_letter:")}
        # over HTTP a body that is too large is answered with 413, and one that cannot be taken apart is the platform's
        # own, which is no device
        assert refused == {"unknown_device", *(() if protocol == "http" else ("not_json", "not_utf8", "too_large"))}


def tokens(section: dict[str, Any], folder: Path) -> dict[str, str]:
    (platform,) = section["platforms"]
    (folder / "tokens").write_text(f"{platform}:{hashlib.sha256(b'token of the platform').hexdigest()}\n")
    return {"tokens_file": "tokens"}


@asynccontextmanager
async def connected(about: dict[str, Any], folder: Path, sink: Sink) -> AsyncIterator[Push]:
    """The page's adapter, running; what it gives sends a body as the platform does and returns HTTP's answer."""
    name, section = section_of(PAGES[about["page"]])
    section.pop("tls")
    if section.pop("type") == "http":
        adapter = make_http(name, {**section, "port": 0, **tokens(section, folder)}, folder, NoNativeCodec())
        async with (
            running(adapter, sink),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{adapter.port}", timeout=60) as platform,
        ):
            path = adapter.config.path
            for origin in adapter.config.webhook_origins:
                asked = await platform.options(path, headers={"webhook-request-origin": origin})
                assert asked.headers["webhook-allowed-origin"] == origin
            assert (await platform.post(path, content=b"{}")).status_code == 401
            headers = {"authorization": "Bearer token of the platform"}
            yield lambda body: platform.post(path, content=body, headers=headers)
        return
    accounts = [Account("gateway", "secret-g", read=("#",), write=("#",)), Account("platform", "p", write=("#",))]
    async with mosquitto(folder / "broker", accounts) as broker:
        here = {"host": "127.0.0.1", "port": broker.port, "username": "gateway", "password": "secret-g"}
        user = {"username": "platform", "password": "p"}
        async with (
            running(make_mqtt(name, {**section, **here}, folder, NoNativeCodec()), sink),
            aiomqtt.Client("127.0.0.1", broker.port, timeout=60, **user) as platform,
        ):
            yield lambda body: platform.publish(about["topic"], body, qos=1)
