#!/usr/bin/env bash
# Installs sparkplug-client, the independent edge node of the Sparkplug tests, once into .cache/sparkplug from the lock file.
set -euo pipefail
here="$(cd "$(dirname "$0")/.." && pwd)"
from="$here/tests/support/sparkplug"
into="$here/.cache/sparkplug"
if ! command -v npm >/dev/null; then
    echo "setup: npm is missing: the tests against sparkplug-client will not run (install Node.js 20 or later)" >&2
    exit 0
fi
if cmp -s "$from/package-lock.json" "$into/.installed" 2>/dev/null; then exit 0; fi
echo "setup: installing sparkplug-client through npm"
mkdir -p "$into"
cp "$from/package.json" "$from/package-lock.json" "$into/"
(cd "$into" && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error)
cp "$from/package-lock.json" "$into/.installed"
