"""The channel's state as it follows from its blocks: one per namespace, and what it says of contracts."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import DecodeError

from flexrelay.ledger.embedded.overlay import Overlay
from flexrelay.ledger.embedded.state import Entry, State, hash_key
from flexrelay.ledger.fabric.messages import ChaincodeValidationInfo, CollectionConfigPackage, MSPRole, StateData

LIFECYCLE: Final = "_lifecycle"
IMPLICIT: Final = "_implicit_org_"


@dataclass(frozen=True, slots=True)
class Definition:
    """A contract as it is committed: its endorsement policy (ApplicationPolicy) and collections by name."""

    policy: bytes
    collections: dict[str, Any]

    @property
    def members(self) -> dict[str, tuple[str, ...]]:
        """Collection → its member organisations."""
        return {
            name: tuple(
                sorted(
                    MSPRole.FromString(item.principal).msp_identifier
                    for item in found.member_orgs_policy.signature_policy.identities
                )
            )
            for name, found in self.collections.items()
        }


class World:
    """Entries of public keys, and of hashes of private ones under `hash_key`. An entry's policy is the hexadecimal form
    of the key's validation parameter."""

    def __init__(self) -> None:
        self._states: dict[str, State] = {}
        self._definitions: dict[str, Definition | None] = {}
        self._expiring: defaultdict[int, list[tuple[str, str, int]]] = defaultdict(list)
        self.ids: set[bytes] = set()
        """Ids of all transactions that stand in blocks."""

    def close(self) -> None:
        for state in self._states.values():
            state.close()

    def state(self, namespace: str) -> State:
        if namespace not in self._states:
            self._states[namespace] = State("")
        return self._states[namespace]

    def definition(self, chaincode: str) -> Definition | None:
        """As of the newest block; None for what no organisation has committed."""
        if chaincode not in self._definitions:
            self._definitions[chaincode] = self._read_definition(chaincode)
        return self._definitions[chaincode]

    def _read_definition(self, chaincode: str) -> Definition | None:
        state = self.state(LIFECYCLE)

        def field(name: str) -> bytes | None:
            entry = state.get(f"namespaces/fields/{chaincode}/{name}")
            return None if entry is None else bytes(StateData.FromString(entry.value).Bytes)

        try:
            validation, collections = field("ValidationInfo"), field("Collections")
            if validation is None:
                return None
            policy = ChaincodeValidationInfo.FromString(validation).validation_parameter
            package = CollectionConfigPackage.FromString(collections or b"")
        except DecodeError:
            return None
        found = [item.static_collection_config for item in package.config]
        return Definition(policy, {item.name: item for item in found})

    def apply(self, number: int, block_hash: bytes, overlays: dict[str, Overlay]) -> None:
        """Bring a block's changes into the state, and let go what its collections do not keep any longer."""
        self._schedule(number, overlays)
        for namespace, key, block in self._expiring.pop(number, ()):
            entry = self.state(namespace).get(key)
            overlay = overlays.setdefault(namespace, Overlay(self.state(namespace)))
            if entry is not None and entry.block == block and key not in overlay.changes:
                overlay.changes[key] = None
        for namespace, overlay in overlays.items():
            if overlay.changes:
                self.state(namespace).apply(number, block_hash, {}, overlay.changes)
        if LIFECYCLE in overlays and overlays[LIFECYCLE].changes:
            self._definitions.clear()

    def _schedule(self, number: int, overlays: dict[str, Overlay]) -> None:
        """Note when the private values of this block go (`blockToLive`)."""
        for namespace, overlay in overlays.items():
            definition = self.definition(namespace) if namespace != LIFECYCLE else None
            if definition is None:
                continue
            lives = {hash_key(name, ""): item.block_to_live for name, item in definition.collections.items()}
            for key, entry in overlay.changes.items():
                if entry is None or not key.startswith("\U0010ffff"):
                    continue
                blocks = lives.get(key[: key.index("\x00") + 1], 0)
                if blocks:
                    self._expiring[number + blocks + 1].append((namespace, key, number))


def changes_of(overlay: Overlay, space: Any, number: int, index: int) -> dict[str, Entry | None]:
    """What the valid transaction `index` of block `number` changes in a namespace."""
    changes: dict[str, Entry | None] = {}

    def present(key: str) -> Entry | None:
        return changes[key] if key in changes else overlay.get(key)

    for item in space.public.writes:
        old = present(item.key)
        policy = None if old is None else old.policy
        changes[item.key] = None if item.is_delete else Entry(item.value, number, index, policy)
    for item in space.public.metadata_writes:
        old = present(item.key)
        if old is not None:
            changes[item.key] = Entry(old.value, number, index, parameter_of(item))
    for collection, hashed in space.private:
        for item in hashed.hashed_writes:
            gone = item.is_delete or item.is_purge
            place = hash_key(collection, item.key_hash.hex())
            changes[place] = None if gone else Entry(item.value_hash, number, index, None)
    return changes


def parameter_of(metadata_write: Any) -> tuple[str, ...] | None:
    """The key's policy that a metadata write sets, None when it has none from now on."""
    found = [bytes(entry.value) for entry in metadata_write.entries if entry.name == "VALIDATION_PARAMETER"]
    return (found[-1].hex(),) if found and found[-1] else None
