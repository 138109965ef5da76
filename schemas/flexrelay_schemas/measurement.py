"""What a codec makes of a frame: integers in base units, with the source's own time and the value's quality."""

from collections.abc import Mapping
from typing import NamedTuple

from flexrelay_schemas.quality import Notice, Provenance


class Measurement(NamedTuple):
    """One observation of one device.

    `registers` maps names of `reading.REGISTERS` to integers in the unit that the name ends with; `observed_at` is
    UTC milliseconds; `seq` is the device's own count where it keeps one.
    """

    did: str
    observed_at: int
    registers: Mapping[str, int]
    seq: int | None = None
    provenance: Provenance = Provenance.GATEWAY_ATTESTED
    notice: Notice = Notice.NONE
