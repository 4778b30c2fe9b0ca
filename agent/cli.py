"""The command `shopfloor`: reads the command line, loads what the command needs, returns its exit code.

0 fine; 1 it ran and something is wrong; 2 usage or configuration. Results on stdout, logs on stderr.
No command writes to a device. May import: everything, each command only what it needs.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from agent import __version__

DEFAULT_CONFIG = Path("/etc/shopfloor-agent/agent.yaml")
LATER = (
    "probe", "guess", "new", "doctor", "top", "health", "evidence", "apply", "diff",
    "rollback", "mute", "reference",
)  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="shopfloor",
        description="Reads PLCs, OPC UA servers and this gateway; delivers every reading to an MQTT broker.",
        epilog="No command writes to a device.",
    )
    parser.add_argument("--version", action="version", version=f"shopfloor-agent {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    demo = commands.add_parser("demo", help="a simulated plant and broker: see live readings now")
    demo.add_argument("--seconds", type=_seconds, metavar="N", help="end after so long, with a summary")

    for name, text in (
        ("run", "the daemon"),
        ("check", "check a configuration, offline: every mistake at once, then what it will cost"),
        ("read", "read each device once and show the values; publishes nothing"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument(
            "-c", "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help=f"default {DEFAULT_CONFIG}"
        )
        if name != "run":
            command.add_argument("--json", action="store_true", help="for programs")
        if name == "check":
            command.add_argument("--explain", action="store_true", help="each tag as understood, each register read")
        if name == "read":
            command.add_argument("devices", nargs="*", metavar="DEVICE", help="default: all")

    status = commands.add_parser("status", help="how the running agent is doing")
    status.add_argument("--json", action="store_true", help="for programs")
    status.add_argument("--values", nargs="?", const="", metavar="DEVICE", help="last values, of one device or of all")

    pause = commands.add_parser("pause", help="leave a device alone for a while (program download)")
    pause.add_argument("target", metavar="DEVICE|LINE")
    pause.add_argument("--for", dest="duration", required=True, metavar="TIME", help="such as 30m")
    resume = commands.add_parser("resume", help="end a pause")
    resume.add_argument("target", nargs="?", metavar="DEVICE|LINE", help="default: all")

    log = commands.add_parser("log", help="the agent's log as sentences")
    log.add_argument("-f", "--follow", action="store_true", help="go on as it grows")
    log.add_argument("device", nargs="?", metavar="DEVICE")
    log.add_argument("-c", "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE")

    tags = commands.add_parser("tags", help="a device's tags as a table for a spreadsheet")
    export = tags.add_subparsers(dest="action", metavar="export", required=True).add_parser("export")
    export.add_argument("-c", "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE")
    export.add_argument("device", metavar="DEVICE")
    export.add_argument("--csv", type=Path, metavar="OUT", help="default: standard output")

    _add_cert(commands.add_parser("cert", help="certificates: this gateway's own, and the servers it trusts"))

    _add_browse(commands.add_parser("browse", help="what an OPC UA server offers: a tree, or a list of tags"))

    for name in LATER:
        commands.add_parser(name, add_help=False, prefix_chars="\0").add_argument("rest", nargs="*")
    return parser


def _add_browse(browse: argparse.ArgumentParser) -> None:
    browse.add_argument(
        "target", metavar="URL|DEVICE", help="opc.tcp://host:port (no encryption, no user), or a device"
    )
    browse.add_argument("-c", "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE")
    browse.add_argument("--under", metavar="PATH|NODE", help="where to begin, such as /Objects/Line or ns=2;s=Line")
    browse.add_argument("--find", metavar="TEXT", help="only variables with this text in their path")
    browse.add_argument(
        "--depth", type=int, default=None, metavar="N", help="levels to go down, default 4; 10 with --find"
    )
    browse.add_argument("--max", type=int, default=2000, metavar="N", help="entries to show, default 2000")
    browse.add_argument("--csv", nargs="?", const="", metavar="OUT", help="a list of tags for tags_file:")
    browse.add_argument("--json", action="store_true", help="one object a line, for programs")


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds above 0")
    return value


def _add_cert(cert: argparse.ArgumentParser) -> None:
    actions = cert.add_subparsers(dest="action", metavar="show|trust|renew", required=True)
    show = actions.add_parser("show", help="thumbprint, expiry, the file to copy to servers; how each server stands")
    show.add_argument("--json", action="store_true", help="for programs")
    trust = actions.add_parser("trust", help="trust the certificate of a device's server, after comparing it")
    trust.add_argument("device", metavar="DEVICE")
    trust.add_argument("--thumbprint", metavar="HEX", help="what it must be: no question is asked then")
    trust.add_argument("--file", type=Path, metavar="CERT", help="take it from here instead of asking the server")
    renew = actions.add_parser("renew", help="make another certificate; every server has to trust it")
    for action in (show, trust, renew):
        action.add_argument("-c", "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    # Else pydantic searches every installed package for plugins, and loads what it finds: 20 ms, 1 MB, foreign code.
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
    if arguments.command in LATER:
        sys.stderr.write(f"shopfloor {arguments.command}: not supported yet\n")
        return 2
    try:
        return _dispatch(arguments)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output went away (`shopfloor status | head`); that is no error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(config: Path) -> int:
    # Loading takes most of a start. A stop in it is a stop like any other: there is nothing to end yet.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # a reload waits until `agent.app` can do it
    gc.disable()  # what a start makes stays; `agent.upkeep` switches it on
    from agent.config_apart import Loading, Replaced

    with Loading(config) as loading:  # while it is read, the rest is loaded
        from agent.app import run_daemon

        try:
            loaded = loading.result()
        except Replaced as error:
            sys.stderr.write(f"{error}\n")
            return 1
    return run_daemon(config, loaded)


def _dispatch(arguments: argparse.Namespace) -> int:  # one line per command
    match arguments.command:
        case "demo":
            from agent.demo import run_demo

            return run_demo(arguments.seconds)
        case "run":
            return _run(arguments.config)
        case "check":
            from agent.commission.check import check

            return check(arguments.config, as_json=arguments.json, explain=arguments.explain)
        case "read":
            from agent.commission.read import read

            return read(arguments.config, arguments.devices, as_json=arguments.json)
        case "tags":
            from agent.commission.tags import export

            return export(arguments.config, arguments.device, csv_file=arguments.csv)
        case "cert":
            from agent.commission import cert

            match arguments.action:
                case "show":
                    return cert.show(arguments.config, as_json=arguments.json)
                case "trust":
                    given = {"thumbprint": arguments.thumbprint, "file": arguments.file}
                    return cert.trust(arguments.config, arguments.device, **given)
            return cert.renew(arguments.config)
        case "browse":
            from agent.commission.browse import browse
            from collectors.api import BrowseWish

            depth = arguments.depth if arguments.depth is not None else 10 if arguments.find else 4
            wish = BrowseWish(arguments.under, arguments.find, max(1, depth), max(1, arguments.max))
            return browse(
                arguments.target,
                arguments.config,
                wish,
                csv_file=Path(arguments.csv) if arguments.csv else None,
                as_csv=arguments.csv is not None,
                as_json=arguments.json,
            )
        case "log":
            from agent.commission.log import log

            return log(arguments.config, follow=arguments.follow, device=arguments.device)
    from agent.commission import operate

    match arguments.command:
        case "status":
            return operate.status(as_json=arguments.json, values=arguments.values)
        case "pause":
            return operate.pause(arguments.target, arguments.duration)
    return operate.resume(arguments.target)
