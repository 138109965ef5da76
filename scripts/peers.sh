#!/usr/bin/env bash
# Everything real that the tests talk to and that is not in the environment: each once, kept in .cache.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/mosquitto.sh
scripts/leshan.sh
scripts/node_opcua.sh
scripts/sparkplug.sh
.venv/bin/python - <<'PROGRAM'
import sys

from flexrelay.network import BuildError, ensure

told = set()


def progress(what: str, done: int, total: int) -> None:
    if what not in told:
        told.add(what)
        print(f"setup: Fabric: {what}", flush=True)


try:
    for version in ("3.1", "2.5"):
        ensure(version, progress)
except BuildError as error:
    print(f"setup: Fabric cannot be built, its tests will say so: {error}", file=sys.stderr)
PROGRAM
scripts/kubernetes.sh
