"""Channels: their first block, who has joined them, organisations that join later."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from flexrelay.network.commands import PeerCommands, patiently
from flexrelay.network.errors import NetworkError
from flexrelay.network.genesis import write_genesis
from flexrelay.network.health import ask
from flexrelay.network.plan import Plan
from flexrelay.network.spec import Channel
from flexrelay.network.together import together
from flexrelay.network.waiting import until


def write_first_blocks(plan: Plan) -> None:
    """The first block of every channel that has none yet."""
    for name in plan.spec.orderer_names:
        plan.materials[plan.spec.orderer_organisation].identity(name, "orderer")
    for channel in plan.spec.channels:
        to = plan.folder.genesis(channel.name)
        if not to.is_file():
            write_genesis(plan.binaries, plan.spec, channel, plan.materials, plan.hosts, to)


def join(plan: Plan) -> None:
    """Every orderer on every channel, every peer on those of its organisation."""
    orderers = plan.orderers()
    for channel in plan.spec.channels:
        block = plan.folder.genesis(channel.name)
        steps: list[Callable[[], None]] = [
            partial(patiently, partial(orderer.join, channel.name, block)) for orderer in orderers
        ]
        for org in plan.spec.members(channel):
            steps += [partial(patiently, partial(peer.join, block)) for peer in plan.peers(org)]
        together(steps)


def wait_for_peers(plan: Plan) -> None:
    """Until every peer has all blocks and sees all other peers of its channels: before that it could not give them
    private values, and would not know whom to ask for endorsements. Raises NetworkError."""
    orderers = [plan.ports[f"{name}.operations"] for name in plan.spec.orderer_names]
    for channel in plan.spec.channels:
        newest = max(ask(port).heights.get(channel.name, 0) for port in orderers)
        names = [name for org in plan.spec.members(channel) for name in plan.spec.peer_names(org)]
        for name in names:
            port = plan.ports[f"{name}.operations"]
            problem = f"{name} has not the newest block of {channel.name}, or does not see its {len(names)} peers,"
            until(partial(_arrived, port, channel.name, newest, len(names) - 1), problem)


def _arrived(port: int, channel: str, height: int, others: int) -> bool:
    found = ask(port)
    return found.heights.get(channel, 0) >= height and found.known.get(channel, 0) >= others


def admit(plan: Plan, channel: Channel, newcomers: list[str]) -> None:
    """Add these organisations to the channel's configuration, signed by all that are in it."""
    from flexrelay.network import configuration

    work = plan.folder.channels / channel.name
    work.mkdir(parents=True, exist_ok=True)
    had = [org for org in plan.spec.members(channel) if org not in newcomers]
    if not had:
        raise NetworkError(f"channel {channel.name}: none of its organisations is there to admit others; keep one")
    asked = plan.peers(had[0])[0]
    current = configuration.of_block(_newest(plan, asked, channel, work / "newest.block"))
    missing = [org for org in newcomers if org not in configuration.organisations(current)]
    if not missing:
        return
    # The newcomers' groups come from the same generator that makes first blocks.
    target = work / "target.block"
    write_genesis(plan.binaries, plan.spec, channel, plan.materials, plan.hosts, target)
    update = work / "update.pb"
    update.write_bytes(
        configuration.admission(channel.name, current, configuration.of_block(target.read_bytes()), missing)
    )
    members = [org for org in had if org in configuration.organisations(current)]
    for org in members[1:]:
        plan.peers(org)[0].run("channel", "signconfigtx", "-f", str(update))
    arguments = ("channel", "update", "-f", str(update), "-c", channel.name, *plan.orderer_options())
    patiently(partial(asked.run, *arguments))
    _effective(plan, asked, channel, missing, work)


def _effective(plan: Plan, asked: PeerCommands, channel: Channel, missing: list[str], work: Path) -> None:
    """Wait until the channel's newest configuration names them."""
    from flexrelay.network import configuration

    def named() -> bool:
        current: Any = configuration.of_block(_newest(plan, asked, channel, work / "newest.block"))
        return set(missing) <= set(configuration.organisations(current))

    until(named, f"channel {channel.name} does not show {', '.join(missing)} in its configuration")


def _newest(plan: Plan, peer: PeerCommands, channel: Channel, to: Path) -> bytes:
    """The newest configuration block, from an orderer."""
    arguments = ("channel", "fetch", "config", str(to), "-c", channel.name, *plan.orderer_options())
    patiently(partial(peer.run, *arguments))
    return to.read_bytes()
