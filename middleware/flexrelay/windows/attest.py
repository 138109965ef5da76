"""The gateway's word for readings whose device cannot sign: their evidence bytes.

They follow from the journal alone. The gateway signs them all at once, with the root of its anchor: until there is an
anchor nobody asks for its word. (Earlier releases signed each reading; what they made is kept in the vault.)
"""

from collections.abc import Iterator
from hashlib import sha256

from flexrelay.journal.port import Entry
from flexrelay_schemas.measurement import Measurement


def attested(entry: Entry) -> Iterator[tuple[Measurement, bytes]]:
    """Each measurement of an unsigned frame with its evidence: canonical JSON of an AnchoredAttestation."""
    did = entry.did
    network = did.split(":", 3)[2]  # names of DIDs, networks and registers are plain ASCII: they stand as they are
    head = f'{{"attestation":{{"did":"{did}","frame_sha256":"{sha256(entry.payload).hexdigest()}","network":"{network}"'
    for measurement in entry.measurements:
        registers = measurement.registers
        values = ",".join([f'"{name}":{registers[name]}' for name in sorted(registers)])
        text = f'{head},"observed_at":{measurement.observed_at},"registers":{{{values}}}}},"v":2}}'
        yield measurement, text.encode()
