"""The addresses the service may talk to, as a systemd drop-in made from the configuration.

`python -m agent.commission.addresses -c FILE` prints it; the installer puts it beside the unit. Promises: connects to
nothing but name servers; prints nothing that would lock the agent out of a name that cannot be resolved now. Exit 0;
1 a name cannot be resolved; 2 the configuration has mistakes. May import: `agent.config`.
"""

from __future__ import annotations

import argparse
import ipaddress
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from agent.config import CONFIG_FILE, AgentConfig, load
from agent.config_model import is_loopback

RESOLV_CONF = Path("/etc/resolv.conf")
STATE_DIRECTORY = Path("/var/lib/shopfloor-agent")
LOGS_DIRECTORY = Path("/var/log/shopfloor-agent")
_RESOLVE_S = 5.0
"""How long one name may take."""

Resolve = Callable[[str], list[str]]


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody the agent talks to: a host (address or name) and who that is."""

    who: str
    host: str


class Unresolved(Exception):
    """A name that has no address now."""


def peers(config: AgentConfig) -> list[Peer]:
    """The broker and every device that is reached through a network, each host once."""
    found = {config.mqtt.host: Peer("the broker", config.mqtt.host)}
    for device in config.devices:
        url = getattr(device, "url", None)
        host = urlsplit(url).hostname if isinstance(url, str) else None
        if host is not None:
            found.setdefault(host, Peer(device.name, host))
    return [peer for peer in found.values() if not is_loopback(peer.host)]


def name_servers(path: Path = RESOLV_CONF) -> list[str]:
    """The addresses of the name servers of this machine, those on the machine itself left out."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines]
    servers = [line[1].partition("%")[0] for line in words if len(line) > 1 and line[0] == "nameserver"]
    return [server for server in dict.fromkeys(servers) if _is_address(server) and not is_loopback(server)]


def writable_paths(config: AgentConfig) -> list[str]:
    """Directories of the configuration that the hardened unit would not let the agent write to."""
    wanted = []
    if "directory" in config.buffer.model_fields_set:
        wanted.append(Path(config.buffer.directory))
    if config.log.file is not None:
        wanted.append(Path(config.log.file).parent)
    return [str(path) for path in wanted if not _inside(path, STATE_DIRECTORY) and not _inside(path, LOGS_DIRECTORY)]


def drop_in(config: AgentConfig, servers: Iterable[str], resolve: Resolve) -> tuple[str, list[str]]:
    """The text of the drop-in, and what a person has to know about it.

    Raises:
        Unresolved: a name has no address now; a list without it would lock the agent out.
    """
    lines = [
        "# Made from the configuration by: install.sh --addresses",
        "# The agent can reach these addresses and no others: anything else times out without an error.",
        "# After adding a device make it again; without this file every address is allowed.",
        "[Service]",
        "IPAddressDeny=any",
        "IPAddressAllow=localhost",
    ]
    notes = []
    for peer in peers(config):
        if _is_address(peer.host):
            lines += [f"# {peer.who}", f"IPAddressAllow={peer.host.partition('%')[0]}"]
            continue
        addresses = resolve(peer.host)
        lines.append(f"# {peer.who}: {peer.host}")
        lines += [f"IPAddressAllow={address}" for address in addresses]
        notes.append(
            f"{peer.host} is {', '.join(addresses)} now; when it moves, the agent reaches it only after "
            "install.sh --addresses has run again"
        )
    for server in servers:
        lines += ["# name server", f"IPAddressAllow={server}"]
    lines += [f"ReadWritePaths=-{_quoted(path)}" for path in writable_paths(config)]
    return "\n".join(lines) + "\n", notes


def resolve_name(host: str) -> list[str]:
    """The addresses of a name, within a few seconds.

    Raises:
        Unresolved: there are none, or nobody answered in time.
    """
    found: list[str] = []

    def ask() -> None:
        try:
            answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return
        found.extend(str(answer[4][0]).partition("%")[0] for answer in answers)

    thread = threading.Thread(target=ask, daemon=True)  # a name server that is silent keeps it for longer
    thread.start()
    thread.join(_RESOLVE_S)
    if not found:
        raise Unresolved(host)
    return sorted(set(found))


def main(argv: Sequence[str] | None = None) -> int:
    """Print the drop-in for a configuration file."""
    parser = argparse.ArgumentParser(prog="python -m agent.commission.addresses", description=__doc__.splitlines()[0])
    parser.add_argument("-c", "--config", type=Path, default=CONFIG_FILE, metavar="FILE")
    loaded = load(parser.parse_args(argv).config)
    if loaded.config is None:
        for mistake in loaded.mistakes:
            print(mistake, file=sys.stderr)
        return 2
    try:
        text, notes = drop_in(loaded.config, name_servers(), resolve_name)
    except Unresolved as error:
        print(
            f"{error} has no address now, so no list was made: a list without it would lock the agent out. "
            "Check the name servers, or write the address into the configuration.",
            file=sys.stderr,
        )
        return 1
    print(text, end="")
    for note in notes:
        print(note, file=sys.stderr)
    return 0


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _inside(path: Path, directory: Path) -> bool:
    return path == directory or directory in path.parents


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if escaped != path or " " in path else path


if __name__ == "__main__":
    sys.exit(main())
