#!/usr/bin/env bash
# Checks the Dockerfile without a container engine: by rules (dockerfile.py), and by its last
# stage's steps, by hand, in a Debian 12 that debootstrap makes. There the binary runs as the
# image's user without rights, over a file system that is only read, and its health check answers.
# Needs root (or sudo) and apt-get, and the first time a minute or two and 250 MB: the Debian is kept
# in target/image.
#
#   tests/image/check.sh [BINARY]     without it, target/release/steadfast
#   tests/image/check.sh --rules      the rules alone
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

image=$PWD/tests/image
# Below target, which git, Docker and the other tests leave alone.
root=$PWD/target/image/bookworm

if [[ ${1:-} == --rules ]]; then
    cd "$image" && exec python3 -B -W error -m unittest
fi
binary=$(realpath -m "${1:-target/release/steadfast}")

fail() {
    printf 'tests/image/check.sh: %s\n' "$1" >&2
    exit 1
}

[[ -x $binary ]] || fail "$binary is not a program (cargo build --release)"
if ((EUID != 0)); then
    command -v sudo >/dev/null || fail "a chroot needs root or sudo"
    exec sudo -- "$image/check.sh" "$binary"
fi

# ---- By rules

(cd "$image" && python3 -B -W error -m unittest --quiet)

# ---- What it is linked with: the libraries of distroless/cc, and no newer than the release's

# A static binary has none.
libraries=$(ldd "$binary" 2>/dev/null | awk '{ print $1 }') || libraries=
for library in $libraries; do
    case $library in
        linux-vdso.so.1 | /lib*/ld-linux-*.so.* | libc.so.6 | libm.so.6 | libdl.so.2 | libpthread.so.0 | librt.so.1 | libgcc_s.so.1) ;;
        *) fail "$binary needs $library, which the image does not have" ;;
    esac
done
printf 'ok    it needs nothing beside %s\n' "$(paste -sd' ' <<<"${libraries:-the kernel}")"

# ---- A Debian 12

if [[ ! -e $root/complete ]]; then
    missing=()
    for package in debootstrap iproute2 python3; do
        dpkg-query --show "$package" >/dev/null 2>&1 || missing+=("$package")
    done
    if ((${#missing[@]})); then
        command -v apt-get >/dev/null || fail "${missing[*]} must be installed, and this is not a Debian to get them from"
        apt-get update -q
        DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
    fi
    # The mirror that this machine uses itself, where it is a bookworm too.
    # shellcheck disable=SC2016 # apt-get's variable
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' | grep -m 1 '/debian/$' || echo http://deb.debian.org/debian/)
    rm -rf "$root"
    mkdir -p "$root"
    # The image has the system's certificates as well. Mounts end with it, even if it is killed.
    unshare --mount debootstrap --variant=minbase --include=ca-certificates bookworm "$root" "$mirror" >"$root.log" 2>&1 ||
        fail "debootstrap failed: $(tail -n 3 "$root.log")"
    rm -rf "$root/var/cache/apt" "$root/var/lib/apt/lists"
    # What the last stage copies, and the file that its command reads: mounted over these.
    mkdir -p "$root/licenses" "$root/etc/steadfast"
    touch "$root/steadfast" "$root/licenses/LICENSE-APACHE" "$root/licenses/LICENSE-MIT" "$root/complete"
fi

# ---- Its steps, in namespaces of their own: mounts, processes and ports are gone with them

exec unshare --mount --net --pid --fork --kill-child --mount-proc python3 -B "$image/steps.py" "$root" "$binary"
