#!/usr/bin/env bash
# Installs Mosquitto through apt when it is missing and the user may; says what is left to do otherwise.
set -euo pipefail
export PATH="$PATH:/usr/sbin"
command -v mosquitto >/dev/null && exit 0
become=""
if [ "$(id -u)" -ne 0 ]; then
    if sudo -n true 2>/dev/null; then become="sudo -n"; else become="no"; fi
fi
if [ "$become" != "no" ] && command -v apt-get >/dev/null; then
    echo "setup: installing mosquitto through apt"
    # The package would start a broker of its own on port 1883: tests start theirs on free ports, so keep it off.
    $become env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    $become env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends mosquitto >/dev/null
    exit 0
fi
if command -v docker >/dev/null && docker info >/dev/null 2>&1; then
    echo "setup: mosquitto is not installed; the tests use the eclipse-mosquitto image through Docker"
    exit 0
fi
echo "setup: mosquitto is missing and cannot be installed here (no root, no sudo, no Docker): its tests will not run" >&2
