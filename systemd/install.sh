#!/bin/sh
# Installs or upgrades the agent as a service. Works without network from a directory of wheels. Run it again at any
# time: configuration, secrets and undelivered readings are kept; the old version runs until the new one is complete.
set -eu
umask 022

usage() {
    cat <<'TEXT'
Usage: install.sh [options]          as root

  --wheels DIR       install from the wheels in DIR, without network (make them with:
                     python3 -m pip wheel -c constraints.txt -w DIR . pip)
  --python PROGRAM   Python 3.11 or newer; default python3
  --system-packages  use Python packages of the operating system too (armv7: python3-psutil, python3-yaml)
  --serial           allow serial ports
  --addresses        let the agent talk only to what the configuration names; run it again after adding devices
  --no-start         install only
  --root DIR         install below DIR, touching neither users nor services of this machine
TEXT
}

say() { printf '%s\n' "$*"; }
fail() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }
wrong_usage() { printf 'install.sh: %s\n' "$*" >&2; usage >&2; exit 2; }

wheels='' python=python3 system_packages='' serial='' addresses='' start=yes root=''
while [ $# -gt 0 ]; do
    case $1 in
        --wheels | --python | --root)
            [ $# -gt 1 ] && [ -n "$2" ] || wrong_usage "$1 needs a value"
            case $1 in
                --wheels) wheels=$2 ;;
                --python) python=$2 ;;
                --root) root=${2%/} ;;
            esac
            shift ;;
        --system-packages) system_packages=yes ;;
        --serial) serial=yes ;;
        --addresses) addresses=yes ;;
        --no-start) start='' ;;
        -h | --help) usage; exit 0 ;;
        *) wrong_usage "unknown option $1" ;;
    esac
    shift
done

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
tree=$(dirname -- "$here")
if [ -n "$root" ]; then
    mkdir -p "$root"
    root=$(CDPATH='' cd -- "$root" && pwd)
fi
home=$root/opt/shopfloor-agent
current=$home/venv
settings=$root/etc/shopfloor-agent
config=$settings/agent.yaml
units=$root/etc/systemd/system
drop_ins=$units/shopfloor-agent.service.d
command=$root/usr/local/bin/shopfloor
service=shopfloor-agent.service

# --- what must hold before anything is touched ---------------------------------------------------------------------
[ -n "$root" ] || [ "$(id -u)" = 0 ] || fail "only root can install a service: sudo $0"
[ -z "$wheels" ] || [ -d "$wheels" ] || fail "there is no directory $wheels"
[ -f "$here/$service" ] || fail "$here/$service is missing: run install.sh from the directory it came in"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    fail "Python 3.11 or newer is needed and $python is not: try --python python3.12"
if [ -n "$wheels" ]; then
    wheels=$(CDPATH='' cd -- "$wheels" && pwd)
    set -- "$wheels"/shopfloor_agent-*.whl
    [ -f "$1" ] || fail "there is no shopfloor_agent-*.whl in $wheels"
else
    [ -f "$tree/pyproject.toml" ] || fail "no source tree around install.sh: name a directory with --wheels DIR"
fi
on_this_machine() { [ -z "$root" ]; }
if on_this_machine; then
    [ -d /run/systemd/system ] || fail "systemd does not run here"
    case $("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))') in
        /home/* | /root/* | /run/user/*)
            fail "$python lies in a home directory, which the service does not see: name another with --python" ;;
    esac
fi

# --- user and directories --------------------------------------------------------------------------------------------
if on_this_machine && ! id -u shopfloor >/dev/null 2>&1; then
    useradd --system --user-group --no-create-home --home-dir /var/lib/shopfloor-agent \
        --shell "$(command -v nologin || echo /bin/false)" shopfloor
    say "User shopfloor created."
fi
mkdir -p "$home/venvs" "$settings/secrets" "$drop_ins" "$(dirname -- "$command")"
chmod 0755 "$settings"
chmod 0750 "$settings/secrets"
if on_this_machine; then
    # the service reads its secrets and nobody but root changes them
    chgrp -R shopfloor "$settings/secrets"
fi

# --- the new version, beside the old one -----------------------------------------------------------------------------
old=$(readlink "$current" 2>/dev/null || true)
for left in "$home"/venvs/*; do # what an interrupted run left
    [ -d "$left" ] && [ ! -f "$left/.complete" ] && rm -rf -- "$left"
done
number=1
while [ -e "$home/venvs/$number" ]; do number=$((number + 1)); done
new=$home/venvs/$number
say "Installing into $new ..."

make_environment() {
    pip=''
    for wheel in "$wheels"/pip-*.whl; do # a pip that is brought along needs no python3-venv package
        [ ! -f "$wheel" ] || pip=$wheel/pip
    done
    "$python" -m venv ${system_packages:+--system-site-packages} ${pip:+--without-pip} "$new" >"$home/venv.log" 2>&1 &&
        rm -f "$home/venv.log" && return
    cat "$home/venv.log" >&2
    rm -rf -- "$new"
    fail "$python cannot make a virtual environment (Debian: apt install python3-venv, or put a pip-*.whl into the wheels)"
}
run_pip() {
    if [ -n "$pip" ]; then set -- "$pip" "$@"; else set -- -m pip "$@"; fi
    "$new/bin/python" "$@"
}
make_environment
if [ -n "$wheels" ]; then
    run_pip install --quiet --disable-pip-version-check --no-index --find-links "$wheels" shopfloor-agent || fail "pip could not install; nothing was changed"
else
    constraints=''
    [ ! -f "$tree/constraints.txt" ] || constraints=$tree/constraints.txt
    run_pip install --quiet --disable-pip-version-check ${constraints:+-c "$constraints"} "$tree" || fail "pip could not install; nothing was changed"
fi
version=$("$new/bin/python" -I -m agent --version) || fail "the new version does not start; nothing was changed"
: >"$new/.complete"

# --- configuration ---------------------------------------------------------------------------------------------------
example=$("$new/bin/python" -I -c 'import agent, pathlib; print(pathlib.Path(agent.__file__).parent / "_config/agent.yaml")')
if [ ! -e "$config" ]; then
    cp -- "$example" "$config"
    chmod 0644 "$config"
fi
check() { "$1/bin/python" -I -m agent check -c "$config"; }
ready=yes
if cmp -s -- "$example" "$config" || grep -q '^[^#]*[/.]example\.com' "$config"; then
    ready=''
    why="it still holds the example's addresses"
elif ! check "$new" >"$home/check.log" 2>&1; then
    ready=''
    why="it has mistakes"
    if [ -n "$old" ] && [ -d "$current/bin" ] && check "$current" >/dev/null 2>&1; then
        cat "$home/check.log"
        rm -rf -- "$home/check.log" "$new"
        fail "$version does not accept $config (above), which the running version does; nothing was changed"
    fi
    cat "$home/check.log"
fi
rm -f "$home/check.log"

# --- unit and drop-ins -----------------------------------------------------------------------------------------------
put() { # FROM TO: never half a file
    cp -- "$1" "$2.new"
    chmod 0644 "$2.new"
    mv -f -- "$2.new" "$2"
}
put "$here/$service" "$units/$service"
if [ -n "$serial" ] || [ -f "$drop_ins/serial.conf" ]; then
    put "$here/drop-ins/serial.conf" "$drop_ins/serial.conf"
    say "Serial ports are allowed."
fi
if [ -n "$addresses" ] || [ -f "$drop_ins/addresses.conf" ]; then
    if [ -z "$ready" ]; then
        say "The list of addresses was left as it is: the configuration is not ready."
    elif "$new/bin/python" -I -m agent.commission.addresses -c "$config" >"$home/addresses.conf"; then
        put "$home/addresses.conf" "$drop_ins/addresses.conf"
        say "The agent can reach itself and the addresses in $drop_ins/addresses.conf, and no others."
    else
        say "The list of addresses was left as it is."
    fi
    rm -f "$home/addresses.conf"
fi

# --- the switch: one rename ------------------------------------------------------------------------------------------
rm -f "$home/venv.new"
ln -s "venvs/$number" "$home/venv.new"
mv -fT -- "$home/venv.new" "$current"
ln -sfn /opt/shopfloor-agent/venv/bin/shopfloor "$command"
for other in "$home"/venvs/*; do # the version before this one is kept
    case ${other##*/} in
        "$number" | "${old##*/}") ;;
        *) rm -rf -- "$other" ;;
    esac
done
say "$version is installed."

# --- service ---------------------------------------------------------------------------------------------------------
if ! on_this_machine; then
    say "Nothing was started: this is a copy below $root."
    exit 0
fi
systemctl daemon-reload
systemctl --quiet enable "$service"
if [ -z "$ready" ]; then
    if systemctl --quiet is-active "$service"; then
        say "The service still runs the version before: $config is not used yet, because $why."
        say "Edit it, then: shopfloor check && systemctl restart shopfloor-agent"
    else
        say "Not started: $config: $why."
        say "Edit it, then: shopfloor check && systemctl start shopfloor-agent"
    fi
elif [ -z "$start" ]; then
    say "Start it with: systemctl restart shopfloor-agent"
elif systemctl restart "$service"; then
    say "It runs. See it with: shopfloor status"
else
    fail "it does not run; see why with: journalctl -u shopfloor-agent -n 20 -o cat"
fi
