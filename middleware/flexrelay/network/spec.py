"""The description of a network: one TOML file, read once, checked as a whole.

Every contradiction is found here, before anything is made or started, and named by file and field.
"""

import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from flexrelay.network.errors import SpecError

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
ChannelName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9.-]{0,31}$")]
ContractName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9]+([-_][a-zA-Z0-9]+)*$", max_length=64)]
CollectionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-][A-Za-z0-9_-]{0,63}$")]
"""What Fabric's lifecycle takes: no dot."""
Version = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]+([.+_-][A-Za-z0-9]+)*$", max_length=32)]
ModuleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$")]
Share = Annotated[int, Field(ge=1, le=64)]

MIB: Final = 1024 * 1024
LEAST_BFT: Final = 4
"""3f + 1 orderers bear f faulty ones; with fewer than four BFT bears none."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Organisation(_Part):
    """An organisation with peers; its name is its MSP id."""

    name: Name
    peers: Share = 1


class BlockCut(_Part):
    """When a block is cut: after `timeout_ms`, `max_messages` or `preferred_bytes`, whatever comes first.

    A BFT channel has no timeout of its own: `timeout_ms` becomes its batch interval.
    """

    timeout_ms: Annotated[int, Field(ge=10, le=60_000)] = 100
    max_messages: Annotated[int, Field(ge=1, le=10_000)] = 100
    preferred_bytes: Annotated[int, Field(ge=1024, le=99 * MIB)] = 2 * MIB
    absolute_bytes: Annotated[int, Field(ge=1024, le=99 * MIB)] = 20 * MIB


class Channel(_Part):
    """A ledger that some of the organisations share; without `organisations` it is all of them."""

    name: ChannelName
    organisations: Annotated[tuple[Name, ...], Field(strict=False)] = ()
    block: BlockCut = BlockCut()


class Policy(_Part):
    """`required` of `orgs` must endorse; without a policy it is a majority of the channel's organisations."""

    orgs: Annotated[tuple[Name, ...], Field(strict=False, min_length=1)]
    required: Share


class Collection(_Part):
    """A private collection. `block_to_live` 0 keeps values for ever; with `member_only` no other organisation's client
    reads it, not even through a member's peer."""

    orgs: Annotated[tuple[Name, ...], Field(strict=False, min_length=1)]
    block_to_live: Annotated[int, Field(ge=0)] = 0
    member_only: bool = True


class Contract(_Part):
    """A chaincode on some channels (all without), one process for each organisation.

    `entries`: contract (the part of a function's name before the dot) → the chaincode by which it enters.
    `forward_to`: this one is only such an entry of that other chaincode.
    """

    name: ContractName
    version: Version = "1"
    sequence: Annotated[int, Field(ge=1)] = 1
    channels: Annotated[tuple[ChannelName, ...], Field(strict=False)] = ()
    module: ModuleName = "flexrelay_contracts.catalogue"
    policy: Policy | None = None
    collections: dict[CollectionName, Collection] = {}
    entries: dict[Name | ContractName, ContractName] = {}
    forward_to: ContractName | None = None

    @property
    def label(self) -> str:
        return f"{self.name}_{self.version}"


class Spec(_Part):
    """A whole network. All times in ms, all sizes in bytes. `base_port`: ports from there on, otherwise free ones."""

    name: Name
    fabric: Literal["3.1", "2.5"] = "3.1"
    consensus: Literal["raft", "bft"] = "raft"
    orderers: Share = 1
    orderer_organisation: Name = "orderer"
    base_port: Annotated[int, Field(ge=1024, le=65_000)] | None = None
    guard_ms: Annotated[int, Field(ge=1_000, le=3_600_000)] = 300_000
    organisations: Annotated[tuple[Organisation, ...], Field(strict=False, min_length=1)]
    channels: Annotated[tuple[Channel, ...], Field(strict=False, min_length=1)]
    contracts: Annotated[tuple[Contract, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        problems = list(_contradictions(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def orderer_names(self) -> tuple[str, ...]:
        return tuple(f"orderer{number}" for number in range(self.orderers))

    def organisation(self, name: str) -> Organisation:
        """Raises SpecError."""
        for organisation in self.organisations:
            if organisation.name == name:
                return organisation
        raise SpecError(f"the network {self.name} has no organisation {name}")

    def peer_names(self, org: str) -> tuple[str, ...]:
        return tuple(f"peer{number}.{org}" for number in range(self.organisation(org).peers))

    def members(self, channel: Channel) -> tuple[str, ...]:
        """The channel's organisations."""
        return channel.organisations or tuple(organisation.name for organisation in self.organisations)

    def contracts_of(self, channel: Channel) -> tuple[Contract, ...]:
        return tuple(
            contract for contract in self.contracts if not contract.channels or channel.name in contract.channels
        )

    def channels_of(self, contract: Contract) -> tuple[Channel, ...]:
        return tuple(channel for channel in self.channels if not contract.channels or channel.name in contract.channels)

    def runs(self, contract: Contract, org: str) -> bool:
        """Whether the organisation runs this contract: it is a member of one of its channels."""
        return any(org in self.members(channel) for channel in self.channels_of(contract))

    def warnings(self) -> tuple[str, ...]:
        """What works and is not advisable."""
        found = []
        if self.consensus == "raft" and self.orderers == 1:
            found.append("orderers: with one orderer nothing is ordered while it is down; three bear one loss")
        elif self.consensus == "raft" and self.orderers % 2 == 0:
            found.append(
                f"orderers: {self.orderers} Raft orderers bear no more losses than {self.orderers - 1}; take one more"
            )
        return tuple(found)


def load(path: Path) -> Spec:
    """Read a description. Raises SpecError: one line per field, each with the file, the field and the remedy."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(
            f"{path}: {error.strerror}; name the description of a network, like deploy/fabric/network.toml"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: not TOML: {error}") from None
    return parse(data, str(path))


def parse(data: Any, source: str) -> Spec:
    """A description from its parsed form; `source` stands before every message. Raises SpecError."""
    try:
        return Spec.model_validate(data)
    except ValidationError as error:
        lines: list[str] = []
        for detail in error.errors(include_url=False, include_input=False):
            lines += [f"{source}: {line}" for line in _lines(detail)]
        raise SpecError("\n".join(lines)) from None


def _lines(detail: Any) -> list[str]:
    where = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "value_error" and not where:
        return str(detail["ctx"]["error"]).split("\n")
    if detail["type"] == "missing":
        return [f"{where} is missing"]
    if detail["type"] == "extra_forbidden":
        return [f"{where} is not a known key; remove it or correct its spelling"]
    if detail["type"] == "string_pattern_mismatch":
        return [f"{where}: must match {detail['ctx']['pattern']}"]
    return [f"{where}: {detail['msg']}"]


def _contradictions(spec: Spec) -> Iterator[str]:
    orgs = [organisation.name for organisation in spec.organisations]
    channels = [channel.name for channel in spec.channels]
    contracts = [contract.name for contract in spec.contracts]
    yield from _twice("organisations", "organisation", [*orgs, spec.orderer_organisation])
    yield from _twice("channels", "channel", channels)
    yield from _twice("contracts", "contract", contracts)
    if spec.consensus == "bft":
        if spec.fabric == "2.5":
            yield 'fabric: 2.5 has no BFT orderers; take fabric = "3.1" or consensus = "raft"'
        if spec.orderers < LEAST_BFT:
            yield f'orderers: {spec.orderers} BFT orderers bear no fault; take {LEAST_BFT}+ or consensus = "raft"'
    for number, channel in enumerate(spec.channels):
        yield from _unknown(f"channels.{number}.organisations", "organisation", channel.organisations, orgs)
        yield from _twice(f"channels.{number}.organisations", "organisation", channel.organisations)
        if channel.block.preferred_bytes > channel.block.absolute_bytes:
            yield f"channels.{number}.block.preferred_bytes: must not be more than absolute_bytes"
    for number, contract in enumerate(spec.contracts):
        yield from _contract(spec, f"contracts.{number}", contract, orgs, channels, contracts)


def _contract(
    spec: Spec, where: str, contract: Contract, orgs: list[str], channels: list[str], contracts: list[str]
) -> Iterator[str]:
    yield from _unknown(f"{where}.channels", "channel", contract.channels, channels)
    yield from _unknown(f"{where}.entries", "contract", contract.entries.values(), contracts)
    yield from _entries(spec, where, contract)
    if contract.forward_to is not None:
        yield from _unknown(f"{where}.forward_to", "contract", [contract.forward_to], contracts)
        if contract.forward_to == contract.name:
            yield f"{where}.forward_to: {contract.name} cannot be an entry of itself"
        elif any(other.name == contract.forward_to and other.forward_to for other in spec.contracts):
            yield f"{where}.forward_to: {contract.forward_to} is an entry itself; name the chaincode with the state"
        for other in spec.contracts:
            if other.name == contract.forward_to:
                yield from _absent(spec, f"{where}.forward_to", contract, other)
        if contract.collections:
            yield f"{where}.collections: an entry has no state; name them at {contract.forward_to}"
    named = [(f"{where}.collections.{name}", item.orgs) for name, item in contract.collections.items()]
    if contract.policy is not None:
        named.append((f"{where}.policy", contract.policy.orgs))
        if contract.policy.required > len(contract.policy.orgs):
            yield (
                f"{where}.policy.required: {contract.policy.required} of {len(contract.policy.orgs)} organisations "
                "can never endorse; ask for fewer or name more"
            )
    for field, members in named:
        yield from _unknown(f"{field}.orgs", "organisation", members, orgs)
        yield from _twice(f"{field}.orgs", "organisation", members)
        for channel in spec.channels_of(contract):
            outside = [org for org in members if org in orgs and org not in spec.members(channel)]
            if outside:
                yield f"{field}.orgs: {', '.join(outside)} is not in the channel {channel.name}; add it there"


def _entries(spec: Spec, where: str, contract: Contract) -> Iterator[str]:
    """What enters elsewhere must come from there, on each of the contract's channels."""
    for name, entry in contract.entries.items():
        for other in spec.contracts:
            if other.name == entry != contract.name:
                if other.forward_to != contract.name:
                    yield (
                        f"{where}.entries.{name}: {entry} does not pass calls on to {contract.name}; give it "
                        f'forward_to = "{contract.name}"'
                    )
                yield from _absent(spec, f"{where}.entries.{name}", contract, other)


def _absent(spec: Spec, where: str, contract: Contract, other: Contract) -> Iterator[str]:
    """Channels of the contract on which the other one, without which it does not work, is not."""
    for channel in spec.channels_of(contract):
        if channel not in spec.channels_of(other):
            yield f"{where}: {other.name} is not on the channel {channel.name}; add it there"


def _unknown(where: str, kind: str, named: Iterable[str], known: list[str]) -> Iterator[str]:
    for name in named:
        if name not in known:
            yield f"{where}: there is no {kind} {name}; there are {', '.join(known) or 'none'}"


def _twice(where: str, kind: str, names: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield f"{where}: the {kind} {name} stands twice; give each its own name"
        seen.add(name)
