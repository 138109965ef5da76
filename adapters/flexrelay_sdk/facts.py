"""What devices say of themselves: maker, model, serial number, firmware, battery. Facts for people, not evidence."""

from collections.abc import Iterable
from typing import Final, NamedTuple, Protocol, runtime_checkable

MAX_FACT: Final = 100
"""Characters of one fact; the rest is cut off."""


class DeviceFacts(NamedTuple):
    """What was not told is "" or None. `battery_permille` is the charge of the battery that the device itself lives on
    (what a storage holds is a reading, `soc_permille`)."""

    manufacturer: str = ""
    model: str = ""
    serial: str = ""
    firmware: str = ""
    battery_permille: int | None = None


NO_FACTS: Final = DeviceFacts()


@runtime_checkable
class FactTeller(Protocol):
    """Optional: devices tell the adapter about themselves."""

    def facts(self) -> Iterable[tuple[str, DeviceFacts]]:
        """(credential, what its device has told of itself so far). No I/O: what must be asked for was asked before.
        Called now and then, also after `run` has ended; the gateway keeps it, so an adapter that starts anew may know
        nothing. Bounded by the number of devices that the adapter lets in."""
        ...


def fact(value: object) -> str:
    """A text that a device tells, made safe to show: printable, without blanks around, at most MAX_FACT characters."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if not isinstance(value, str):
        return ""
    shown = "".join(character if character.isprintable() else " " for character in value[: 4 * MAX_FACT])
    return " ".join(shown.split())[:MAX_FACT]


def cleaned(facts: DeviceFacts) -> DeviceFacts:
    """The same with texts as of `fact`, and no battery that cannot be."""
    battery = facts.battery_permille
    known = isinstance(battery, int) and not isinstance(battery, bool) and 0 <= battery <= 1000
    return DeviceFacts(
        fact(facts.manufacturer),
        fact(facts.model),
        fact(facts.serial),
        fact(facts.firmware),
        battery if known else None,
    )
