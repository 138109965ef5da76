"""The gateway's word for readings whose device cannot sign.

It is given when the reading gets its leaf, not when it is received: a signature costs more than the whole way into
the journal, and until there is a leaf nobody asks for it.
"""

import hashlib

from flexrelay.identity.signer import Signer
from flexrelay.journal.port import Entry
from flexrelay_schemas.canonical import canonical
from flexrelay_schemas.encoding import b64u
from flexrelay_schemas.measurement import Measurement
from flexrelay_schemas.reading import Attestation, SignedAttestation


async def attest(signer: Signer, network: str, entry: Entry, measurement: Measurement) -> bytes:
    """The canonical SignedAttestation of one measurement of an unsigned frame: its evidence bytes."""
    attestation = Attestation(
        did=entry.did,
        frame_sha256=hashlib.sha256(entry.payload).hexdigest(),
        gateway=signer.did,
        key_version=signer.key_version,
        network=network,
        observed_at=measurement.observed_at,
        registers=dict(measurement.registers),
    )
    signature = b64u(await signer.sign(attestation.message()))
    return canonical(SignedAttestation(attestation=attestation, signature=signature).model_dump())
