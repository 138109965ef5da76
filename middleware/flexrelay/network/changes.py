"""What differs between the network in a folder and a description, and which command may bring it there."""

from collections.abc import Iterator
from typing import Literal

from flexrelay.network.errors import SpecError
from flexrelay.network.spec import Contract, Spec

Command = Literal["up", "upgrade", "add-org", "add-peer", "add-channel", "any"]

_ALLOWED: dict[Command, tuple[str, ...]] = {
    "up": (),
    "upgrade": ("contract",),
    "add-org": ("organisation", "contract"),
    "add-peer": ("peer",),
    "add-channel": ("channel", "contract"),
    "any": ("contract", "organisation", "peer", "channel"),
}
_COMMAND_FOR = {"contract": "upgrade", "organisation": "add-org", "peer": "add-peer", "channel": "add-channel"}


def check(had: Spec, wanted: Spec, command: Command) -> None:
    """Raises SpecError when `wanted` asks for more than the command may change."""
    problems = [*_fixed(had, wanted), *_removed(had, wanted), *_sequences(had, wanted)]
    for kind, what in _added(had, wanted):
        if kind not in _ALLOWED[command]:
            problems.append(
                f"{what}; the network is not changed by `{command}`: use `flexrelay network {_COMMAND_FOR[kind]}`"
            )
    if problems:
        raise SpecError("\n".join(problems))


def _fixed(had: Spec, wanted: Spec) -> Iterator[str]:
    """What stays as it was founded."""
    for name in ("name", "fabric", "consensus", "orderers", "orderer_organisation"):
        if getattr(had, name) != getattr(wanted, name):
            yield (
                f"{name}: the network was made with {getattr(had, name)}, and that cannot be changed; "
                "write that, or `flexrelay network down --purge` and make it anew"
            )
    channels = {channel.name: channel for channel in wanted.channels}
    for channel in had.channels:
        if channel.name in channels and channel.block != channels[channel.name].block:
            yield f"channels.{channel.name}.block: stands in the channel's first block; write what was there"


def _removed(had: Spec, wanted: Spec) -> Iterator[str]:
    for field, old, new in (
        ("organisations", [o.name for o in had.organisations], [o.name for o in wanted.organisations]),
        ("channels", [c.name for c in had.channels], [c.name for c in wanted.channels]),
        ("contracts", [c.name for c in had.contracts], [c.name for c in wanted.contracts]),
    ):
        for name in old:
            if name not in new:
                yield f"{field}: {name} is in the network and cannot be taken out of it; write it again"
    members = {channel.name: wanted.members(channel) for channel in wanted.channels}
    for channel in had.channels:
        for org in had.members(channel):
            if channel.name in members and org not in members[channel.name]:
                yield f"channels.{channel.name}.organisations: {org} cannot be taken out; write it again"
    contracts = {contract.name: contract for contract in wanted.contracts}
    for contract in had.contracts:
        if contract.name in contracts:
            stays = [channel.name for channel in wanted.channels_of(contracts[contract.name])]
            for channel in had.channels_of(contract):
                if channel.name not in stays:
                    yield f"contracts.{contract.name}.channels: cannot be taken out of {channel.name}; write it again"
    peers = {organisation.name: organisation.peers for organisation in wanted.organisations}
    for organisation in had.organisations:
        if peers.get(organisation.name, organisation.peers) < organisation.peers:
            yield f"organisations.{organisation.name}.peers: there are {organisation.peers}; write at least that"


def _added(had: Spec, wanted: Spec) -> Iterator[tuple[str, str]]:
    """(kind, what is new) of every addition."""
    before = {organisation.name: organisation for organisation in had.organisations}
    for organisation in wanted.organisations:
        if organisation.name not in before:
            yield "organisation", f"organisations: {organisation.name} is new"
        elif organisation.peers > before[organisation.name].peers:
            yield (
                "peer",
                f"organisations.{organisation.name}.peers: more than the {before[organisation.name].peers} there are",
            )
    channels = {channel.name: channel for channel in had.channels}
    for channel in wanted.channels:
        if channel.name not in channels:
            yield "channel", f"channels: {channel.name} is new"
        elif any(org in before and org not in had.members(channels[channel.name]) for org in wanted.members(channel)):
            yield "organisation", f"channels.{channel.name}.organisations: more than there are"
    contracts = {contract.name: contract for contract in had.contracts}
    for contract in wanted.contracts:
        if contracts.get(contract.name) != contract:
            yield "contract", f"contracts.{contract.name}: differs from what is committed"


def _sequences(had: Spec, wanted: Spec) -> Iterator[str]:
    """A changed definition needs the next sequence, other code another version."""
    contracts = {contract.name: contract for contract in had.contracts}
    for contract in wanted.contracts:
        old = contracts.get(contract.name)
        if old is None or old == contract:
            continue
        where = f"contracts.{contract.name}"
        changed = _defined(old) != _defined(contract)
        if contract.sequence != old.sequence + changed:
            reason = "one more than the last" if changed else "as it is, for the definition is the same"
            yield f"{where}.sequence: write {old.sequence + changed} ({reason})"
        if old.module != contract.module and old.version == contract.version:
            yield f"{where}.version: other code needs another version than {old.version}"
        for name, collection in old.collections.items():
            new = contract.collections.get(name)
            if new is None:
                yield f"{where}.collections.{name}: a collection cannot be taken out; write it again"
            elif new.block_to_live != collection.block_to_live:
                yield f"{where}.collections.{name}.block_to_live: cannot be changed; write {collection.block_to_live}"


def _defined(contract: Contract) -> object:
    """What organisations agree on by a sequence."""
    return contract.version, contract.policy, contract.collections
