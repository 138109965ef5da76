"""The adapter keeps flexrelay's contract, and is what it declares to be."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from flexrelay_acme_hub import make_adapter

from flexrelay_sdk import Ability, abilities
from flexrelay_sdk.quality import installed_adapters, violations
from flexrelay_sdk.testkit import AdapterContract, BackfillContract, DiscoveryContract, FactContract, Rig, TimeContract

from .hub import HubRig


class TestAcmeHub(AdapterContract, DiscoveryContract, BackfillContract, TimeContract, FactContract):
    def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
        return HubRig.open()


def test_it_is_what_its_quality_toml_says() -> None:
    assert violations("acme_hub", make_adapter, [TestAcmeHub]) == []


def test_a_gateway_finds_it() -> None:
    (found,) = [adapter for adapter in installed_adapters() if adapter.name == "acme_hub"]
    assert found.problem == "" and found.distribution == "flexrelay-acme-hub"
    assert found.abilities == abilities(make_adapter) == set(Ability)
