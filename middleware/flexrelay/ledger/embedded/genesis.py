"""The genesis document: who takes part, what a transaction needs, which data is private, how blocks are cut."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from flexrelay_schemas.canonical import canonical
from flexrelay_schemas.did import Multikey
from flexrelay_schemas.model import Items, Model

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Organisation(Model):
    """A member of the network and the Multikeys of its gateways."""

    name: Name
    gateways: Items[Multikey]


class EndorsementPolicy(Model):
    """At least `required` of `orgs` endorse."""

    orgs: Items[Name]
    required: Annotated[int, Field(ge=1, le=1000)]

    def satisfied(self, endorsing: frozenset[str]) -> bool:
        return len(endorsing.intersection(self.orgs)) >= self.required


class BlockCutting(Model):
    """A block is cut at `max_messages`, or `timeout_ms` after its first envelope; 0: as soon as the writer is free."""

    max_messages: Annotated[int, Field(ge=1, le=10_000)] = 500
    timeout_ms: Annotated[int, Field(ge=0, le=60_000)] = 0
    max_envelope_bytes: Annotated[int, Field(ge=1_000, le=100_000_000)] = 10_000_000


class Genesis(Model):
    """Everything that the ledger itself must know; fixed for the life of the network.

    `policies` maps a contract (the part of a function's name before the dot) to its endorsement policy; every other
    contract needs a majority of the organisations. `collections` maps a private collection to its members.
    `tx_time_guard_ms`: how far a transaction's timestamp may lie from the ledger's clock.
    """

    v: Literal[1] = 1
    network: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
    organisations: Items[Organisation]
    policies: dict[Name, EndorsementPolicy] = Field(default_factory=dict)
    collections: dict[Name, Items[Name]] = Field(default_factory=dict)
    block_cutting: BlockCutting = BlockCutting()
    tx_time_guard_ms: Annotated[int, Field(ge=1, le=86_400_000)] = 300_000

    @model_validator(mode="after")
    def _consistent(self) -> "Genesis":
        names = self.org_names()
        if not names:
            raise ValueError("organisations: a network has at least one organisation")
        if len(set(names)) != len(names):
            raise ValueError("organisations: a name stands twice")
        keys = [key for org in self.organisations for key in org.gateways]
        if len(set(keys)) != len(keys):
            raise ValueError("organisations: a gateway's key stands twice")
        for contract, policy in self.policies.items():
            _known(f"policies.{contract}.orgs", policy.orgs, names)
            if policy.required > len(policy.orgs):
                raise ValueError(f"policies.{contract}.required: more endorsements than organisations")
        for collection, members in self.collections.items():
            _known(f"collections.{collection}", members, names)
        return self

    def org_names(self) -> tuple[str, ...]:
        return tuple(org.name for org in self.organisations)

    def policy(self, function: str) -> EndorsementPolicy:
        """The policy of a function's contract."""
        found = self.policies.get(function.partition(".")[0])
        if found is not None:
            return found
        names = self.org_names()
        return EndorsementPolicy(orgs=names, required=len(names) // 2 + 1)

    def encode(self) -> bytes:
        """Canonical bytes, as they stand in block 0."""
        return canonical(self.model_dump(mode="json"))


def _known(field: str, orgs: tuple[str, ...], names: tuple[str, ...]) -> None:
    if not orgs or len(set(orgs)) != len(orgs):
        raise ValueError(f"{field}: names at least one organisation, each once")
    for org in orgs:
        if org not in names:
            raise ValueError(f"{field}: {org} is not an organisation of this network")
