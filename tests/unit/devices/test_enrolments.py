"""What a gateway decides about devices: kept in the store and in the registry alike, or in neither."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.contracts import NETWORK, Party
from support.readings import registration

from flexrelay.devices import ENROLMENTS, DeviceRecord, Enrolments
from flexrelay.ingest import Registry
from flexrelay.store import Store, StoreUnavailable


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store(tmp_path / "store.db", [ENROLMENTS]) as opened:
        yield opened


async def names(store: Store) -> list[str]:
    again = await Enrolments.open(store, "a", Registry(NETWORK, "a"))
    return [record.name for record in again]


async def test_what_is_refused_leaves_no_binding(store: Store) -> None:
    registry = Registry(NETWORK, "a")
    devices = [Party.new("device") for _ in range(3)]
    registry.load(registration(device) for device in devices)
    one, two, three = (device.did for device in devices)
    enrolments = await Enrolments.open(store, "a", registry)
    await enrolments.add(DeviceRecord(one, "m1", "meter", (("mqtt", "plant-1"),)))
    changed = DeviceRecord(one, "m1", "meter", (("mqtt", "plant-9"),), unsigned=True)
    with pytest.raises(ValueError, match="bound to"):
        await enrolments.add(
            changed,
            DeviceRecord(two, "m2", "meter", (("mqtt", "plant-2"),), unsigned=True),
            DeviceRecord(three, "m3", "meter", (("mqtt", "plant-2"),)),
        )
    assert await names(store) == ["m1"]
    assert [record.name for record in enrolments] == ["m1"]
    found = registry.identify("mqtt", "plant-1")
    assert found is not None and (found.did, found.unsigned) == (one, False)
    assert registry.identify("mqtt", "plant-2") is None
    assert registry.identify("mqtt", "plant-9") is None
    second = registry.device(two)
    assert second is not None and not second.unsigned


async def test_what_cannot_be_stored_leaves_no_binding(store: Store) -> None:
    registry = Registry(NETWORK, "a")
    device = Party.new("device")
    registry.load([registration(device)])
    async with Store(store.path.with_name("closed.db"), [ENROLMENTS]) as closed:
        enrolments = await Enrolments.open(closed, "a", registry)
    with pytest.raises(StoreUnavailable, match="not open"):
        await enrolments.add(DeviceRecord(device.did, "m1", "meter", (("mqtt", "plant-1"),)))
    assert registry.identify("mqtt", "plant-1") is None
    assert list(enrolments) == []
