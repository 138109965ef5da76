#!/usr/bin/env bash
# Everything real that the tests talk to and that is not in the environment: each once, kept in .cache.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/mosquitto.sh
scripts/leshan.sh
scripts/node_opcua.sh
scripts/sparkplug.sh
scripts/kubernetes.sh
.venv/bin/python - <<'PROGRAM'
from flexrelay.network import ensure

told = set()


def progress(what: str, done: int, total: int) -> None:
    if what not in told:
        told.add(what)
        print(f"setup: Fabric: {what}", flush=True)


for version in ("3.1", "2.5"):
    ensure(version, progress)
PROGRAM
