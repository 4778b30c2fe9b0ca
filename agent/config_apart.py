"""The configuration, read and checked in a process of its own that ends when it is done.

What checking takes - the file's tree, the rules of every key, 20 MB with 10,000 tags - a process that did it would
never give back. Reading runs beside the rest of a start, and comes over as bytes. May import: the standard library,
`agent.config` and the models in it (lazily).
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from agent import __version__

if TYPE_CHECKING:
    from agent.config_model import Loaded

_END_S = 0.5
_WE = b"shopfloor-agent "
_CODE = "import sys; file, *sys.path = sys.argv[1:]; from agent.config_apart import answer; answer(file)"
"""Modules are found where ours were, however we were started: never in the directory that we happen to be in."""


class Replaced(Exception):
    """Another version is installed now than the one that runs."""


class Loading:
    """A file that is being read. To be left when the result is there, or is not wanted any more."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._child: subprocess.Popen[bytes] | None = None
        with contextlib.suppress(OSError):  # no process to be had: see `result`
            self._child = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-I", "-c", _CODE, str(path), *sys.path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                process_group=0,  # Ctrl-C is for us, who end it
            )

    def __enter__(self) -> Loading:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what still reads, without waiting for it for long: a disk that does not answer may hold it."""
        if self._child is None:
            return
        if self._child.poll() is None:
            self._child.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(_END_S)
        if self._child.stdout is not None:
            self._child.stdout.close()

    def result(self, within: float | None = None) -> Loaded:
        """Wait for it; read here when the other process failed. Raises nothing for what a person wrote.

        Args:
            within: seconds, None = as long as it takes.

        Raises:
            Replaced: the other process is of another version, and what is loaded from now on would be too.
            subprocess.TimeoutExpired: it takes longer.
        """
        if self._child is not None:
            answered, _ = self._child.communicate(timeout=within)
            if self._child.returncode == -signal.SIGTERM:
                sys.exit(0)  # a service manager stops all processes at once: this is no time to read it here
            told, _, packed = answered.partition(b"\n")
            if self._child.returncode == 0 and told.startswith(_WE):
                version = told.removeprefix(_WE).decode()
                if version != __version__:
                    raise Replaced(f"version {version} was installed while {__version__} runs: restart the agent")
                loaded: Loaded = pickle.loads(packed)  # noqa: S301 - our own process packed it
                return loaded
        from agent.config import load

        return load(self._path)


def load_apart(path: Path, within: float | None = None) -> Loaded:
    """As `agent.config.load`, with devices that take less memory.

    Args:
        within: seconds; what takes longer is given up, and so a mistake.
    """
    try:
        with Loading(path) as loading:
            return loading.result(within)
    except Replaced as error:
        text = str(error)
    except subprocess.TimeoutExpired:
        text = f"it, or a file that it names, was not read within {within:g} s: check the disk or share that it is on"
    from agent.config_model import Loaded
    from agent.mistakes import Mistake

    return Loaded(None, [Mistake(str(path), 1, 1, "file", text)])


def answer(file: str) -> None:
    """What the other process does."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # nobody waits any more: nothing to say of it
    with os.fdopen(os.dup(1), "wb") as pipe:
        os.dup2(2, 1)  # what others print, a plugin or what it starts, is no part of the answer
        from agent.config import load

        loaded = load(Path(file))
        if loaded.config is not None:
            for section in (loaded.config.mqtt, *loaded.config.devices):
                section.fingerprint  # noqa: B018 - it is kept
            for device in loaded.config.devices:
                device.pack()
        pipe.write(_WE + __version__.encode() + b"\n" + pickle.dumps(loaded, pickle.HIGHEST_PROTOCOL))
