"""What stands in a device object becomes facts; what is wrong in it is left out."""

from __future__ import annotations

from typing import Any

import pytest

from flexrelay_adapters.lwm2m import formats
from flexrelay_adapters.lwm2m.coap import codes
from flexrelay_adapters.lwm2m.formats import Record
from flexrelay_adapters.lwm2m.nameplate import facts_of, has_nameplate
from flexrelay_sdk import DeviceFacts
from flexrelay_sdk.facts import NO_FACTS

VALUES = {0: "Acme", 1: "M1", 2: "77", 3: "1.0", 9: 64, 13: 1_700_000_000, 16: "U"}


@pytest.mark.parametrize("content_format", [codes.TLV, codes.SENML_CBOR, codes.SENML_JSON, codes.LWM2M_CBOR])
def test_every_format(content_format: int) -> None:
    records = [Record((3, 0, resource), value) for resource, value in VALUES.items()]
    payload = formats.encode(content_format, records, (3, 0))
    assert facts_of(formats.decode(content_format, payload, (3, 0), 0.0)) == DeviceFacts("Acme", "M1", "77", "1.0", 640)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ((3, 0, 3), 1.5, NO_FACTS),
        ((3, 0, 3), b"v1\xff", DeviceFacts(firmware="v1�")),
        ((3, 0, 3), "x\n[/red]" + "y" * 900, DeviceFacts(firmware=("x [/red]" + "y" * 900)[:100])),
        ((3, 0, 9), 101, NO_FACTS),
        ((3, 0, 9), True, NO_FACTS),
        ((3, 0, 9), b"\x01\x02\x03", NO_FACTS),
        ((3, 0, 9), b"\x64", DeviceFacts(battery_permille=1000)),
        ((3, 0, 9, 1), 50, NO_FACTS),
        ((3, 1, 3), "1.0", NO_FACTS),
        ((3303, 0, 3), "1.0", NO_FACTS),
    ],
)
def test_what_is_wrong_is_left_out(path: tuple[int, ...], value: Any, told: DeviceFacts) -> None:
    assert facts_of([Record(path, value)]) == told


def test_who_has_one() -> None:
    assert has_nameplate(((1, 0), (3, 0))) and has_nameplate(((3,),))
    assert not has_nameplate(((3, 1), (3303, 0)))
