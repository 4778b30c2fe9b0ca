"""A coverage-guided fuzzer (atheris, `pip install atheris`, which the tests do not need) on all that comes from
outside: configurations, templates, tag lists, Modbus, OPC UA and MQTT as they come in from the wire. No crash, no hang
over a second, no value out of nowhere. Each target runs in a process of its own, which can be started alone:
`python -m tests.soak.fuzz TARGET SECONDS SEED CORPUS`. What each does with its input stands in `tests.soak.fuzz_*`.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

from tests.soak.claims import Claim, Options

TARGETS = {
    "configuration": "fuzz_files",
    "template": "fuzz_files",
    "tag list": "fuzz_files",
    "workbook": "fuzz_files",
    "Modbus registers": "fuzz_modbus",
    "Modbus TCP": "fuzz_modbus",
    "Modbus RTU": "fuzz_modbus",
    "OPC UA": "fuzz_opcua",
    "MQTT": "fuzz_mqtt",
}
"""Name -> the module beside this one that has it in its `TARGETS`: name -> what makes seeds and target."""
INSTRUMENTED = ["agent", "collectors", "paho", "pymodbus"]


def run(options: Options) -> list[Claim]:
    """Run it."""
    if importlib.util.find_spec("atheris") is None:
        raise AssertionError("atheris is not installed: .venv/bin/pip install atheris")
    seconds = round(options.lasting(10, 0.2) * 60)
    claims = []
    for name in TARGETS:
        corpus = options.disk / name
        done = subprocess.run(
            [sys.executable, "-m", "tests.soak.fuzz", name, str(seconds), str(options.seed), str(corpus)],
            cwd=Path(__file__).resolve().parents[2],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds + 120,
        )
        ran = re.search(r"Done (\d+) runs", done.stderr)
        figure = f"{ran[1]} inputs, exit {done.returncode}" if ran else f"exit {done.returncode}: {done.stderr[-1500:]}"
        claims.append(
            Claim(
                f"{name}: no crash, no hang over 1 s, no value out of nowhere",
                f"{seconds} s of atheris",
                figure,
                done.returncode == 0,
            )
        )
        if done.returncode:
            print(done.stderr[-3000:], flush=True)
    return claims


def main(name: str, seconds: str, seed: str, directory: str) -> None:
    """Fuzz one target; ends the process."""
    atheris = importlib.import_module("atheris")  # only here; the tests do without it

    with atheris.instrument_imports(include=INSTRUMENTED):
        # Nothing of these packages may be imported before or after: the fuzzer would be blind to it.
        seeds, target = importlib.import_module(f"tests.soak.{TARGETS[name]}").TARGETS[name]()
        for one in seeds:
            target(one)
    corpus = Path(directory)
    corpus.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(one)
    flags = [
        f"-max_total_time={seconds}",
        "-timeout=1",
        f"-seed={int(seed) % (1 << 31) or 1}",
        "-rss_limit_mb=2000",
        "-max_len=8192",
        f"-artifact_prefix={corpus}/",
    ]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
