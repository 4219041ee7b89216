# Sourced by run.sh: the tools that the measurement stands on.

# Installs, by apt, those of haproxy, nginx, wrk and valgrind that are missing. Starts none of them.
install_tools() (
    missing=()
    for tool in haproxy nginx wrk valgrind; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    if [ ${#missing[@]} -eq 0 ]; then
        exit 0
    fi
    echo "installing ${missing[*]}" >&2
    sudo=()
    if [ "$(id -u)" -ne 0 ]; then
        sudo=(sudo)
    fi
    # Debian starts a service as soon as it is installed, and nginx would listen on every address. 101 says: do not.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap '"${sudo[@]}" rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" install -m 755 /dev/stdin "$policy"
    fi
    "${sudo[@]}" apt-get update -q >&2
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" >&2
)
