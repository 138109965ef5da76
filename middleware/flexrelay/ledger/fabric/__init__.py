"""The Fabric gateway client: the ledger port on Hyperledger Fabric.

    async with FabricLedger.open(Path("profile.toml")) as ledger:
        prepared = await ledger.prepare(Call(intent))

A connection verifies what it is told: orderers' signatures and the chain of blocks, endorsements of what it prepares
and of every transaction whose events it delivers, certificates against the profile's organisations.
"""

from flexrelay.ledger.fabric.errors import (
    AccessDenied,
    Behind,
    EndorsedResult,
    EndorsementMismatch,
    NetworkMismatch,
    ProfileError,
    TookTooLong,
    Untrusted,
)
from flexrelay.ledger.fabric.follower import Vigilance
from flexrelay.ledger.fabric.gateway import Limits
from flexrelay.ledger.fabric.identity import KeyFileSigner
from flexrelay.ledger.fabric.ledger import FabricLedger
from flexrelay.ledger.fabric.profile import ClientTls, IdentityFiles, Organisation, Peer, Profile, load_profile

__all__ = [
    "AccessDenied",
    "Behind",
    "ClientTls",
    "EndorsedResult",
    "EndorsementMismatch",
    "FabricLedger",
    "IdentityFiles",
    "KeyFileSigner",
    "Limits",
    "NetworkMismatch",
    "Organisation",
    "Peer",
    "Profile",
    "ProfileError",
    "TookTooLong",
    "Untrusted",
    "Vigilance",
    "load_profile",
]
