"""`make soak`: proves the promises of the design on a running daemon, and prints one table.

Long, and therefore no part of `make test`. `python -m tests.soak --help` says what there is.
"""
