"""Which organisations share private data and how many of them endorse, by the size of a network."""

import re

import pytest

from flexrelay.founding import endorsement_policies, private_collections

ORGS = ("agg-a", "agg-b", "dso", "operator", "tso")


def test_every_two_organisations_and_each_alone_have_a_collection() -> None:
    assert private_collections(["dso"]) == {"dso_on_its_own": ("dso",)}
    assert private_collections(["dso", "agg"]) == {
        "agg_dso": ("agg", "dso"), "agg_on_its_own": ("agg",), "dso_on_its_own": ("dso",),
    }  # fmt: skip
    five = private_collections(ORGS)
    assert len(five) == 10 + 5 + 1 and five["all_of_them"] == ORGS
    assert all(re.fullmatch(r"[a-zA-Z0-9]+([-_][a-zA-Z0-9]+)*", name) for name in five)  # Fabric's rule


def test_no_collection_takes_the_name_of_another() -> None:
    orgs = ("a", "a-b", "b", "b-c", "c", "all", "on")
    assert len(private_collections(orgs)) == 21 + 7 + 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_majority_endorses_everything_in_a_small_network(count: int) -> None:
    assert endorsement_policies(ORGS[:count]) == {}


@pytest.mark.parametrize("count", [4, 5])
def test_two_endorse_what_two_keep_private_in_a_large_one(count: int) -> None:
    policies = endorsement_policies(ORGS[:count])
    assert sorted(policies) == ["congestion", "dispute", "settlement"]
    for policy in policies.values():
        assert (policy.orgs, policy.required) == (ORGS[:count], 2)
