"""Servers with small limits, that restart and give numbers anew, that refuse whole requests or answer oddly:
node-opcua, and asyncua where it must be made to misbehave."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from asyncua import Server, ua
from asyncua.server.internal_session import InternalSession
from support.opcua_rig import secured, server_options
from support.opcua_server import free_port, node_server, now_ms, section

from flexrelay_adapters.opcua import OpcuaAdapter, OpcuaConfig
from flexrelay_adapters.opcua.adapter import START_MS
from flexrelay_adapters.opcua.state import Resume
from flexrelay_sdk import Command, CommandState
from flexrelay_sdk.testkit import Life, RecordingSink, running, until

pytestmark = pytest.mark.timeout(600)
PATIENCE_S = 90.0


def adapter(values: dict[str, Any], name: str = "plant") -> OpcuaAdapter:
    return OpcuaAdapter(OpcuaConfig.from_section(name, values))


async def test_a_server_that_makes_few_items_at_once(tmp_path: Path) -> None:
    names = [f"d{number}" for number in range(7)]
    options = {"devices": {name: ["power"] for name in names}, "limits": {"maxMonitoredItemsPerCall": 3}}
    async with node_server(tmp_path / "server", history=False, **options) as server:
        values = section(server, tmp_path)
        values["devices"] = {
            name: {"registers": {"power_w": {"node": server.node(f"{name}.power"), "unit": "W"}}} for name in names
        }
        made, sink = adapter(values), RecordingSink()
        async with running(made, sink, connect_s=PATIENCE_S):
            await server.tell("all", name="power", **{"from": 10}, time=now_ms())
            await until(lambda: sorted(sink.values()) == list(range(10, 17)), PATIENCE_S, "a reading of each")
        assert made.refused == {} and made.stats.connections == 1


async def test_the_number_of_a_subscription_may_be_anothers_after_a_restart(tmp_path: Path) -> None:
    """Two gateways' sections have the same user: the server would hand the one's subscription to the other."""
    async with node_server(tmp_path / "server", **server_options(), history=False, historyFile="") as server:
        first, second = secured(server, tmp_path, keys=("power",)), secured(server, tmp_path, keys=("import",))
        early, late, hers, his = adapter(first, "early"), adapter(first, "early"), RecordingSink(), RecordingSink()
        async with running(early, hers, connect_s=PATIENCE_S):
            await server.set("meter.power", 1)
            await until(lambda: hers.values() == [1], PATIENCE_S, "the first reading")
        await asyncio.sleep(2 * START_MS / 1000)  # a fast machine starts it again before that
        await server.stop()
        await server.start()
        other = adapter(second, "other")
        async with running(other, his, connect_s=PATIENCE_S):
            kept = Path(first["state"]) / "early.json"
            resume = Resume.read(kept)
            assert other._subscription is not None and resume.server_started
            resume.subscription = other._subscription.number  # as the server would have given it
            resume.write(kept)
            async with running(late, hers, connect_s=PATIENCE_S):
                await server.set("meter.import", 5)
                await server.set("meter.power", 2)
                await until(lambda: 2 in hers.values() and len(his.stored) == 1, PATIENCE_S, "a reading of each")
        assert hers.values() == [1, 2] and late.stats.transfers == 0, "nothing of the other's"
        assert other.stats.subscriptions == 1 and [dict(m.registers) for m in his.measurements] == [{"import_j": 5}]


async def test_what_comes_to_nothing_leaves_no_subscription_behind(tmp_path: Path) -> None:
    async with node_server(tmp_path / "server", history=False) as server:
        values = section(server, tmp_path, keys=("power",), backoff_min_s=0.01, backoff_max_s=0.01)
        values["devices"]["meter"]["registers"]["power_w"]["node"] = server.node("meter.none")
        made = adapter(values)
        async with running(made, RecordingSink(), connected=False):
            await until(lambda: made.stats.subscriptions >= 5, PATIENCE_S, "five attempts")
            assert "none of the configured variables" in made.trouble
        assert (await server.tell("sessions"))["subscriptions"] == 0


class Odd:
    """A server of asyncua with a meter; `spoil` replaces what its sessions answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, url: str, meter: Any) -> None:
        self._monkeypatch = monkeypatch
        self.url = url
        self.meter = meter

    def spoil(self, service: str, answer: Callable[[Any], Any]) -> None:
        """`answer` gets what the service really answers, and may raise."""
        real = getattr(InternalSession, service)

        async def spoiled(session: Any, *arguments: Any, **more: Any) -> Any:
            return answer(await real(session, *arguments, **more))

        self._monkeypatch.setattr(InternalSession, service, spoiled)

    def heal(self) -> None:
        self._monkeypatch.undo()


@pytest.fixture
async def odd(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Odd]:
    server = Server()
    await server.init()
    url = f"opc.tcp://127.0.0.1:{free_port()}/odd"
    server.set_endpoint(url)
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    space = await server.register_namespace("urn:odd")
    meter = await server.nodes.objects.add_variable(f"ns={space};s=power", f"{space}:power", 1.0)
    await meter.set_writable()
    async with server:
        yield Odd(monkeypatch, url, meter)
        monkeypatch.undo()


def meter_section(odd: Odd, folder: Path) -> dict[str, Any]:
    route = {"write": "nsu=urn:odd;s=power", "arguments": [{"parameter": "power_w"}]}
    registers = {"power_w": {"node": "nsu=urn:odd;s=power", "unit": "W"}}
    return {
        "url": odd.url, "security": "None", "publishing_ms": 50.0, "sampling_ms": 0.0, "timeout_s": 60.0,
        "state": str(folder / "state"), "backoff_min_s": 0.05, "backoff_max_s": 0.1,
        "devices": {"meter": {"registers": registers, "commands": {"set_power": route}}},
    }  # fmt: skip


def order(odd: Odd, made: OpcuaAdapter, number: int) -> Command:
    window = {"from_ms": now_ms() - 1000, "until_ms": now_ms() + 900_000}
    credential = made.config.credential("meter")
    return Command(
        f"c-{number}", "did:x", credential, "set_power", {"power_w": number, **window}, now_ms() + 300_000, "o"
    )


async def test_commands_that_are_refused_whole_and_answers_that_are_none(odd: Odd, tmp_path: Path) -> None:
    """A ServiceFault is an answer, too: the command is not given again and again until it expires."""
    made, sink = adapter(meter_section(odd, tmp_path)), RecordingSink()
    asked = []

    def refuse(results: Any) -> Any:
        asked.append(results)
        raise ua.uaerrors.BadUserAccessDenied

    async def told(command: Command) -> Life:
        life = Life()
        await made.execute(command, life)
        life.check()
        return life

    async with running(made, sink, connect_s=PATIENCE_S):
        odd.spoil("write", refuse)
        life = await told(order(odd, made, 7))
        assert life.states[-1] is CommandState.FAILED and "BadUserAccessDenied" in life.updates[-1].detail
        odd.heal()
        assert (await told(order(odd, made, 8))).states[-1] is CommandState.ACKED and len(asked) == 1

        def short(results: Any) -> Any:
            odd.heal()
            asked.append(results)
            return results[1:]

        odd.spoil("write", short)
        assert (await told(order(odd, made, 9))).states[-1] is CommandState.ACKED and len(asked) == 2, "it comes again"


async def test_answers_that_make_no_sense_end_no_adapter(odd: Odd, tmp_path: Path) -> None:
    """Too few results; times that are none, which would upset every timer of the process."""
    values = meter_section(odd, tmp_path)

    def every(interval_ms: float) -> Callable[[Any], Any]:
        def spoiled(result: Any) -> Any:
            result.RevisedPublishingInterval = interval_ms
            return result

        return spoiled

    oddities: list[tuple[str, Callable[[Any], Any], str]] = [
        ("create_monitored_items", lambda results: results[1:], "0 results, 1 were asked for"),
        *[("create_subscription", every(ms), f"a subscription of {ms} ms") for ms in (math.nan, math.inf, -1.0, 1e300)],
    ]
    for service, answer, words in oddities:
        made, sink = adapter(values), RecordingSink()
        odd.spoil(service, answer)
        async with running(made, sink, connected=False):
            await until(lambda made=made, words=words: words in made.trouble, PATIENCE_S, words)
            odd.heal()
            await until(lambda made=made: made.connected, PATIENCE_S, "the server as it should be")
        (tmp_path / "state" / "plant.json").unlink()
