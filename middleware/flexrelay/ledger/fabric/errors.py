"""What can go wrong beyond the port's own failures. Every message names what to look at."""

from collections.abc import Mapping
from dataclasses import dataclass

from flexrelay.ledger.port import LedgerError, LedgerUnavailable


class ProfileError(LedgerError):
    """The connection profile or a file that it names is not usable. The message names file, field and remedy."""


class AccessDenied(LedgerUnavailable):
    """The network does not know this gateway: wrong organisation, expired or revoked certificate, no such channel."""


class NetworkMismatch(LedgerError):
    """The network is not what the profile says: channel, chaincode or its version. The message names the remedy."""


class Untrusted(LedgerError):
    """A peer told something that its signatures do not prove: a block, an endorsement, an identity."""


@dataclass(frozen=True, slots=True)
class EndorsedResult:
    """What one organisation's peer gave for a proposal: its answer, or why there is none.

    `digest` is the hex SHA-256 of all that the execution read and wrote (private values stand in it as hashes only).
    """

    result: str
    digest: str
    error: str = ""


class EndorsementMismatch(LedgerError):
    """The organisations' peers gave different results for one proposal: different contract versions, a contract that
    is not deterministic, a peer that is behind, or one that lies. `results` by organisation."""

    def __init__(self, message: str, results: Mapping[str, EndorsedResult], tx_id: str = "") -> None:
        super().__init__(message, tx_id)
        self.results = dict(results)
