"""Merkle trees as windows use them: salted leaves hashed into a root, and proofs checked against it."""

from flexrelay.bench import Result, cpu_seconds
from flexrelay_contracts.rules.merkle import leaf_hash, paths, root, verify

LEAVES = 100_000
_PAYLOAD = bytes(300)


def run(leaves: int = LEAVES) -> list[Result]:
    """merkle: leaves per CPU-second (leaf hash and tree); merkle_proof: checked audit paths per CPU-second."""
    salts = [index.to_bytes(16, "big") for index in range(leaves)]
    build = cpu_seconds(lambda: root([leaf_hash(salt, _PAYLOAD) for salt in salts]))
    hashes = [leaf_hash(salt, _PAYLOAD) for salt in salts]
    top = root(hashes)
    proofs = list(zip(hashes, range(leaves), paths(hashes), strict=True))[: min(leaves, 20_000)]

    def check() -> None:
        for leaf, index, path in proofs:
            if not verify(leaf, index, leaves, path, top):
                raise AssertionError(f"the proof of leaf {index} does not hold")

    checked = len(proofs) / cpu_seconds(check, rounds=3)
    return [
        {"name": "merkle", "value": leaves / build, "unit": "leaves/CPU-s", "ratio": 0.0, "against": ""},
        {"name": "merkle_proof", "value": checked, "unit": "proofs/CPU-s", "ratio": 0.0, "against": ""},
    ]
