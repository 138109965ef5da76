"""What simulated devices share whatever carries it: their lives side by side, and flexrelay's own JSON, readings,
commands and their answers.

What they say is written here once more, without the adapters' code, so that both do not share a mistake.
"""

import asyncio
import json
import logging
from collections.abc import Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

from flexrelay_sdk.simulation import DeviceSimulator, SimulatedIdentity

log = logging.getLogger(__name__)


async def live_all(lives: Iterable[tuple[str, Coroutine[Any, Any, None]]]) -> None:
    """Named lives side by side until cancelled. The first ConnectionError ends them all and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for name, life in lives:
                group.create_task(life, name=name)
    except* ConnectionError as errors:
        raise ConnectionError(str(errors.exceptions[0])) from None


class JsonDevice:
    """A device under its transport's name. With an identity its readings are signed."""

    def __init__(self, simulator: DeviceSimulator, credential: str, identity: SimulatedIdentity | None) -> None:
        self.simulator = simulator
        self.credential = credential
        self._identity = identity
        self.unsent: bytes | None = None
        """A reading whose acknowledgement did not come: it goes out again before the next is measured."""

    def payload(self, now_ms: int) -> bytes:
        """The reading of an instant (market time, UTC ms)."""
        sample = self.simulator.sample(now_ms)
        if self._identity is not None:
            return self._identity.signed(sample)
        document = {"observed_at": sample.observed_at, "seq": sample.seq, **sample.registers}
        return json.dumps(document, separators=(",", ":")).encode()

    def answer(self, payload: bytes, wall_ms: int) -> bytes | None:
        """What it says to a command; None: nothing (no command, expired, or it is deaf)."""
        try:
            command = json.loads(payload)
            command_id, name, parameters = str(command["command_id"]), str(command["name"]), dict(command["parameters"])
            expired = wall_ms >= int(command["expires_at"])
        except (ValueError, TypeError, KeyError):
            log.warning("%s: what came is no command", self.simulator.name)
            return None
        given = self.simulator.obey(command_id, name, parameters, expired=expired)
        if given is None:
            return None
        document = {
            "v": 1,
            "command_id": command_id,
            "state": given.state,
            "values": given.values,
            "detail": given.detail,
        }
        return json.dumps(document).encode()


def json_devices(devices: Sequence[DeviceSimulator], identities: Path | None) -> list[JsonDevice]:
    """Each under its name or, with `identities` (folder of `<name>.pem` and `<name>.json`), under the last part of its
    DID. Raises ValueError that begins with `identities`."""
    if identities is None:
        return [JsonDevice(device, device.name, None) for device in devices]
    try:
        signing = [SimulatedIdentity.read(identities, device.name) for device in devices]
    except (OSError, ValueError) as error:
        raise ValueError(f"identities: {error}") from None
    return [JsonDevice(device, identity.scid, identity) for device, identity in zip(devices, signing, strict=True)]
