"""What devices tell of themselves: kept, merged, made safe, and nobody else's."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import pytest

from flexrelay.devices import DISCOVERED, FACTS, Facts, learn
from flexrelay.ingest import Enrolment, Registry
from flexrelay.store import Store
from flexrelay_schemas.did import Create, key_hash
from flexrelay_sdk import DeviceFacts, FactTeller
from flexrelay_sdk.facts import MAX_FACT, NO_FACTS, cleaned, fact

KEY = "z" + "2" * 48


def device(registry: Registry, number: int) -> str:
    create = Create(network="net", kind="device", key=KEY, next_key_hash=key_hash("-"), nonce=f"{number:032x}")
    did = create.did()
    registry.apply("identity.registered", {"did": did, "kind": "device", "key": KEY, "version": 1})
    registry.enrol(Enrolment(did, (("lwm2m", f"m-{number}"),)))
    return did


class Teller:
    """An adapter as far as facts go."""

    protocol = "lwm2m"

    def __init__(self, *told: tuple[str, DeviceFacts]) -> None:
        self.told: Iterable[tuple[str, DeviceFacts]] = told

    def facts(self) -> Iterable[tuple[str, DeviceFacts]]:
        return self.told


class Broken(Teller):
    def facts(self) -> Iterable[tuple[str, DeviceFacts]]:
        raise RuntimeError("somebody else's code")


class Mute:
    protocol = "lwm2m"


FULL = DeviceFacts("Acme", "M1", "77", "1.0", 640)


async def test_kept_over_a_restart_and_merged(tmp_path: Path) -> None:
    registry = Registry("net", "org")
    first, second = device(registry, 1), device(registry, 2)
    teller = Teller(("m-1", FULL), ("stranger", FULL))
    assert isinstance(teller, FactTeller) and not isinstance(Mute(), FactTeller)
    adapters = {"mute": Mute(), "field": teller}
    async with Store(tmp_path / "s.db", [DISCOVERED]) as store:
        pass  # a file of an older program: the tables are made beside its own
    async with Store(tmp_path / "s.db", [DISCOVERED, FACTS]) as store:
        facts = Facts(store, "org", registry)
        assert await facts.sweep(adapters, 1_000) == 1  # type: ignore[arg-type]
        assert await facts.sweep(adapters, 2_000) == 0  # type: ignore[arg-type]
        assert (await facts.of(first), await facts.of(second)) == (FULL, NO_FACTS)
        assert await Facts(store, "another", registry).of(first) == NO_FACTS
    async with Store(tmp_path / "s.db", [DISCOVERED, FACTS]) as store:
        facts = Facts(store, "org", registry)
        teller.told = [("m-1", DeviceFacts(firmware="1.1")), ("m-2", NO_FACTS)]
        assert await facts.sweep(adapters, 3_000) == 1  # type: ignore[arg-type]
        assert await facts.of(first) == FULL._replace(firmware="1.1")

        def rows(connection: object) -> list[tuple[str, int]]:
            return connection.execute("SELECT firmware, told_at FROM device_facts").fetchall()  # type: ignore[attr-defined, no-any-return]

        assert await store.read(rows) == [("1.1", 3_000)]
        teller.told = [("m-1", DeviceFacts(firmware="1.1", battery_permille=640))]  # nothing new
        await facts.sweep(adapters, 4_000)  # type: ignore[arg-type]
        assert await store.read(rows) == [("1.1", 3_000)]


async def test_a_credential_that_is_bound_anew_and_a_device_that_is_out(tmp_path: Path) -> None:
    registry = Registry("net", "org")
    first, second = device(registry, 1), device(registry, 2)
    async with Store(tmp_path / "s.db", [FACTS]) as store:
        facts, teller = Facts(store, "org", registry), Teller(("m-1", FULL), ("m-2", FULL))
        registry.apply("identity.deactivated", {"did": second, "kind": "device"})
        await facts.sweep({"field": teller}, 1_000)  # type: ignore[dict-item]
        assert (await facts.of(first), await facts.of(second)) == (FULL, NO_FACTS)
        third = device(registry, 3)
        registry.withdraw(first)
        registry.withdraw(third)
        registry.enrol(Enrolment(third, (("lwm2m", "m-1"),)))
        await facts.sweep({"field": teller}, 2_000)  # type: ignore[dict-item]
        assert await facts.of(third) == FULL


async def test_one_that_fails_stops_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry("net", "org")
    did = device(registry, 1)
    async with Store(tmp_path / "s.db", [FACTS]) as store:
        facts = Facts(store, "org", registry)
        wrong = Teller(("m-1", "Acme"))  # type: ignore[arg-type]
        adapters = {"a": Broken(), "b": wrong, "c": Teller(("m-1", FULL))}
        with caplog.at_level(logging.ERROR):
            await learn(facts, adapters, lambda: 1_000)  # type: ignore[arg-type]
        assert [record.args for record in caplog.records] == [("a",), ("b",)]
        assert await facts.of(did) == FULL


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("  Acme\tMeters\n", "Acme Meters"),
        (b"v1\x00", "v1"),
        (b"\xff", "�"),
        ("a" * 10**6, "a" * MAX_FACT),
        ("\x1b[31mred\u202e", "[31mred"),
        (17, ""),
        (None, ""),
    ],
)
def test_texts_are_safe_to_show(told: object, shown: str) -> None:
    assert fact(told) == shown


@pytest.mark.parametrize("battery", [-1, 1001, True, "50", None])
def test_a_battery_that_cannot_be_is_not_told(battery: object) -> None:
    assert cleaned(DeviceFacts("\x00", battery_permille=battery)) == NO_FACTS  # type: ignore[arg-type]
