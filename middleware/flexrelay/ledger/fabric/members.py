"""Who may see private inputs: an endorser gets them whole, so whoever is asked by name must be a member of the
collections that they are for. Without names the peer that plans asks members only."""

from collections.abc import Sequence
from typing import Any, Final

from google.protobuf.message import DecodeError

from flexrelay.ledger.fabric.messages import MSPRole
from flexrelay.ledger.fabric.system import System
from flexrelay.ledger.port import LedgerError
from flexrelay_contracts.refusal import Refused

NOT_MEMBER: Final = "private_not_member"
_IMPLICIT: Final = "_implicit_org_"


async def check_members(
    system: System, chaincode: str, touched: Sequence[tuple[str, str]], own: str, named: Sequence[str]
) -> None:
    """Raises Refused (private_not_member, field endorsing_orgs) when one of the `named` organisations is no member.

    `touched`: (chaincode, collection) of what the transaction reads and writes. Where that is not known, or it is none,
    all of them must at least have one of the chaincode's collections in common.
    """
    others = set(named) - {own}
    for name, collection in touched:
        members = {collection.removeprefix(_IMPLICIT)}
        if not collection.startswith(_IMPLICIT):
            members = (await _members(system, name)).get(collection, set())
        if strangers := others - members:
            raise _refused(strangers, f"the collection {collection} ({', '.join(sorted(members)) or 'not defined'})")
    if not touched and not any(others <= members for members in (await _members(system, chaincode)).values()):
        raise _refused(others, f"one collection of {chaincode} together")


def _refused(strangers: set[str], what: str) -> Refused:
    return Refused(
        NOT_MEMBER,
        f"{', '.join(sorted(strangers))} would see the private inputs as endorsers and are no members of {what}; "
        "nothing was sent to them: name members only, or nobody",
        "endorsing_orgs",
    )


async def _members(system: System, chaincode: str) -> dict[str, set[str]]:
    """Collection → its organisations, as the channel has them committed now."""
    package = (await system.definition(chaincode)).collections
    try:
        return {
            item.static_collection_config.name: {
                MSPRole.FromString(principal.principal).msp_identifier
                for principal in item.static_collection_config.member_orgs_policy.signature_policy.identities
            }
            for item in package.config
        }
    except DecodeError:
        raise LedgerError(f"the collections of chaincode {chaincode!r} cannot be read") from None


def touched_by(execution: Any) -> list[tuple[str, str]]:
    """(chaincode, collection) of all private reads and writes of a TxReadWriteSet."""
    return [
        (space.namespace, collection.collection_name)
        for space in execution.ns_rwset
        for collection in space.collection_hashed_rwset
    ]
