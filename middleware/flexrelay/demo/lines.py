"""The lines of devices that do not speak MQTT: one an organisation and protocol, and all of them together."""

import asyncio
import importlib.util
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from flexrelay.app import Site
from flexrelay.demo.barrier import PATIENCE_S, StoryStuck
from flexrelay.demo.unsigned import Park, UnsignedDevice
from flexrelay_sdk import Adapter
from flexrelay_sdk.simulation import Plan

LIBRARIES: Final = {"cbor2": "lwm2m", "OpenSSL": "lwm2m", "asyncua": "opcua"}
"""What the protocols need beyond the base, and the extra that brings it."""
LOOK_S: Final = 0.05
"""How often a device looks at the market clock."""


def check_libraries() -> None:
    """Raises StoryStuck when an extra is not installed."""
    missing = sorted({extra for name, extra in LIBRARIES.items() if importlib.util.find_spec(name) is None})
    if missing:
        raise StoryStuck(
            f"the demo's devices speak LwM2M and OPC UA, and the extras {', '.join(missing)} are not installed: "
            f"uv sync --all-extras, or pip install 'flexrelay[{','.join(missing)}]'"
        )


@dataclass(frozen=True)
class Boundaries(Plan):
    """Every device measures at each boundary of an ISP from `start_ms` on, once `wall` (here the market clock) is
    there; none does before `begun`."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def due(self, device: int, count: int) -> AsyncGenerator[int, None]:
        await self.begun.wait()
        at = self.start_ms
        while True:
            while self.wall() < at:  # noqa: ASYNC110  # a clock tells nobody
                await asyncio.sleep(LOOK_S)
            yield at
            at += int(self.interval_s * 1000)


class Line(Protocol):
    """One organisation's devices on one protocol."""

    def credential(self, device: UnsignedDevice) -> str:
        """The device's name on the protocol, as frames carry it."""
        ...

    async def prepare(self) -> str:
        """Make keys and start what the gateway connects to; the adapter's section of the gateway's configuration."""
        ...

    async def run(self, adapter: Adapter) -> None:
        """Let the devices live, until cancelled. `adapter` is the gateway's, connected."""
        ...

    async def close(self) -> None: ...


def _makers() -> Mapping[str, Callable[[Park], Line]]:
    """By protocol; their libraries are extras."""
    from flexrelay.demo.lwm2m import Lwm2mLine
    from flexrelay.demo.opcua import OpcuaLine

    return {"lwm2m": Lwm2mLine, "opcua": OpcuaLine}


class UnsignedFleet:
    """All of them. `async with` prepares the lines and ends them; `begin` lets the devices connect and measure."""

    def __init__(
        self, devices: Sequence[UnsignedDevice], folder: Path, seed: str, *, first_ms: int, isp_seconds: int
    ) -> None:
        """Readings begin at `first_ms` of market time. What the protocols keep lies below `folder`."""
        self.devices = tuple(devices)
        self._market: Callable[[], int] = lambda: 0
        self._plan = Boundaries(first_ms, first_ms, isp_seconds, wall=lambda: self._market())
        self._stack = AsyncExitStack()
        self._group: asyncio.TaskGroup | None = None
        self._sections: dict[tuple[str, str], str] = {}
        self._lines: dict[tuple[str, str], Line] = {}
        makers = _makers()
        for org, protocol in sorted({(device.org, device.protocol) for device in devices}):
            those = [device for device in devices if (device.org, device.protocol) == (org, protocol)]
            simulators = [device.simulator(isp_seconds) for device in those]
            self._lines[org, protocol] = makers[protocol](Park(org, those, simulators, self._plan, folder, seed))

    async def __aenter__(self) -> Self:
        try:
            for place, line in self._lines.items():
                self._stack.push_async_callback(line.close)
                self._sections[place] = await line.prepare()
            self._group = await self._stack.enter_async_context(asyncio.TaskGroup())
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def sections(self, org: str) -> str:
        """The adapters of an organisation's gateway as TOML, each named as its protocol."""
        return "".join(text for (owner, _), text in self._sections.items() if owner == org)

    def bindings(self) -> dict[str, tuple[str, str]]:
        """DID → (protocol, credential)."""
        return {
            device.did: (device.protocol, self._lines[device.org, device.protocol].credential(device))
            for device in self.devices
        }

    async def begin(self, site: Site, market_now: Callable[[], int]) -> None:
        """The gateways are up and know the devices: each line's adapter connects, its devices measure.

        Raises StoryStuck when an adapter does not connect.
        """
        assert self._group is not None
        self._market = market_now
        deadline = time.monotonic() + PATIENCE_S
        for (org, protocol), line in self._lines.items():
            adapter = site.gateways[org].adapters[protocol]
            while not adapter.connected:
                if time.monotonic() > deadline:
                    raise StoryStuck(f"{org}'s adapter did not connect to {adapter.endpoint}")
                await asyncio.sleep(LOOK_S)
            task = self._group.create_task(line.run(adapter), name=f"{protocol} devices of {org}")
            self._stack.callback(task.cancel)
        self._plan.begun.set()
