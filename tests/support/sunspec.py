"""Registers of a SunSpec device, laid out from the models' published facts."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from flexrelay_adapters.modbus.sunspec import points

_ABSENT = {
    "int16": [0x8000], "sunssf": [0x8000], "uint16": [0xFFFF], "enum16": [0xFFFF], "bitfield16": [0xFFFF],
    "count": [0], "int32": [0x8000, 0], "uint32": [0xFFFF, 0xFFFF], "bitfield32": [0xFFFF, 0xFFFF], "acc32": [0, 0],
    "acc64": [0] * 4, "uint64": [0xFFFF] * 4, "float32": [0x7FC0, 0],
}  # fmt: skip
LENGTHS = {1: 66, 103: 50, 113: 60, 120: 26, 121: 30, 123: 24, 124: 24, 160: 48, 203: 105, 213: 124, 701: 153, 702: 50}
LENGTHS |= {704: 65, 713: 7, 802: 62}


def model(number: int, **values: Any) -> list[int]:
    """ID, length and points; what is not named is not implemented."""
    registers = [number, LENGTHS[number], *[0x8000] * LENGTHS[number]]
    for name, point in points(number).items():
        if "." in name:
            continue
        value = values.pop(name, None)
        if point.type == "string":
            data = str(value or "").encode().ljust(2 * point.size, b"\0")
            new = [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]
        elif value is None:
            new = _ABSENT[point.type]
        elif point.type == "float32":
            new = list(struct.unpack(">2H", struct.pack(">f", value)))
        else:
            data = int(value).to_bytes(2 * point.size, "big", signed=value < 0)
            new = [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]
        registers[point.offset : point.offset + point.size] = new
    assert not values, f"model {number} has no {', '.join(values)}"
    return registers


def chain(*models: list[int], base: int = 40_000) -> tuple[int, list[int]]:
    """(Address, registers) from the marker to the end."""
    return base, [*struct.unpack(">2H", b"SunS"), *[each for one in models for each in one], 0xFFFF, 0]


def places(registers: tuple[int, list[int]]) -> Mapping[int, int]:
    """Model → address of its ID register."""
    base, values = registers
    at, found = 2, {}
    while values[at] != 0xFFFF:
        found[values[at]] = base + at
        at += 2 + values[at + 1]
    return found


def inverter(serial: str = "SN-1", **more: Any) -> tuple[int, list[int]]:
    """A three-phase inverter with a storage, as the older models tell it."""
    return chain(
        model(1, Mn="Acme", Md="Roof 10", Vr="4.1.0", SN=serial),
        model(103, A=150, A_SF=-1, PhVphA=2305, V_SF=-1, W=345, W_SF=1, VAr=-12, VAr_SF=1, WH=123_456, WH_SF=1, St=4),
        model(120, WRtg=1000, WRtg_SF=1),
        model(121, WMax=1000, WMax_SF=1),
        model(123, WMaxLimPct=1000, WMaxLimPct_SF=-1, WMaxLimPct_RvrtTms=0, WMaxLim_Ena=0, Conn=1, Conn_RvrtTms=0),
        model(
            124, WChaMax=5000, WChaMax_SF=0, ChaState=555, ChaState_SF=-1, OutWRte=0, InWRte=0, InOutWRte_SF=-2,
            StorCtl_Mod=0, InOutWRte_RvrtTms=0,
        ),
        **more,
    )  # fmt: skip


def der(serial: str = "DER-1") -> tuple[int, list[int]]:
    """A battery as the models for IEEE 1547 tell it."""
    return chain(
        model(1, Mn="Acme", Md="Box 5", SN=serial),
        model(
            701, W=-1234, W_SF=0, Var=55, Var_SF=0, A=54, A_SF=-1, LNV=2301, V_SF=-1, TotWhInj=10_000_000_000,
            TotWhAbs=7_000, TotWh_SF=0, InvSt=3, Alrm=0,
        ),
        model(702, WMaxRtg=500, WMax=500, W_SF=1),
        model(
            704, WMaxLimPctEna=0, WMaxLimPct=100, WMaxLimPctEnaRvrt=0, WMaxLimPctRvrtTms=0, WMaxLimPct_SF=0, WSetEna=0,
            WSetMod=0, WSet=0, WSet_SF=0, WSetEnaRvrt=0, WSetRvrtTms=0,
        ),
        model(713, SoC=4321, Pct_SF=-2),
        base=50_000,
    )  # fmt: skip


def meter(serial: str = "M-1") -> tuple[int, list[int]]:
    return chain(
        model(1, Mn="Acme", Md="Meter", SN=serial),
        model(203, W=-250, W_SF=0, A=11, A_SF=-1, PhV=2299, V_SF=-1, TotWhExp=5, TotWhImp=77, TotWh_SF=3),
        base=0,
    )
