"""How an enrolled device is doing, as far as its gateway knows: twin, journal, dispatch, and what it tells of itself.

What nobody told is None.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from flexrelay.app import Gateway
from flexrelay.devices import DeviceRecord
from flexrelay.dispatch.records import CommandRecord, read_commands
from flexrelay.journal.port import DeadLetter
from flexrelay_schemas.quality import Notice
from flexrelay_sdk import DecodeError, Frame

_LETTERS: Final = 20
_PAGE: Final = 1000
_WRONG_TIME: Final = ("future", "stale")


@dataclass(frozen=True, slots=True)
class PendingCommand:
    """Times are wall-clock UTC ms."""

    command_id: str
    name: str
    state: str
    send_at: int
    expires_at: int
    detail: str


@dataclass(frozen=True, slots=True)
class Letter:
    id: int
    reason: str
    message: str
    received_at: int


@dataclass(frozen=True, slots=True)
class Condition:
    """`protocols`: those of its newest reading and of its bindings. `last_seen`: when its newest frame came, wall-clock
    UTC ms. `quality`: provenance and notices of the newest reading. `battery_permille`: its newest state of charge,
    else that of the battery it lives on. `manufacturer`, `model`, `serial`, `firmware`: its own word, through its
    adapter. `clock_offset_ms`: device − gateway by the newest reading, when that was refused as future or stale.
    `newest_dead_letters` are the last 20 of `dead_letters`."""

    protocols: tuple[str, ...] | None
    last_seen: int | None
    quality: tuple[str, ...] | None
    battery_permille: int | None
    manufacturer: str | None
    model: str | None
    serial: str | None
    firmware: str | None
    clock_offset_ms: int | None
    pending_commands: tuple[PendingCommand, ...]
    dead_letters: int
    newest_dead_letters: tuple[Letter, ...]

    def to_json(self) -> dict[str, Any]:
        """ "unknown" where nothing is known."""
        return {name: "unknown" if value is None else value for name, value in asdict(self).items()}


async def condition_of(gateway: Gateway, record: DeviceRecord) -> Condition:
    """Asks the gateway's own files; nothing is sent to the device."""
    newest = await gateway.twin.newest(record.did)
    position = None if newest is None else await gateway.twin.position_of(record.did, newest.observed_at)
    entry = None if position is None else await gateway.journal.entry(position)
    bound = [protocol for protocol, _ in record.credentials]
    spoken = tuple(dict.fromkeys([*([entry.protocol] if entry is not None else []), *bound]))
    letters = await _letters(gateway, record.did)
    facts = await gateway.facts.of(record.did)
    charge = None if newest is None else newest.registers.get("soc_permille")
    quality = None
    if newest is not None:
        told = [notice.name or "" for notice in Notice if notice and notice in newest.notice]
        quality = (newest.provenance.name.lower(), *(name.lower() for name in told))

    def open_commands(connection: Any) -> list[CommandRecord]:
        return read_commands(connection, gateway.org, "open = 1 AND did = ?", record.did)

    return Condition(
        protocols=spoken or None,
        last_seen=None if entry is None else entry.received_at,
        quality=quality,
        battery_permille=facts.battery_permille if charge is None else charge,
        manufacturer=facts.manufacturer or None,
        model=facts.model or None,
        serial=facts.serial or None,
        firmware=facts.firmware or None,
        clock_offset_ms=_clock_offset(gateway, letters, 0 if entry is None else entry.received_at),
        pending_commands=tuple(
            PendingCommand(
                each.command.command_id,
                each.command.name,
                each.state.value,
                each.send_at,
                each.command.expires_at,
                each.detail,
            )
            for each in await gateway.store.read(open_commands)
        ),
        dead_letters=len(letters),
        newest_dead_letters=tuple(
            Letter(letter.letter_id, letter.reason, letter.message, letter.received_at)
            for letter in letters[-_LETTERS:]
        ),
    )


def _clock_offset(gateway: Gateway, letters: Sequence[DeadLetter], seen_at: int) -> int | None:
    """None when a reading was taken since, at `seen_at` (wall-clock UTC ms)."""
    for letter in reversed(letters):
        codec = gateway.codec_for(letter) if letter.reason in _WRONG_TIME else None
        if codec is not None and letter.received_at > seen_at:
            frame = Frame(letter.protocol, letter.credential, letter.payload, letter.received_at, letter.channel)
            try:
                told = [each.observed_at for each in codec.decode(frame).measurements]
            except DecodeError:  # the configuration has changed since
                continue
            return max(told) - gateway.clock.market(letter.received_at)
    return None


async def _letters(gateway: Gateway, did: str) -> list[DeadLetter]:
    found: list[DeadLetter] = []
    after = 0
    while page := await gateway.journal.letters(after, _PAGE):
        found += [letter for letter in page if letter.did == did]
        after = page[-1].letter_id
    return found
