"""Simulated devices that drop files: each writes its readings as a JSON list, `batch` in a file, under a name that
tells the first one's instant. A file is confirmed when it has gone from the folder.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

from flexrelay_adapters._simulated import JsonDevice, json_devices, live_all
from flexrelay_sdk.config import AdapterConfig, below
from flexrelay_sdk.simulation import DeviceSimulator, Plan, SimulatorStats

_LOOK_S: Final = 0.2


class FilesSimulatorConfig(AdapterConfig):
    """`folder` is the adapter's; each device writes into its own `in/<name>`."""

    name: str = "files"
    folder: Path
    batch: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Readings in a file."""
    waiting: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Files of a device that nobody has taken; with so many it measures no more until one is."""
    identities: Path | None = None
    """Folder with <name>.pem and <name>.json as `flexrelay device add` makes them: readings are signed, for an adapter
    with `codec = "flexrelay"`. Without it they are plain JSON: `observed_at` (UTC ms), `seq` and the registers."""


def make_simulator(
    section: Mapping[str, Any], folder: Path, devices: Sequence[DeviceSimulator], plan: Plan, seed: str
) -> "FilesSimulator":
    """See `flexrelay_sdk.simulation.SimulatorFactory`. `seed` is not used: files have no keys."""
    config = FilesSimulatorConfig.from_section("files", section)
    drops = (folder / config.folder) / "in"
    return FilesSimulator(config, drops, json_devices(devices, below(folder, config.identities)), plan)


class FilesSimulator:
    """`ProtocolSimulator`; nothing comes back to these devices."""

    def __init__(self, config: FilesSimulatorConfig, drops: Path, devices: Sequence[JsonDevice], plan: Plan) -> None:
        self.stats = SimulatorStats()
        self._config = config
        self._drops = drops
        self._devices = tuple(devices)
        self._plan = plan
        self._there: dict[str, dict[Path, int]] = {}
        """By device: files that nobody has taken, with how many readings are in each."""

    async def run(self) -> None:
        """Until cancelled. Raises ConnectionError when the folder is not there or cannot be written."""
        lives = [
            (f"device {device.simulator.name}", self._live(number, device))
            for number, device in enumerate(self._devices)
        ]
        await live_all([*lives, ("files that are taken", self._look())])

    async def _live(self, number: int, device: JsonDevice) -> None:
        there = self._there.setdefault(device.credential, {})
        readings: list[bytes] = []
        name = ""
        async with aclosing(self._plan.due(number, len(self._devices))) as instants:
            async for instant in instants:
                name = name or f"{instant}.json"
                readings.append(device.payload(instant))
                if len(readings) < self._config.batch:
                    continue
                path = self._drops / device.credential / name
                try:
                    await asyncio.to_thread(_drop, path, b"[" + b",\n".join(readings) + b"]\n")
                except OSError as error:
                    raise ConnectionError(f"folder: {error}") from None
                there[path] = len(readings)
                self.stats.sent += len(readings)
                readings, name = [], ""
                while len(there) >= self._config.waiting:  # noqa: ASYNC110 - it is a folder that is waited for
                    await asyncio.sleep(_LOOK_S)

    async def _look(self) -> None:
        """Count what was taken."""
        while True:
            await asyncio.sleep(_LOOK_S)
            for there in list(self._there.values()):
                for path in await asyncio.to_thread(_gone, list(there)):
                    self.stats.confirmed += there.pop(path)


def _gone(paths: Sequence[Path]) -> list[Path]:
    return [path for path in paths if not os.path.lexists(path)]


def _drop(path: Path, content: bytes) -> None:
    """It appears whole: written under another name, then renamed."""
    path.parent.mkdir(exist_ok=True)
    draft = path.with_name(f"{path.name}.part")
    draft.write_bytes(content)
    draft.replace(path)
