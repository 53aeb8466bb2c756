#!/bin/sh
# Prepares a machine: `setup.sh runtime` and `setup.sh test` fill .venv, `setup.sh servers` sees to the
# real servers that tests start. Everything it says goes to stderr.
set -eu
cd "$(dirname "$0")/.."
exec >&2

say() { printf '%s\n' "$*"; }
have() { PATH="$PATH:/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin" command -v "$1" >/dev/null 2>&1; }
debian_root() { [ "$(id -u)" = 0 ] && have apt-get && have dpkg; }

apt_updated=
apt_install() {
    if [ -z "$apt_updated" ]; then
        apt-get update -qq || say "apt-get update failed; trying with the lists at hand."
        apt_updated=yes
    fi
    # The packages would start their services; tests start their own on free ports.
    policy=/usr/sbin/policy-rc.d
    ours=
    if [ ! -e "$policy" ]; then
        ours=yes
        trap 'rm -f "$policy"' EXIT INT TERM
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    status=0
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null || status=$?
    if [ -n "$ours" ]; then
        rm -f "$policy"
        trap - EXIT INT TERM
    fi
    return "$status"
}

new_enough='import sys; sys.exit(sys.version_info < (3, 11))'

find_python() {
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        if [ -n "$candidate" ] && have "$candidate" && "$candidate" -c "$new_enough" 2>/dev/null; then
            python=$candidate
            return 0
        fi
    done
    found=$(python3 --version 2>/dev/null || echo "no python3")
    say "Python 3.11 or newer is needed and this machine has $found: install one, or name it with make PYTHON=/path/to/python3."
    return 1
}

make_venv() {
    if [ -x .venv/bin/python ] && .venv/bin/python -c "$new_enough" 2>/dev/null; then
        return 0
    fi
    say "Making the virtual environment .venv"
    rm -rf .venv
    if have uv; then
        uv venv --quiet --python "${PYTHON:->=3.11}" .venv
        return 0
    fi
    if ! have python3 && debian_root; then
        apt_install python3 python3-venv
    fi
    find_python
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        if debian_root; then
            apt_install python3-venv
        else
            say "$python cannot make virtual environments: install its venv module (on Debian: apt-get install python3-venv)."
            return 1
        fi
    fi
    "$python" -m venv .venv
}

install() { # what to install, e.g. . or .[test]
    make_venv
    say "Installing $1 into .venv"
    if have uv; then
        uv pip install --quiet --python .venv/bin/python --editable "$1"
    else
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable "$1"
    fi
}

servers() {
    wanted=
    have mosquitto || wanted="$wanted mosquitto"
    have mosquitto_pub || wanted="$wanted mosquitto-clients"
    have influxd || wanted="$wanted influxdb"
    have chromium || wanted="$wanted chromium"
    have chromedriver || wanted="$wanted chromium-driver"
    have openssl || wanted="$wanted openssl"
    if [ -n "$wanted" ] && debian_root; then
        say "Installing$wanted for the tests"
        for package in $wanted; do
            apt_install "$package" || say "$package could not be installed."
        done
    fi
    missing=
    for program in mosquitto mosquitto_pub influxd openssl; do
        have "$program" || missing="$missing $program"
    done
    [ -z "$missing" ] || say "Not installed:$missing. Tests that need them are skipped and named${CI:+; with CI=true they fail}."
}

case "${1:-}" in
    runtime) install . ;;
    test) install '.[test]' ;;
    servers) servers ;;
    *)
        say "usage: tests/setup.sh runtime|test|servers"
        exit 2
        ;;
esac
