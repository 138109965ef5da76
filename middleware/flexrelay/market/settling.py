"""The documents of a settlement: proposals with their private detail, evidence for disputes, BRP allocations."""

import secrets
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from flexrelay.market.metering import MeteredEnergy
from flexrelay_contracts.market.judgement import Evidence
from flexrelay_contracts.market.settlement import Detail, DetailConnection
from flexrelay_schemas.canonical import canonical
from flexrelay_schemas.evidence import InclusionProof
from flexrelay_schemas.quality import Provenance


def proposal(
    order: Mapping[str, Any], run: str, energies: Mapping[str, MeteredEnergy], pins: Sequence[str]
) -> tuple[dict[str, Any], bytes]:
    """(arguments of `settlement.propose`, transient input `detail`). Energies and pins follow the order's ISP list."""
    detail = Detail(
        salt=secrets.token_hex(32),
        order_id=order["order_id"],
        run=run,
        connections=tuple(
            DetailConnection(
                connection=connection, energy_j=found.energy_j, quality=tuple(int(rank) for rank in found.quality)
            )
            for connection, found in sorted(energies.items())
        ),
    )
    data = canonical(detail.model_dump(mode="json"))
    lines = [
        {
            "isp": item["isp"],
            "actual_j": sum(found.energy_j[place] for found in energies.values()),
            "quality": int(min(found.quality[place] for found in energies.values())),
            "windows_hash": pins[place],
        }
        for place, item in enumerate(order["isps"])
    ]
    args = {"order_id": order["order_id"], "run": run, "lines": lines, "detail_hash": sha256(data).hexdigest()}
    return args, data


def evidence(dispute_id: str, start: InclusionProof, end: InclusionProof) -> tuple[dict[str, Any], bytes]:
    """(arguments of `dispute.evidence`, transient input `evidence`)."""
    document = Evidence(salt=secrets.token_hex(32), dispute_id=dispute_id, start=start, end=end)
    data = canonical(document.model_dump(mode="json"))
    return {"dispute_id": dispute_id, "evidence_hash": sha256(data).hexdigest()}, data


def allocation(
    date: str,
    run: int,
    congestion_point: str,
    brp_of: Mapping[str, str],
    energies: Mapping[str, MeteredEnergy],
    transformer: MeteredEnergy,
    losses_brp: str,
    evidence_hash: str,
) -> dict[str, Any]:
    """Arguments of `imbalance.allocate`: Σ by BRP; losses are what the transformer's reading leaves over."""
    isps = range(len(transformer.energy_j))
    shares: dict[str, list[int]] = {brp: [0] * len(isps) for brp in sorted(set(brp_of.values()))}
    for connection, found in energies.items():
        share = shares[brp_of[connection]]
        for place in isps:
            share[place] += found.energy_j[place]
    losses = [transformer.energy_j[place] - sum(share[place] for share in shares.values()) for place in isps]
    ranks = [rank for found in (*energies.values(), transformer) for rank in found.quality]
    return {
        "date": date,
        "run": run,
        "congestion_point": congestion_point,
        "shares": [{"brp": brp, "energy_j": share} for brp, share in shares.items()],
        "losses_brp": losses_brp,
        "losses_j": losses,
        "transformer_j": list(transformer.energy_j),
        "quality": int(min(ranks, default=Provenance.SUBSTITUTED)),
        "evidence_hash": evidence_hash,
    }
