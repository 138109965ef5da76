"""What of a demo's report is the same in every run, with names instead of identifiers made anew each time.

`python -m acceptance.golden REPORT > acceptance/golden.json` (in tests/) records it after a deliberate change.
"""

import json
import sys
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("golden.json")
_RANDOM = ("settlement", "order_id", "windows_hash")


def golden_of(report: dict[str, Any]) -> dict[str, Any]:
    names = report["names"]

    def named(account: str) -> str:
        kind, _, did = account.partition(":")
        return f"{kind}:{names[did]}" if did else kind

    return {
        "devices": report["devices"],
        "orders": {
            org: {
                name: order[name]
                for name in (
                    "option_id",
                    "activation_percent",
                    "price_nano_eur_per_wh",
                    "penalty_nano_eur_per_wh",
                    "buyer_escrow_micro_eur",
                    "collateral_micro_eur",
                    "isps",
                )
            }
            for org, order in sorted(report["order_documents"].items())
        },
        "commands": report["commands"],
        "disputes": [
            {k: v for k, v in dispute.items() if k not in (*_RANDOM, "resolved_market_ms", "line")}
            for dispute in report["disputes"]["verdicts"]
        ],
        "settlement": [{k: v for k, v in line.items() if k not in _RANDOM} for line in report["settlement"]],
        "totals": {
            org: [found["buyer_micro_eur"], found["provider_micro_eur"]]
            for org, found in sorted(report["settlement_documents"].items())
        },
        "local_energy": report["local_energy"],
        "imbalance": {
            "energy_j": {names[brp]: found for brp, found in report["imbalance"]["imbalance_j"].items()},
            "cash_micro_eur": {names[brp]: found for brp, found in report["imbalance"]["cash_micro_eur"].items()},
            "system_j": report["imbalance"]["system_imbalance_j"],
            "operator_cash_micro_eur": report["imbalance"]["operator_cash_micro_eur"],
        },
        "accounts": {named(account): balance for account, balance in report["accounts"].items()},
    }


if __name__ == "__main__":
    json.dump(golden_of(json.loads(Path(sys.argv[1]).read_text())), sys.stdout, sort_keys=True, indent=1)
    sys.stdout.write("\n")
