"""What the agent costs: `make bench`, or `python -m tests.bench [--quick] [ROW ...]`.

Five parts, each a process of its own, so that only one of them is measured:

    plc / opcua_server   what is read; every register and node has a new value each time it is looked at
    the broker           mosquitto on a free port of the loopback; without it nothing that is published can be measured
    subscriber           independent of the agent: a bare MQTT 3.1.1 client that counts values and their age
    the agent            the measured one: CPU, memory and bytes written of its process tree, as the kernel counts them
    `python -m tests.bench`   starts the others, sleeps through the window, reads the counters at both ends of it

To put another agent beside ours, describe it in `agents.py`: how its configuration is written for a work (devices,
tags, interval, broker), the command that starts it, the topics it publishes on, and how a payload is counted. `floor`
is such an agent: the same work in bare Python, without time-outs, checks or a buffer. `--agent` chooses.

CPU is user + system time in seconds per million values that the subscriber got in the window. A wall-clock figure of a
busy machine means little; CPU time suffers less, and the ratio to the baseline is what to look at: `baseline.json` was
measured on the machine that it names. `--python` chooses the interpreter (and environment) that the agent runs in:
production installs have neither the demo's nor the tests' packages, and a distribution's build of CPython is a fifth
faster than one built without optimisation.
"""
