"""The lifecycle of contracts: installed where they run, approved by each organisation, committed on each channel."""

from collections.abc import Callable
from functools import partial
from typing import Any

from flexrelay.network import contracts
from flexrelay.network.commands import PeerCommands, patiently
from flexrelay.network.errors import CommandFailed, NetworkError
from flexrelay.network.plan import Plan, running_contracts
from flexrelay.network.spec import Channel, Contract, Spec
from flexrelay.network.together import together

Sequences = dict[str, int]
"""`<channel>/<contract>` → by how much the description's sequence is ahead of the channel's.

Fabric counts on each channel from 1; a contract that had upgrades before a channel was added is ahead there."""

_APPROVED_BEFORE = "attempted to redefine uncommitted sequence"
"""With unchanged content: an earlier try got through."""


def install(plan: Plan) -> None:
    """Every package on every peer that runs it."""
    steps: list[Callable[[], None]] = []
    for contract, org in running_contracts(plan.spec):
        package = contracts.ensure_package(plan.folder, plan.materials[org], contract, plan.hosts)
        steps += [partial(patiently, partial(peer.install, package)) for peer in plan.peers(org)]
    together(steps)


def ahead(spec: Spec, known: Sequences) -> Sequences:
    """`known` with an entry for every channel and contract: those that are new begin at 1 there."""
    found = dict(known)
    for channel in spec.channels:
        for contract in spec.contracts_of(channel):
            found.setdefault(f"{channel.name}/{contract.name}", contract.sequence - 1)
    return found


def define(plan: Plan, sequences: Sequences) -> None:
    """Approve and commit what is not. Raises NetworkError."""
    together(
        [
            partial(_define, plan, channel, contract, contract.sequence - sequences[f"{channel.name}/{contract.name}"])
            for channel in plan.spec.channels
            for contract in plan.spec.contracts_of(channel)
        ]
    )


def _define(plan: Plan, channel: Channel, contract: Contract, sequence: int) -> None:
    members = plan.spec.members(channel)
    firsts = {org: plan.peers(org)[0] for org in members}
    asked = firsts[members[0]]
    definition: dict[str, Any] | None = patiently(partial(asked.committed, channel.name, contract.name))
    committed = 0 if definition is None else int(definition["sequence"])
    if committed > sequence:
        raise NetworkError(
            f"contracts.{contract.name}.sequence: channel {channel.name} is {committed - sequence} ahead of it; "
            f"write {contract.sequence + committed - sequence} and the version that is committed there"
        )
    approved = set()
    if definition is not None and committed == sequence:
        approved = {org for org, yes in definition.get("approvals", {}).items() if yes}
    options = [
        *plan.orderer_options(),
        *contracts.definition_options(plan.folder, contract, channel.name, sequence),
    ]
    together([partial(_approve, plan, firsts[org], contract, options) for org in members if org not in approved])
    if committed < sequence:
        targets = []
        for org in members:
            targets += ["--peerAddresses", firsts[org].address, "--tlsRootCertFiles", firsts[org].tls_root]
        patiently(partial(asked.run, "lifecycle", "chaincode", "commit", *options, *targets))


def _approve(plan: Plan, peer: PeerCommands, contract: Contract, options: list[str]) -> None:
    package = plan.folder.package(contract.label, peer.org)
    named = ["--package-id", contracts.id_of(package, contract)]
    try:
        patiently(partial(peer.run, "lifecycle", "chaincode", "approveformyorg", *options, *named))
    except CommandFailed as error:
        if _APPROVED_BEFORE not in error.output:
            raise
