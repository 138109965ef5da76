"""The other side of an adapter under test: a real server, real devices, held by these few handles."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal

from flexrelay_sdk.facts import DeviceFacts
from flexrelay_sdk.port import Adapter

Behaviour = Literal["obey", "refuse", "silent"]
"""What the device does with a command, or with a clock that is set: does it and says so, says that it does not, or
says nothing."""

Act = tuple[str, Mapping[str, int]]
"""What a device did: a command's name and parameters, as far as the protocol carries them."""


class Rig(ABC):
    """Implement it with something that is not your own code: a broker, a foreign client, a simulator of others.

    Reading number n is one whose `power_w` is n. Only what an abstract method asks is needed by every contract; the
    others belong to promises (`flexrelay_sdk.testkit.Promise`) that a contract can leave out with a reason.
    """

    credential: str
    """As the frames of the device will carry it."""
    secret: str = ""
    """A secret of the adapter's configuration: it must not appear in any log."""
    memory_bound_bytes: int = 8 * 2**20
    """How much the process may grow while the sink holds and `flood` runs, the rig's own share included."""
    flood_bytes: int = 24 * 2**20
    """How much `flood` is asked to send; several times `memory_bound_bytes`."""
    clock_step_ms: int = 1000
    """What the protocol's time is whole numbers of, for TIME_SYNC."""

    @abstractmethod
    def adapter(self) -> Adapter:
        """A new adapter, not started. Each has the same identity, so it goes on where the one before stopped."""

    @abstractmethod
    async def send(self, number: int) -> None:
        """Let the device hand over reading `number`. Returns when the transport has it (in order of the calls); must
        not wait for the adapter's acknowledgement."""

    # ACKNOWLEDGEMENT, REDELIVERY, RESUME, CRASH
    def acknowledged(self) -> set[int]:
        """Numbers whose acknowledgement has left the adapter, as the other side sees it."""
        raise NotImplementedError(f"{type(self).__name__}.acknowledged")

    # DUPLICATES
    async def repeat(self, number: int) -> None:
        """Hand over reading `number` once more, as the protocol's own repetition where it has one."""
        await self.send(number)

    # BACKPRESSURE
    def bounded_adapter(self) -> Adapter:
        """One whose bounds are as small as they may be configured."""
        return self.adapter()

    async def flood(self, total_bytes: int) -> int:
        """Send readings 0, 1, 2, … of about `total_bytes` in all; how many. May wait for acknowledgements. Must make
        each only when it is sent."""
        raise NotImplementedError(f"{type(self).__name__}.flood")

    # MALFORMED
    def bad_frames(self) -> Sequence[tuple[bytes, str]]:
        """(payload, reason of its dead letter); reason "" where the protocol itself turns it away."""
        raise NotImplementedError(f"{type(self).__name__}.bad_frames")

    async def send_raw(self, payload: bytes) -> None:
        """Let the device send these bytes where a reading is expected."""
        raise NotImplementedError(f"{type(self).__name__}.send_raw")

    # RECONNECT
    def outage(self) -> AbstractAsyncContextManager[None]:
        """Inside, the server is gone; afterwards it is back with what it keeps."""
        raise NotImplementedError(f"{type(self).__name__}.outage")

    # CREDENTIALS
    async def intrude(self, adapter: Adapter) -> None:
        """An adapter that is the server, running: let a device with wrong credentials try. It must get nowhere."""
        raise NotImplementedError(f"{type(self).__name__}.intrude")

    def adapter_with_wrong_credentials(self) -> Adapter:
        """An adapter that is a client: one that the server will turn away."""
        raise NotImplementedError(f"{type(self).__name__}.adapter_with_wrong_credentials")

    # COMMANDS
    async def behave(self, behaviour: Behaviour) -> None:
        """From now on the device does this with commands. Before the first call it obeys."""
        raise NotImplementedError(f"{type(self).__name__}.behave")

    def acts(self) -> Sequence[Act]:
        """What the device has done, in order; a command that it got twice and did once stands once."""
        raise NotImplementedError(f"{type(self).__name__}.acts")

    def command(self) -> tuple[str, Mapping[str, int]]:
        """A command that the device obeys: name and parameters."""
        return "set_power", {"power_w": 1200, "from_ms": 1_700_000_000_000, "until_ms": 1_700_000_900_000}

    # SLEEP
    async def sleep(self) -> None:
        """The device cannot be reached from now on (its session, registration or queue goes on)."""
        raise NotImplementedError(f"{type(self).__name__}.sleep")

    async def wake(self) -> None:
        """The device is back, as it says by itself on its protocol."""
        raise NotImplementedError(f"{type(self).__name__}.wake")

    # DISCOVERY
    async def appear(self) -> str:
        """Let a device be there that no configuration names; its credential, as a discovery must tell it. The adapter
        runs; whether it has noticed the device need not be waited for."""
        raise NotImplementedError(f"{type(self).__name__}.appear")

    # BACKFILL
    async def keep(self, readings: Mapping[int, int]) -> None:
        """Put readings (number → instant, UTC ms, ascending) of the device into the history of the other side."""
        raise NotImplementedError(f"{type(self).__name__}.keep")

    # FACTS
    async def introduce(self, facts: DeviceFacts) -> DeviceFacts:
        """From now on the device says this of itself, as and when its protocol has it do so: at its registration, when
        it is asked, beside its readings. Called before an adapter runs. Returns what an adapter must tell then: what
        the protocol carries of it, fit to be shown (`flexrelay_sdk.facts.cleaned`)."""
        raise NotImplementedError(f"{type(self).__name__}.introduce")

    # TIME_SYNC
    async def set_clock(self, ahead_ms: int) -> None:
        """The device's clock is this much ahead of UTC from now on."""
        raise NotImplementedError(f"{type(self).__name__}.set_clock")

    def clock_ahead_ms(self) -> int:
        """How much it is ahead now."""
        raise NotImplementedError(f"{type(self).__name__}.clock_ahead_ms")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {getattr(self, 'credential', '?')}>"
