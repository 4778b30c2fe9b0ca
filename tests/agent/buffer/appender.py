"""A process that appends until it is killed: `python -m tests.agent.buffer.appender DIRECTORY`.

Prints the run, then after each commit `run seq`: everything up to there was accepted.
"""

import asyncio
import sys
from pathlib import Path

from agent.buffer.outbox import Outbox
from collectors.api import Batch


async def main(directory: Path) -> None:
    outbox = Outbox(
        directory,
        site="s",
        gateway="g",
        max_size=50_000_000,
        commit_interval=0.0,
        max_payload=60_000,
        replay="live-first",
    )
    await outbox.open()
    loop = asyncio.create_task(outbox.commit_loop())
    at = 0
    while not loop.done():
        at += 1
        await outbox.append(Batch("press", "1s", 0.0, {"n": at, "text": "x" * (at % 700)}), ts=at, rev="r")
        print(outbox.run, at, flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
