"""What can go wrong beyond the port's own failures. Every message names what to look at."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from flexrelay.ledger.port import LedgerUnavailable, Misconfigured, NeedsAttention


class ProfileError(Misconfigured):
    """The connection profile or a file that it names is not usable. The message names file, field and remedy."""


class AccessDenied(LedgerUnavailable, NeedsAttention):
    """The network does not know this gateway: wrong organisation, expired or revoked certificate, no such channel."""

    alarm: str = "access_denied"


class TookTooLong(LedgerUnavailable):
    """The call ran into the chaincode's deadline. No other peer is asked: while a call runs, its peer commits nothing,
    and the next one would stand still for as long."""


class Behind(LedgerUnavailable):
    """The peers that could be asked hold fewer blocks than this gateway has seen: what they say may be true no more."""


class NetworkMismatch(NeedsAttention):
    """The network is not what the profile says: channel, chaincode or its version. The message names the remedy."""

    alarm: str = "network_mismatch"


class Untrusted(NeedsAttention):
    """A peer told something that its signatures do not prove: a block, an endorsement, an identity."""

    alarm: str = "untrusted"


@dataclass(frozen=True, slots=True)
class EndorsedResult:
    """What one organisation's peer gave for a proposal: its answer, or why there is none.

    `digest` is the hex SHA-256 of all that the execution read and wrote (private values stand in it as hashes only).
    `refusal` is the code with which the contract or its runtime said no; `error` is the whole message.
    """

    result: str
    digest: str
    error: str = ""
    refusal: str = ""
    reads: Mapping[tuple[str, ...], bytes] = field(default_factory=dict, repr=False)
    """What was read → in which version: keys, and ranges with all that was in them."""


class EndorsementMismatch(NeedsAttention):
    """The organisations' peers gave different results for one proposal: different contract versions, a contract that
    is not deterministic, a peer that is behind, or one that lies. `results` by organisation.

    `behind`: they read different states, or one of them refused; it takes a while to know that this is not only a peer
    that has a block less than another.
    """

    alarm: str = "endorsement_mismatch"

    def __init__(
        self, message: str, results: Mapping[str, EndorsedResult], tx_id: str = "", *, behind: bool = False
    ) -> None:
        super().__init__(message, tx_id)
        self.results = dict(results)
        self.behind = behind
        if behind:
            self.patience_s = 30.0
