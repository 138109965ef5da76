#!/usr/bin/env bash
# Fetches Leshan's libraries through Maven and compiles the test peers, once, into .cache/leshan.
# Their tests say why when they are missing: no Maven, no Java compiler of version 17 or later, or no registry.
set -euo pipefail
cd "$(dirname "$0")/.."
source=tests/support/leshan
target=.cache/leshan
stamp=$(cat "$source/pom.xml" "$source"/src/* | sha256sum | cut -d' ' -f1)
[ -f "$target/stamp" ] && [ "$(cat "$target/stamp")" = "$stamp" ] && exit 0
for program in mvn javac java; do
    if ! command -v "$program" >/dev/null; then
        echo "setup: $program is missing (Debian: apt install maven openjdk-17-jdk-headless): Leshan's tests will not run" >&2
        exit 0
    fi
done
echo "setup: fetching and building the Leshan peers"
rm -rf "$target/classes" "$target/stamp"
mkdir -p "$target/classes"
if ! mvn -B -q -f "$source/pom.xml" dependency:copy-dependencies -DoutputDirectory="$PWD/$target/lib"; then
    echo "setup: Leshan's libraries cannot be fetched: its tests will not run" >&2
    exit 0
fi
javac -nowarn -d "$target/classes" -cp "$target/lib/*" "$source"/src/*.java
cp "$source/src/logback.xml" "$target/classes/"
echo "$stamp" >"$target/stamp"
