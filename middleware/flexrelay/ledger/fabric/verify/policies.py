"""Endorsement policies: of signatures by organisations' roles, and those of the channel's configuration."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from google.protobuf.message import DecodeError

from flexrelay.ledger.fabric.messages import (
    ApplicationPolicy,
    ConfigEnvelope,
    Envelope,
    FabricMSPConfig,
    ImplicitMetaPolicy,
    MSPConfig,
    MSPRole,
    Payload,
    SignaturePolicyEnvelope,
)

_SIGNATURE: Final = 1
_IMPLICIT_META: Final = 3
_ROLES: Final = (0, 3)
"""MEMBER and PEER: what an endorsing peer is."""

LIFECYCLE: Final = "/Channel/Application/LifecycleEndorsement"


def signed_by(envelope: bytes, orgs: Sequence[str]) -> bool:
    """Whether the endorsing peers (one entry each: its organisation) meet a SignaturePolicyEnvelope."""
    try:
        policy = _signature_policy(envelope)
    except DecodeError:
        return False
    return _met(policy.rule, [_org_of(item) for item in policy.identities], orgs, [False] * len(orgs))


@lru_cache(maxsize=1024)
def _signature_policy(envelope: bytes) -> Any:
    return SignaturePolicyEnvelope.FromString(envelope)


def _org_of(principal: Any) -> str:
    """The organisation whose peer satisfies the principal, "" when no peer does."""
    if principal.principal_classification != 0:
        return ""
    role = MSPRole.FromString(principal.principal)
    return str(role.msp_identifier) if role.role in _ROLES else ""


def _met(rule: Any, principals: Sequence[str], orgs: Sequence[str], used: list[bool]) -> bool:
    """Fabric's evaluation: each signature counts once, rules take signatures in their order."""
    if rule.WhichOneof("Type") == "signed_by":
        for position, org in enumerate(orgs):
            if not used[position] and org == principals[rule.signed_by]:
                used[position] = True
                return True
        return False
    verified = 0
    for part in rule.n_out_of.rules:
        trial = list(used)
        if _met(part, principals, orgs, trial):
            used[:] = trial
            verified += 1
    return bool(verified >= rule.n_out_of.n)


class ChannelPolicies:
    """The policies of a channel's configuration at one time."""

    def __init__(self, config_block: Any) -> None:
        """Raises ValueError for a block that is no configuration."""
        try:
            payload = Payload.FromString(Envelope.FromString(config_block.data.data[0]).payload)
            self._root = ConfigEnvelope.FromString(payload.data).config.channel_group
        except (DecodeError, IndexError) as error:
            raise ValueError(f"the channel's configuration cannot be read: {error}") from None

    def met(self, policy: bytes, orgs: Sequence[str]) -> bool:
        """Whether the endorsing peers meet an ApplicationPolicy."""
        try:
            found = ApplicationPolicy.FromString(policy)
        except DecodeError:
            return False
        if found.WhichOneof("Type") == "signature_policy":
            return signed_by(found.signature_policy.SerializeToString(), orgs)
        return self.met_at(found.channel_config_policy_reference, orgs)

    def met_at(self, path: str, orgs: Sequence[str]) -> bool:
        """Whether they meet the policy at a path such as /Channel/Application/Endorsement."""
        first, *groups, name = path.strip("/").split("/")
        group = self._root
        for part in groups:
            if part not in group.groups:
                return False
            group = group.groups[part]
        return first == "Channel" and _met_in(group, name, orgs)

    def org_met(self, org: str, orgs: Sequence[str]) -> bool:
        """Whether they meet an organisation's own endorsement policy: the one for its implicit collection."""
        for group in self._root.groups["Application"].groups.values():
            if _msp_of(group) == org:
                return _met_in(group, "Endorsement", orgs) if "Endorsement" in group.policies else org in orgs
        return False


def _met_in(group: Any, name: str, orgs: Sequence[str]) -> bool:
    if name not in group.policies:
        return False
    policy = group.policies[name].policy
    if policy.type == _SIGNATURE:
        return signed_by(policy.value, orgs)
    if policy.type != _IMPLICIT_META:
        return False
    meta = ImplicitMetaPolicy.FromString(policy.value)
    count = len(group.groups)
    needed = {0: min(1, count), 1: count, 2: count // 2 + 1}[meta.rule]
    return sum(_met_in(part, meta.sub_policy, orgs) for part in group.groups.values()) >= needed


def _msp_of(group: Any) -> str:
    return str(FabricMSPConfig.FromString(MSPConfig.FromString(group.values["MSP"].value).config).name)
