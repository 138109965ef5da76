"""Simulated devices on HTTP: each pushes its readings in batches with its token, and fetches its commands.

A batch that was not answered goes out again with the same Idempotency-Key, before anything else is measured.
"""

import hashlib
import json
import logging
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

from flexrelay_adapters._http_client import DeviceGateway, HttpClient, Request
from flexrelay_adapters._simulated import JsonDevice, json_devices, live_all
from flexrelay_sdk.config import below
from flexrelay_sdk.simulation import DeviceSimulator, Plan, SimulatorStats

log = logging.getLogger(__name__)

_WAIT_S: Final = 20


class HttpSimulatorConfig(DeviceGateway):
    """Where the devices push to. `{device}` in `token` is the device's name (with `identities`: the last part of its
    DID), so each has a token of its own."""

    port: Annotated[int, Field(ge=1, le=65535)] = 8443
    path: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._-]+)+$")] = "/readings"
    commands: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._-]+)+$")] | None = "/commands"
    batch: Annotated[int, Field(ge=1, le=1000)] = 10
    """Readings in a request."""
    identities: Path | None = None
    """Folder with <name>.pem and <name>.json as `flexrelay device add` makes them: readings are signed. Without it
    they are plain JSON: `observed_at` (UTC ms), `seq` and the registers by name."""


def make_simulator(
    section: Mapping[str, Any], folder: Path, devices: Sequence[DeviceSimulator], plan: Plan, seed: str
) -> "HttpSimulator":
    """See `flexrelay_sdk.simulation.SimulatorFactory`. `seed` is not used: tokens are the gateway's to give."""
    config = HttpSimulatorConfig.from_section("http", section).placed(folder)
    return HttpSimulator(config, json_devices(devices, below(folder, config.identities)), plan)


class HttpSimulator:
    """`ProtocolSimulator`: two connections a device, one for readings and one for commands."""

    def __init__(self, config: HttpSimulatorConfig, devices: Sequence[JsonDevice], plan: Plan) -> None:
        self.stats = SimulatorStats()
        self._config = config
        self._devices = tuple(devices)
        self._plan = plan

    async def run(self) -> None:
        """Until cancelled. Raises ConnectionError when the gateway turns a device away."""
        await live_all(self._lives())

    def _lives(self) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
        for number, device in enumerate(self._devices):
            yield f"device {device.simulator.name}", self._measure(number, device)
            if self._config.commands is not None:
                yield f"commands of {device.simulator.name}", self._obey(device, self._config.commands)

    async def _measure(self, number: int, device: JsonDevice) -> None:
        client = HttpClient(self._config, self.stats, device.credential)
        waiting: list[bytes] = []
        try:
            async with aclosing(self._plan.due(number, len(self._devices))) as instants:
                async for instant in instants:
                    waiting.append(device.payload(instant))
                    if len(waiting) >= self._config.batch:
                        await self._push(client, device, waiting)
                        waiting = []
        finally:
            client.close()

    async def _push(self, client: HttpClient, device: JsonDevice, readings: Sequence[bytes]) -> None:
        body = b"[" + b",".join(readings) + b"]"
        headers = {"content-type": "application/json", "idempotency-key": hashlib.sha256(body).hexdigest()}
        self.stats.sent += len(readings)
        reply = await client.insist(Request("POST", f"{self._config.path}/batch", body, headers))
        outcomes = _outcomes(reply.body)
        for outcome in outcomes:
            if outcome.get("outcome") not in ("stored", "duplicate"):
                log.warning("%s: a reading was refused: %s", device.simulator.name, outcome.get("reason"))
        self.stats.confirmed += len(outcomes)

    async def _obey(self, device: JsonDevice, path: str) -> None:
        client = HttpClient(self._config, self.stats, device.credential)
        try:
            while True:
                reply = await client.insist(Request("GET", f"{path}?wait_s={_WAIT_S}"), timeout_s=_WAIT_S + 10)
                for command in _commands(reply.body):
                    answer = device.answer(json.dumps(command).encode(), self._plan.wall())
                    if answer is not None:
                        # 404: it has ended meanwhile, and nobody waits for the answer any more
                        await client.insist(Request("POST", f"{path}/results", answer), known=(404,))
                        self.stats.commands += 1
        finally:
            client.close()


def _outcomes(body: bytes) -> list[dict[str, Any]]:
    try:
        found = json.loads(body)["outcomes"]
        return [dict(each) for each in found]
    except (ValueError, TypeError, KeyError):
        return []


def _commands(body: bytes) -> list[Any]:
    try:
        return list(json.loads(body)["commands"])
    except (ValueError, TypeError, KeyError):
        return []
