"""`make soak`: proves the promises of the design on a running daemon, and prints one table.

Hours long; `make test` runs a short form of it. A scenario is a module with `run(options) -> list[Claim]`, and a line
in `__main__.SCENARIOS`; `python -m tests.soak --help` says what there is.
"""
