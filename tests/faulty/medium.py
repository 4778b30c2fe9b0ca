"""A medium that fails on demand, below SQLite: what a full card, a broken card or a read-only remount look like."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class Medium:
    """Makes connections whose commits fail as told.

    `fail_next`: "before" = the commit is not done; "after" = it is done, but reported as failed (a sync that lies);
    "begin" = not even a transaction begins. `code` is SQLite's result code. It stays so until `heal`.
    """

    def __init__(self) -> None:
        self.how: str | None = None
        self.code = sqlite3.SQLITE_IOERR
        self.open_gate = threading.Event()
        self.open_gate.set()
        self.commits = 0

    def hang(self) -> None:
        """Let commits wait until `heal`: a card that takes its time."""
        self.open_gate.clear()

    def fail(self, how: str, code: int = sqlite3.SQLITE_IOERR) -> None:
        self.how, self.code = how, code

    def heal(self) -> None:
        self.how = None
        self.open_gate.set()

    def connect(self, path: Path, **options: Any) -> sqlite3.Connection:
        if self.how is not None and self.how != "after":
            raise self.error()
        connection = sqlite3.connect(path, factory=_FaultyConnection, **options)
        assert isinstance(connection, _FaultyConnection)
        connection.medium = self
        return connection

    def error(self) -> sqlite3.OperationalError:
        error = sqlite3.OperationalError("the medium fails")
        error.sqlite_errorcode = self.code
        return error


class _FaultyConnection(sqlite3.Connection):
    medium: Medium

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        how = self.medium.how if hasattr(self, "medium") else None
        if how == "begin" and sql.startswith("BEGIN"):
            raise self.medium.error()
        if how == "before" and sql == "COMMIT":
            super().execute("ROLLBACK")
            raise self.medium.error()
        if sql == "COMMIT":
            self.medium.open_gate.wait()
            self.medium.commits += 1
        cursor = super().execute(sql, parameters)
        if how == "after" and sql == "COMMIT":
            raise self.medium.error()
        return cursor

    def executemany(self, sql: str, parameters: Iterable[Any]) -> sqlite3.Cursor:
        return super().executemany(sql, parameters)
