"""Enrolled devices: kept over a restart, one name and one credential for one device."""

from pathlib import Path

import pytest

from flexrelay.devices import ENROLMENTS, DeviceRecord, Enrolments
from flexrelay.ingest import Registry
from flexrelay.store import Store

ONE = "did:flexrelay:test:zQm1111111111111111111111111111111111111111111"
TWO = "did:flexrelay:test:zQm2222222222222222222222222222222222222222222"


async def test_they_are_there_after_a_restart(tmp_path: Path) -> None:
    record = DeviceRecord(ONE, "meter-1", "meter", (("mqtt", "m1"),), ("dso",), unsigned=True)
    async with Store(tmp_path / "store.db", [ENROLMENTS]) as store:
        devices = await Enrolments.open(store, "dso", Registry("test", "dso"))
        await devices.add(record)
        await devices.add(DeviceRecord(TWO, "a-battery", "battery"))
    async with Store(tmp_path / "store.db", [ENROLMENTS]) as store:
        registry = Registry("test", "dso")
        devices = await Enrolments.open(store, "dso", registry)
        assert devices.get(ONE) == devices.named("meter-1") == record
        assert [found.name for found in devices] == ["a-battery", "meter-1"]
        info = devices.describe(TWO)
        assert info is not None and info.kind == "battery"
        registry.apply("identity.registered", {"did": ONE, "key": "z", "version": 1})
        assert registry.identify("mqtt", "m1") is registry.device(ONE)


async def test_a_device_can_be_renamed_and_its_old_name_is_free(tmp_path: Path) -> None:
    async with Store(tmp_path / "store.db", [ENROLMENTS]) as store:
        devices = await Enrolments.open(store, "dso", Registry("test", "dso"))
        await devices.add(DeviceRecord(ONE, "old", "meter"))
        await devices.add(DeviceRecord(ONE, "new", "meter"))
        await devices.add(DeviceRecord(TWO, "old", "pv"))
        assert [(found.name, found.did) for found in devices] == [("new", ONE), ("old", TWO)]
        with pytest.raises(ValueError, match="'new' belongs to"):
            await devices.add(DeviceRecord(TWO, "new", "pv"))
        assert [(found.name, found.did) for found in devices] == [("new", ONE), ("old", TWO)]
