"""The configuration, read and checked in a process of its own that ends when it is done.

What checking takes - the file's tree, the rules of every key, 20 MB with 10,000 tags - a process that did it would
never give back. Reading runs beside the rest of a start, and comes over as bytes. May import: the standard library,
`agent.config` and the models in it (lazily).
"""

from __future__ import annotations

import contextlib
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agent import __version__

if TYPE_CHECKING:
    from agent.config_model import Loaded


class Loading:
    """A file that is being read. Raises nothing for what a person wrote."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._child: subprocess.Popen[bytes] | None = None
        isolated = ["-I"] if sys.flags.isolated else []
        with contextlib.suppress(OSError):  # no process to be had: see `result`
            self._child = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, *isolated, "-m", "agent.config_apart", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
            )

    def result(self) -> Loaded:
        """Wait for it; read here when the other process failed, or was not of this version (an upgrade under way)."""
        if self._child is not None:
            with self._child as child:
                try:
                    packed, _ = child.communicate()
                except BaseException:  # told to stop meanwhile: it must not be waited for
                    child.kill()
                    raise
            version, _, packed = packed.partition(b"\n")
            if child.returncode == 0 and version == __version__.encode():
                loaded: Loaded = pickle.loads(packed)  # noqa: S301 - our own process packed it
                return loaded
        from agent.config import load

        return load(self._path)


def load_apart(path: Path) -> Loaded:
    """As `agent.config.load`, with devices that take less memory."""
    return Loading(path).result()


def _main(path: Path) -> None:
    from agent.config import load

    loaded = load(path)
    if loaded.config is not None:
        for section in (loaded.config.mqtt, *loaded.config.devices):
            section.fingerprint  # noqa: B018 - it is kept
        for device in loaded.config.devices:
            device.pack()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # nobody waits any more: nothing to say of it
    sys.stdout.buffer.write(__version__.encode() + b"\n" + pickle.dumps(loaded, pickle.HIGHEST_PROTOCOL))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
