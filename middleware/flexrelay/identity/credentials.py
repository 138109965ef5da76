"""Issuing role credentials (W3C VC 2.0, Data Integrity with JCS) through a Signer."""

from collections.abc import Sequence

from flexrelay.identity.signer import Signer
from flexrelay_schemas.credentials import (
    RoleCredential,
    SignedRoleCredential,
    Subject,
    hash_data,
    instant_text,
    proof_options,
    sealed,
)


async def issue_role_credential(
    signer: Signer,
    *,
    network: str,
    subject: str,
    role: str,
    markets: Sequence[str],
    valid_from_ms: int,
    valid_until_ms: int,
    created_ms: int,
) -> SignedRoleCredential:
    """`signer` says that `subject` holds `role` for `markets` in [from, until) of wall time (UTC ms).

    The ledger takes it when the signer is a trusted issuer for it (`grants.enrol`). Raises ValueError for a bad form.
    """
    claims = Subject.model_validate({"id": subject, "network": network, "role": role, "markets": list(markets)})
    unsigned = RoleCredential(
        issuer=signer.did,
        validFrom=instant_text(valid_from_ms),
        validUntil=instant_text(valid_until_ms),
        credentialSubject=claims,
    )
    options = proof_options(signer.did, signer.key_version, signer.public_key, created_ms)
    return sealed(unsigned, options, await signer.sign(hash_data(unsigned, options)))
