"""Child processes that die with their parent, however it ends.

`python -m agent.demo.leash PARENT_PID COMMAND ...` ties itself and becomes the command. Linux only (`prctl`); the tie
survives `exec` and ends when the command changes its user. Light to import: it stands before any command.
May import: the standard library.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def tie(parent: int) -> None:
    """Have the kernel send SIGTERM to this process when the thread that started it ends.

    Args:
        parent: process id of the parent; if it is gone already, this process ends at once.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)


def main() -> None:
    """Tie this process and become the command of the arguments."""
    tie(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - the command is the caller's own, no shell is wanted


if __name__ == "__main__":
    main()
