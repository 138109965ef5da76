"""How each transaction of a block must be judged: Fabric's rules, over the state that the blocks before it give."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from flexrelay.ledger.embedded.overlay import Overlay
from flexrelay.ledger.embedded.state import hash_key
from flexrelay.ledger.fabric.errors import Untrusted
from flexrelay.ledger.fabric.messages import CONFIG
from flexrelay.ledger.fabric.msp import Trust
from flexrelay.ledger.fabric.verify.policies import LIFECYCLE, ChannelPolicies, signed_by
from flexrelay.ledger.fabric.verify.ranges import Version, unchanged
from flexrelay.ledger.fabric.verify.transactions import Call, Malformed, Space, header_of, read
from flexrelay.ledger.fabric.verify.world import IMPLICIT, World, changes_of
from flexrelay.ledger.fabric.verify.world import LIFECYCLE as SYSTEM
from flexrelay.ledger.port import Validation


@dataclass(slots=True)
class Judged:
    """One transaction: what it is judged, why when it is malformed, and itself when it calls a chaincode."""

    validation: Validation
    tx_id: str = ""
    call: Call | None = None
    why: str = ""


@dataclass(slots=True)
class Judgement:
    """A block in work: its transactions, and the changes of those that are valid so far, by namespace."""

    number: int
    world: World
    items: list[Judged] = field(default_factory=list)
    overlays: dict[str, Overlay] = field(default_factory=dict)

    def overlay(self, namespace: str) -> Overlay:
        if namespace not in self.overlays:
            self.overlays[namespace] = Overlay(self.world.state(namespace))
        return self.overlays[namespace]

    def take(self, index: int, call: Call) -> None:
        """A valid transaction's changes."""
        for space in call.spaces:
            overlay = self.overlay(space.name)
            overlay.changes.update(changes_of(overlay, space, self.number, index))


class Judge:
    """`policies` are the channel's at the block that is judged. `endorsements` counts those that were verified."""

    def __init__(self, channel: str, trust: Trust, world: World) -> None:
        self._channel = channel
        self._trust = trust
        self._world = world
        self.policies: ChannelPolicies | None = None
        self.endorsements = 0

    def begin(self, number: int, data: Sequence[bytes]) -> Judgement:
        """All that is judged by the state before the block: form, signatures, duplicates, endorsement.

        Versions are not looked at yet: `settle` does it, transaction by transaction.
        """
        judgement = Judgement(number, self._world)
        renewed: set[tuple[str, str]] = set()
        seen: set[str] = set()
        for item in data:
            found = self._alone(item, renewed)
            if found.validation is Validation.VALID and found.call is not None:
                if found.tx_id in seen:
                    found.validation = Validation.DUPLICATE_TXID
                seen.add(found.tx_id)
            judgement.items.append(found)
        return judgement

    def settle(self, judgement: Judgement, item: Judged) -> Validation:
        """The final word on the next transaction: whether what it read is still so."""
        if item.validation is Validation.VALID and item.call is not None:
            item.validation = self._fresh(judgement, item.call)
        return item.validation

    def _alone(self, data: bytes, renewed: set[tuple[str, str]]) -> Judged:
        header = header_of(data)
        if header is None:
            return Judged(Validation.INVALID, why="cannot be read")
        if header.type == CONFIG:  # its orderers have judged it: a block that is signed holds nobody else's
            return Judged(Validation.VALID, header.tx_id)
        try:
            call = read(data, self._channel, self._trust)
        except Malformed as error:
            return Judged(Validation.INVALID, header.tx_id, why=str(error))
        if bytes.fromhex(call.tx_id) in self._world.ids:
            return Judged(Validation.DUPLICATE_TXID, call.tx_id, call)
        if not self._endorsed(call, renewed):
            return Judged(Validation.ENDORSEMENT_POLICY_FAILURE, call.tx_id, call)
        for space in call.spaces:
            renewed |= {(space.name, item.key) for item in space.public.metadata_writes}
        return Judged(Validation.VALID, call.tx_id, call)

    def _endorsers(self, call: Call) -> list[str]:
        """The organisation of each peer whose endorsement is good."""
        found: dict[bytes, str] = {}
        for item in call.endorsed.endorsements:
            try:
                member = self._trust.member(item.endorser, "peer")
            except Untrusted:
                continue
            if member.signed(item.signature, call.endorsed.proposal_response_payload + item.endorser):
                found[item.endorser] = member.org
        self.endorsements += len(found)
        return list(found.values())

    def _endorsed(self, call: Call, renewed: set[tuple[str, str]]) -> bool:
        """Each namespace that is written, and the called chaincode's, asks for its own policy."""
        orgs = self._endorsers(call)
        named = [
            call.chaincode,
            *(space.name for space in call.spaces if space.writes and space.name != call.chaincode),
        ]
        return all(self._space_endorsed(call.space(name), orgs, renewed) for name in named)

    def _space_endorsed(self, space: Space, orgs: Sequence[str], renewed: set[tuple[str, str]]) -> bool:
        """A key with a policy asks for that one; all others for the contract's, or their collection's own."""
        state = self._world.state(space.name)
        general = not space.writes
        for item in (*space.public.writes, *space.public.metadata_writes):
            if (space.name, item.key) in renewed:
                return False  # its policy changes in this very block
            entry = state.get(item.key)
            if entry is None or entry.policy is None:
                general = True
            elif not signed_by(bytes.fromhex(entry.policy[0]), orgs):
                return False
        for collection, hashed in space.private:
            if not hashed.hashed_writes and not hashed.metadata_writes:
                continue
            if not self._collection_endorsed(space.name, collection, orgs):
                return False
        return not general or self._contract_endorsed(space.name, orgs)

    def _contract_endorsed(self, name: str, orgs: Sequence[str]) -> bool:
        assert self.policies is not None
        if name == SYSTEM:
            return self.policies.met_at(LIFECYCLE, orgs)
        definition = self._world.definition(name)
        return definition is not None and self.policies.met(definition.policy, orgs)

    def _collection_endorsed(self, name: str, collection: str, orgs: Sequence[str]) -> bool:
        assert self.policies is not None
        if collection.startswith(IMPLICIT):
            return self.policies.org_met(collection.removeprefix(IMPLICIT), orgs)
        definition = self._world.definition(name)
        config = None if definition is None else definition.collections.get(collection)
        if config is None:
            return False
        if config.HasField("endorsement_policy"):
            return self.policies.met(config.endorsement_policy.SerializeToString(), orgs)
        return self._contract_endorsed(name, orgs)

    def _fresh(self, judgement: Judgement, call: Call) -> Validation:
        for space in call.spaces:
            overlay = judgement.overlay(space.name)
            if not all(_same(overlay, item.key, item) for item in space.public.reads):
                return Validation.MVCC_READ_CONFLICT
            if not all(unchanged(info, _entries(overlay, info)) for info in space.public.range_queries_info):
                return Validation.PHANTOM_READ_CONFLICT
            for collection, hashed in space.private:
                for item in hashed.hashed_reads:
                    if not _same(overlay, hash_key(collection, item.key_hash.hex()), item):
                        return Validation.MVCC_READ_CONFLICT
        return Validation.VALID


def _same(overlay: Overlay, key: str, item: Any) -> bool:
    """Whether a read is true still. What was changed earlier in the block never is, even when it is as before."""
    if key in overlay.changes:
        return False
    entry = overlay.get(key)
    if not item.HasField("version"):
        return entry is None
    return entry is not None and entry.version == (item.version.block_num, item.version.tx_num)


def _entries(overlay: Overlay, info: Any) -> list[tuple[str, Version]]:
    """What stands in a range now; the end key belongs to one that was not read to its end."""
    end = info.end_key if info.itr_exhausted else info.end_key + "\x00"
    if not end:
        end = "\U0010ffff"
    rows = overlay.versions(info.start_key, end)
    return [(key, (block, tx)) for key, block, tx in takewhile(lambda row: row[0] < end, rows)]
