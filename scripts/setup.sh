#!/usr/bin/env bash
# Makes the environment: .venv with everything in uv.lock. Needs Python >= 3.11 with venv; brings uv itself when missing.
set -euo pipefail
cd "$(dirname "$0")/.."

python=""
for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$("$candidate" -c 'import sys; print(sys.executable)')
        break
    fi
done
if [ -z "$python" ]; then
    echo "setup: no Python >= 3.11 with venv was found; install one (Debian: apt-get install python3 python3-venv)" >&2
    exit 1
fi

uv=$(command -v uv || true)
if [ -z "$uv" ]; then
    uv=.cache/uv/bin/uv
    if [ ! -x "$uv" ]; then
        echo "setup: installing uv into .cache/uv"
        "$python" -m venv .cache/uv
        .cache/uv/bin/pip install --quiet --disable-pip-version-check "uv>=0.8,<1"
    fi
fi

# A lock that does not fit pyproject.toml is an error, never silently another set of versions.
UV_PYTHON_DOWNLOADS=never "$uv" sync --locked --all-extras --python "$python" --quiet
echo "setup: ready ($(.venv/bin/python --version), $(.venv/bin/flexrelay --version 2>/dev/null || echo flexrelay))"
