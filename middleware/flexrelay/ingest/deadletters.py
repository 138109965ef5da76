"""Letting refused frames come in again, after their cause was removed (a device enrolled, a clock set right)."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flexrelay.journal.port import DeadLetter, DeadLetters
from flexrelay_sdk import Codec, Frame, Outcome, Sink

CodecFor = Callable[[DeadLetter], Codec | None]
"""The codec of a letter's protocol and channel; None when this gateway has none any more."""


@dataclass(frozen=True, slots=True)
class Redriven:
    """How many letters came in, were there already, and were refused again (by reason); the ids that are gone."""

    stored: int
    duplicate: int
    refused: dict[str, int]
    gone: tuple[int, ...] = ()


async def redrive(letters: DeadLetters, sink: Sink, codec_for: CodecFor, letter_ids: Sequence[int]) -> Redriven:
    """Send letters through the sink once more, with their exact bytes and their receive time.

    A letter goes when its frame is on disk again: as an entry, a duplicate, or as a new letter with its new reason.
    Where letters were dropped meanwhile the new one may be among them: then the old one stays.
    Raises SinkUnavailable; then what was not sent yet stays. Ids that are gone are named.
    """
    outcomes: Counter[Outcome] = Counter()
    refused: Counter[str] = Counter()
    gone: list[int] = []
    for letter_id in letter_ids:
        letter = await letters.letter(letter_id)
        if letter is None:
            gone.append(letter_id)
            continue
        codec = codec_for(letter)
        if codec is None:
            refused["no_codec"] += 1
            continue
        frame = Frame(letter.protocol, letter.credential, letter.payload, letter.received_at, letter.channel)
        dropped = letters.dropped
        (receipt,) = await sink.put([frame], codec)
        outcomes[receipt.outcome] += 1
        if receipt.outcome is Outcome.DEAD_LETTER:
            refused[receipt.reason] += 1
            if letters.dropped != dropped:
                continue
        await letters.remove([letter_id])
    return Redriven(outcomes[Outcome.STORED], outcomes[Outcome.DUPLICATE], dict(refused), tuple(gone))
