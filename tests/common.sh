# What the scripts of this directory have in common. To be sourced, with the script's name in `script`.

fail() {
    echo "$script: $*" >&2
    exit 1
}

# What every test needs of the machine; installs what is missing of programs and files, given as what:Debian package.
prepare() {
    [ "$(id -u)" = 0 ] || fail "the tests mount file systems: run them as root"
    [ -c /dev/fuse ] || fail "the tests need FUSE: /dev/fuse is missing"
    command -v cargo >/dev/null || fail "the tests need Rust: install it from https://rustup.rs"
    local pair missing=()
    for pair in "$@"; do
        [ -e "${pair%%:*}" ] || command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    if [ "${#missing[@]}" -gt 0 ]; then
        command -v apt-get >/dev/null || fail "please install: ${missing[*]}"
        apt-get update -qq
        install_quietly "${missing[@]}"
    fi
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$HOME/.cache/vmds/target}
}

# Installs Debian packages without starting the services they bring: the tests start what they need for themselves.
install_quietly() (
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' > "$policy"
        chmod 755 "$policy"
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --reinstall --no-install-recommends "$@"
)

# Mounts and processes of VMDS, and of the store that tests/rgw starts, on this machine, one per line. There may be some that
# are not ours.
ours() {
    awk '/ - fuse\.vmds / { print "mount", $5 }' /proc/self/mountinfo
    local exe process
    for process in /proc/[0-9]*; do
        exe=$(readlink "$process/exe") || continue
        exe=${exe% (deleted)}
        case "${exe##*/}" in
            vmds | vmds-controller | tests-vmds | tests-vmds-controller | ceph-mon | ceph-mgr | ceph-osd | radosgw)
                echo "process ${process#/proc/} ($exe)" ;;
        esac
    done
}
