"""The check at start: channel, chaincodes, versions, and whether the own organisation's chaincode answers.

Each finding is an error whose message says what to do; nothing here waits longer than its deadline.
"""

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Final

from flexrelay.ledger.fabric import deliver
from flexrelay.ledger.fabric.errors import AccessDenied, NetworkMismatch, ProfileError, Untrusted
from flexrelay.ledger.fabric.follower import Follower
from flexrelay.ledger.fabric.gateway import Gateway
from flexrelay.ledger.fabric.identity import Identity
from flexrelay.ledger.fabric.msp import Trust
from flexrelay.ledger.fabric.pool import PeerPool
from flexrelay.ledger.fabric.profile import Profile
from flexrelay.ledger.fabric.system import System
from flexrelay.ledger.fabric.verification import verify_block
from flexrelay.ledger.port import LedgerError, LedgerUnavailable
from flexrelay_contracts.invocation import query_args
from flexrelay_contracts.refusal import Refused

_LOG = logging.getLogger(__name__)
ANSWER_S: Final = 8.0
KNOWN_S: Final = 30.0
"""What a peer that has just started may take until it knows of the chaincode that is installed at it."""
_RETRY_S: Final = 0.25
_TLS: Final = re.compile("CERTIFICATE_VERIFY_FAILED|ALERT_[A-Z_]*(CERTIFICATE|UNKNOWN_CA)")
"""What OpenSSL says when one side does not take the other's certificate."""
_PROBE: Final = "flexrelay.probe"
"""A query that no contract has: "unknown function" is an answer too."""


async def check(profile: Profile, gateway: Gateway, system: System, pool: PeerPool, clock: Callable[[], int]) -> int:
    """The channel's height. Raises ProfileError, NetworkMismatch, AccessDenied, LedgerUnavailable."""
    height = await _height(profile, system, pool)
    for name in profile.chaincodes:
        await _definition(profile, system, name)
    if await _own_peer_runs(profile, system):
        await _answers(profile, gateway, clock)
    return height


def check_issuer(profile: Profile, identity: Identity, trust: Trust) -> None:
    """Raises ProfileError when the gateway's organisation, as the profile knows it, has not issued its certificate."""
    try:
        trust.creator(identity.creator)
    except Untrusted as error:
        raise ProfileError(
            f"identity.certificate: {profile.identity.certificate} is not one of {profile.org}'s ({error}): have it "
            f"issued by {profile.org}, or check the `ca` of {profile.org} in `organisations`"
        ) from None


async def consensus(
    profile: Profile,
    identity: Identity,
    pool: PeerPool,
    trust: Trust,
    system: System,
    follower: Follower,
    height: int,
    clock: Callable[[], int],
) -> None:
    """Begin following at the newest block, when the profile's orderers have signed it. Raises Untrusted."""
    try:
        number, found = await system.consensus(trust)
        follower.start(height, found, number)
        await _newest(profile, identity, pool, trust, follower, height - 1, clock)
    except Untrusted as error:
        raise Untrusted(
            f"channel {profile.channel!r}: its blocks are not signed by the profile's orderers; check the entries of "
            f'`organisations` with kind = "orderer" (msp, ca) ({error})'
        ) from None


async def _newest(
    profile: Profile,
    identity: Identity,
    pool: PeerPool,
    trust: Trust,
    follower: Follower,
    number: int,
    clock: Callable[[], int],
) -> None:
    """One peer must give the block with good signatures; one that does not answer is no reason to stay away."""
    failed: Untrusted | None = None
    for peer in pool.order():
        try:
            async with asyncio.timeout(ANSWER_S):
                block = await deliver.one_block(peer, identity, profile.channel, number, clock())
                verify_block(block, None, trust, await follower.consensus_for(block, peer))
        except Untrusted as error:
            failed = failed or error
        except (LedgerError, TimeoutError) as error:
            _LOG.info("no newest block from peer %s: %s", peer.address, error)
        else:
            return
    if failed is not None:
        raise failed


async def _height(profile: Profile, system: System, pool: PeerPool) -> int:
    try:
        return await system.height(timeout_s=ANSWER_S)
    except AccessDenied:
        raise
    except LedgerError as error:
        if "no peers available" in str(error) or "channel" in str(error).lower():
            raise NetworkMismatch(
                f"channel {profile.channel!r}: the peers do not know it; check `channel` in the profile and that the "
                f"peer has joined ({error})"
            ) from None
        why = "; ".join(f"{peer}: {failure}" for peer, failure in pool.failures.items()) or str(error)
        if pool.failures and all(_TLS.search(failure) for failure in pool.failures.values()):
            raise ProfileError(
                f"peers: TLS fails with every one; check `tls_ca` and `server_name` of `peers`, and `tls` ({why})"
            ) from None
        raise LedgerUnavailable(
            f"no peer of the profile answers; check `peers` (endpoint, tls_ca, server_name) and that they run ({why})"
        ) from None


async def _definition(profile: Profile, system: System, name: str) -> None:
    try:
        found = await system.definition(name, timeout_s=ANSWER_S)
    except LedgerUnavailable as error:
        if "not defined" not in str(error) and "not exist" not in str(error):
            raise
        raise NetworkMismatch(
            f"chaincode {name!r} is not committed on channel {profile.channel!r}; check `chaincode` and `entries` in "
            f"the profile, or approve and commit it ({error})"
        ) from None
    if profile.chaincode_version and found.version != profile.chaincode_version:
        raise NetworkMismatch(
            f"chaincode {name!r} has version {found.version!r} on channel {profile.channel!r}, the profile asks for "
            f"{profile.chaincode_version!r}: upgrade the network or change `chaincode_version`"
        )
    if not found.approvals.get(profile.org, False):
        raise NetworkMismatch(
            f"{profile.org} has not approved chaincode {name!r} version {found.version} sequence {found.sequence}: "
            "approve this definition with the package that is installed at its peer"
        )


async def _own_peer_runs(profile: Profile, system: System) -> bool:
    try:
        await system.height(own_only=True, timeout_s=ANSWER_S)
    except LedgerUnavailable as error:
        _LOG.error("no peer of %s answers; going on with the other organisations' peers: %s", profile.org, error)
        return False
    return True


async def _answers(profile: Profile, gateway: Gateway, clock: Callable[[], int]) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    args = query_args(_PROBE, {})
    while True:
        try:
            await gateway.evaluate(profile.chaincode, args, clock(), own_only=True, timeout_s=ANSWER_S)
            return
        except Refused:
            return
        except LedgerUnavailable as error:
            waited = loop.time() - began
            if "no peers available" not in str(error) or waited > KNOWN_S:
                raise LedgerUnavailable(
                    f"the chaincode {profile.chaincode!r} of {profile.org} does not answer (tried for {waited:.0f} s): "
                    f"is its process running, and started with the package id that is installed at the peer? ({error})"
                ) from None
            await asyncio.sleep(_RETRY_S)
