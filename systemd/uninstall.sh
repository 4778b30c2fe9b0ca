#!/bin/sh
# Removes the agent. What people wrote stays: configuration, secrets, drop-ins of their own. Readings that no broker
# has received yet are deleted only on request.
set -eu

usage() {
    cat <<'TEXT'
Usage: uninstall.sh [options]        as root

  --purge       delete readings that were not delivered yet, and log files, without asking
  --root DIR    remove what install.sh --root DIR put there
TEXT
}

say() { printf '%s\n' "$*"; }
wrong_usage() { printf 'uninstall.sh: %s\n' "$*" >&2; usage >&2; exit 2; }

purge='' root=''
while [ $# -gt 0 ]; do
    case $1 in
        --purge) purge=yes ;;
        --root)
            [ $# -gt 1 ] && [ -n "$2" ] || wrong_usage "--root needs a value"
            root=${2%/}
            shift ;;
        -h | --help) usage; exit 0 ;;
        *) wrong_usage "unknown option $1" ;;
    esac
    shift
done
on_this_machine() { [ -z "$root" ]; }
if on_this_machine && [ "$(id -u)" != 0 ]; then
    printf 'uninstall.sh: only root can remove a service: sudo %s\n' "$0" >&2
    exit 1
fi

home=$root/opt/shopfloor-agent
settings=$root/etc/shopfloor-agent
units=$root/etc/systemd/system
service=shopfloor-agent.service
data=$root/var/lib/shopfloor-agent
logs=$root/var/log/shopfloor-agent

if on_this_machine && command -v systemctl >/dev/null; then
    systemctl --quiet disable --now "$service" 2>/dev/null || true
fi

# the example that was never edited was written by nobody
for example in "$home"/venv/lib/python3*/site-packages/agent/_config/agent.yaml; do
    if [ -f "$example" ] && cmp -s -- "$example" "$settings/agent.yaml"; then
        rm -f -- "$settings/agent.yaml"
    fi
done
rm -f -- "$units/$service" "$units/$service.d/serial.conf" "$units/$service.d/addresses.conf"
rm -f -- "$root/usr/local/bin/shopfloor"
rm -rf -- "$home"
rmdir "$units/$service.d" "$settings/secrets" "$settings" 2>/dev/null || true

if [ -d "$data" ] && [ -n "$(ls -A "$data")" ]; then
    if [ -z "$purge" ] && [ -t 0 ]; then
        printf 'Delete %s with readings that were perhaps not delivered yet (%s)? [y/N] ' \
            "$data" "$(du -sh "$data" | cut -f 1)"
        read -r answer || answer=
        case $answer in [yY]*) purge=yes ;; esac
    fi
fi
if [ -n "$purge" ]; then
    rm -rf -- "$data" "$logs"
else
    rmdir "$data" "$logs" 2>/dev/null || true
fi

if on_this_machine; then
    ! command -v systemctl >/dev/null || systemctl daemon-reload
    # what stays must not belong to a user that may be somebody else's one day
    for left in "$settings/secrets" "$data" "$logs"; do
        [ ! -d "$left" ] || chown -R root:root "$left"
    done
    ! id -u shopfloor >/dev/null 2>&1 || userdel shopfloor
fi

say "The agent is removed."
for left in "$settings" "$units/$service.d" "$data" "$logs"; do
    [ ! -d "$left" ] || say "Kept: $left"
done
