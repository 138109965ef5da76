"""What a device says that its time is."""

from __future__ import annotations

import math
from typing import Any

import pytest

from flexrelay_adapters.lwm2m.clock import set_clock
from flexrelay_adapters.lwm2m.formats import Record


class Told:
    """`Operations` of a device with this clock."""

    def __init__(self, value: Any) -> None:
        self.value = value

    async def read(self, peer: Any, path: str, content_format: int) -> list[Record]:
        return [Record((3, 0, 13), self.value)]

    async def write(self, peer: Any, path: str, value: int, content_format: int) -> None:
        self.value = value


@pytest.mark.parametrize(
    ("told", "offset_ms"), [(1010, 10_000), (b"\x03\xe0", -8_000), (math.inf, None), (math.nan, None), ("x", None)]
)
async def test_a_clock_is_set_whatever_it_told(told: Any, offset_ms: int | None) -> None:
    """LwM2M CBOR may bring any float."""
    device = Told(told)
    assert await set_clock(device, None, 112, lambda: 1000.0) == (offset_ms, True)  # type: ignore[arg-type]  # has what is used
    assert device.value == 1000
