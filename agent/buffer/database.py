"""How SQLite is spoken to: transactions, and its errors as failures of the store.

May import: the standard library, `agent.buffer.records`.
"""

from __future__ import annotations

import sqlite3
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.buffer.records import StoreDamaged, StoreFailure

DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
DAMAGE_AT_OPEN = DAMAGE | {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH}
"""While opening also: tables that are not as this program makes them."""
_WORDS = {
    sqlite3.SQLITE_FULL: "disk-full",
    sqlite3.SQLITE_IOERR: "io-error",
    sqlite3.SQLITE_CANTOPEN: "cannot-open",
    sqlite3.SQLITE_READONLY: "read-only",
    sqlite3.SQLITE_BUSY: "busy",
    sqlite3.SQLITE_LOCKED: "busy",
    sqlite3.SQLITE_NOMEM: "no-memory",
}


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing; when it ends well it is on the medium."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def code_of(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 when the module itself complains."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


@contextmanager
def translated(damage: frozenset[int] = DAMAGE) -> Iterator[None]:
    """Raise what SQLite and the file system say as a StoreFailure. A misuse of the module stays what it is: a bug."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except sqlite3.Error as error:
        # Cursors in the frames of the traceback would keep the connection, and its lock on the file, alive.
        traceback.clear_frames(error.__traceback__)
        code = code_of(error)
        if code in damage:
            raise StoreDamaged(str(error)) from error
        raise StoreFailure(_WORDS.get(code, "failing"), str(error)) from error
    except (UnicodeDecodeError, OverflowError) as error:
        raise StoreDamaged(str(error)) from error
    except OSError as error:
        raise StoreFailure("io-error", str(error)) from error


def bytes_written() -> int:
    """Bytes that this thread made the kernel write; 0 where it does not say."""
    try:
        lines = Path("/proc/thread-self/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("write_bytes")), 0)
