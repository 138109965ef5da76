"""A channel's configuration as messages: reading it out of a block, and the update that admits organisations.

Needs the extra `fabric` for the messages.
"""

from collections.abc import Iterable
from typing import Any

from fabric_protos.common import common_pb2 as _common
from fabric_protos.common import configtx_pb2 as _configtx

common_pb2: Any = _common  # generated modules carry no types
configtx_pb2: Any = _configtx

_APPLICATION = "Application"


def of_block(block: bytes) -> Any:
    """The Config in a configuration block."""
    envelope = common_pb2.Envelope.FromString(common_pb2.Block.FromString(block).data.data[0])
    payload = common_pb2.Payload.FromString(envelope.payload)
    return configtx_pb2.ConfigEnvelope.FromString(payload.data).config


def organisations(config: Any) -> list[str]:
    """Organisations with peers that the channel's configuration names."""
    return sorted(config.channel_group.groups[_APPLICATION].groups)


def admission(channel: str, current: Any, target: Any, newcomers: Iterable[str]) -> bytes:
    """The unsigned envelope of an update that adds these organisations, as `target` has them, to `current`.

    An update names what it has read and what it writes, by versions: a group that gains a member has its version
    raised and lists every other member by the version that it keeps.
    """
    application = current.channel_group.groups[_APPLICATION]
    update = configtx_pb2.ConfigUpdate(channel_id=channel)
    for group in (update.read_set, update.write_set):
        group.version = current.channel_group.version
        _list_members(application, group.groups[_APPLICATION])
    written = update.write_set.groups[_APPLICATION]
    written.version = application.version + 1
    for org in newcomers:
        written.groups[org].CopyFrom(target.channel_group.groups[_APPLICATION].groups[org])
    header = common_pb2.ChannelHeader(type=common_pb2.HeaderType.CONFIG_UPDATE, channel_id=channel)
    payload = common_pb2.Payload(
        header=common_pb2.Header(channel_header=header.SerializeToString()),
        data=configtx_pb2.ConfigUpdateEnvelope(config_update=update.SerializeToString()).SerializeToString(),
    )
    return bytes(common_pb2.Envelope(payload=payload.SerializeToString()).SerializeToString())


def _list_members(source: Any, into: Any) -> None:
    into.version = source.version
    into.mod_policy = source.mod_policy
    for name, group in source.groups.items():
        into.groups[name].version = group.version
    for name, value in source.values.items():
        into.values[name].version = value.version
    for name, policy in source.policies.items():
        into.policies[name].version = policy.version
