#!/usr/bin/env bash
# A private Ethereum network with Steadfast before its nodes, on this machine's container engine.
#
#   kurtosis/run.sh         builds the image, starts the enclave and prints its ports
#   kurtosis/run.sh ports   prints them again
#   kurtosis/run.sh down    removes the enclave with all that is in it
#
# ENCLAVE (steadfast) names the enclave. IMAGE names an image that is there already; then none is
# built.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

enclave=${ENCLAVE:-steadfast}

fail() {
    printf 'kurtosis/run.sh: %s\n' "$1" >&2
    exit 1
}

need() {
    command -v kurtosis >/dev/null || fail "Kurtosis is not installed: https://docs.kurtosis.com/install"
    command -v docker >/dev/null || fail "Docker is not installed: https://docs.docker.com/engine/install"
    docker info >/dev/null 2>&1 || fail "Docker is installed, and its engine does not answer (docker info tells why)"
}

up() {
    local image=${IMAGE:-}
    if [[ -z $image ]]; then
        # Not built by Kurtosis: it builds only from folders inside its package, and the Dockerfile
        # needs the whole tree.
        image=steadfast:kurtosis
        docker build --tag "$image" .
    fi
    # The package holds no file from outside of its folder.
    cp deploy/grafana/steadfast.json kurtosis/grafana/
    arguments=$(mktemp)
    trap 'rm -f "$arguments"' EXIT
    { cat kurtosis/network_params.yaml; printf '\nsteadfast_params:\n  image: "%s"\n' "$image"; } >"$arguments"
    kurtosis run --enclave "$enclave" kurtosis --args-file "$arguments"
    ports
}

ports() {
    printf '\n%-12s %s\n' \
        clients "$(kurtosis port print "$enclave" steadfast rpc)" \
        admin "$(kurtosis port print "$enclave" steadfast admin)" \
        prometheus "$(kurtosis port print "$enclave" prometheus http)" \
        grafana "$(kurtosis port print "$enclave" grafana http)/d/steadfast"
}

case ${1:-up} in
    up | ports) need; "${1:-up}" ;;
    down) need; kurtosis enclave rm --force "$enclave" ;;
    *) fail "'$1' is not one of up, ports, down" ;;
esac
