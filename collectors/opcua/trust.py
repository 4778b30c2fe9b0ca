"""What secures OPC UA connections on disk: this gateway's key and certificate, and the servers' that it trusts.

    own/certificate.der    to be copied to servers        own/key.pem    0600, never leaves this machine
    trusted/DEVICE.der     what the server of a device must have
    rejected/DEVICE.der    what it showed last and was refused

Promises: key and certificate appear together or not at all, whoever makes them at the same time; the key is never
readable by others, not even while it is written; a file is replaced as a whole; what root makes belongs to whom the
state directory belongs to, or the agent could not read it. A device has one certificate, so that a changed one can be
told from an unknown one. Everything blocks on files.

May import: the standard library, `collectors.certificates`, `collectors.opcua.certificate`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from collectors.certificates import Certificate
from collectors.opcua.certificate import clean_host, describe, make

FOLDER = "opcua"
"""In the state directory."""
KEY_NAME, CERTIFICATE_NAME = "key.pem", "certificate.der"
EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)
"""A clock that shows an earlier time is not set; a certificate made then would have expired when it is."""
_LARGEST = 64 * 1024


class ClockNotSet(ValueError):
    """The clock shows a time before this program existed."""


@dataclass(frozen=True, slots=True)
class Own:
    """This gateway's certificate, and the key to it (PEM)."""

    certificate: Certificate
    key: bytes

    def __repr__(self) -> str:
        return f"Own({self.certificate.thumbprint}, key=***)"


class TrustStore:
    """The files below a state directory.

    Args:
        state_dir: of the agent; need not exist.
        host: name of this gateway, default the system's.
    """

    def __init__(self, state_dir: Path, host: str | None = None) -> None:
        self._root = state_dir / FOLDER
        self._host = clean_host(host if host is not None else socket.gethostname())

    @property
    def file(self) -> Path:
        """Where this gateway's certificate is."""
        return self._root / "own" / CERTIFICATE_NAME

    def own(self) -> Own:
        """Return this gateway's certificate and key; make them if there are none.

        Raises:
            OSError: they cannot be read or written.
            ClockNotSet: they would have to be made, and the clock is not set.
            ValueError: the file is no certificate.
        """
        if not self.file.exists():
            self._make()
        return Own(describe(_read(self.file)), _read(self.file.with_name(KEY_NAME)))

    def renew(self) -> Own:
        """Make another pair; the old one stays in `own.DATE`. Raises as `own`."""
        folder = self.file.parent
        if folder.exists():
            aside = folder.with_name(f"own.{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}")
            folder.rename(aside)
        return self.own()

    def trusted(self, device: str) -> Certificate | None:
        """The certificate that the server of a device must have. Raises OSError, ValueError."""
        return _optional(self._path("trusted", device))

    def rejected(self, device: str) -> Certificate | None:
        """The one it showed last and that was refused. Raises OSError, ValueError."""
        return _optional(self._path("rejected", device))

    def trust(self, device: str, certificate: Certificate) -> None:
        """Trust a certificate from now on, in place of the one before. Raises OSError."""
        self._write(self._path("trusted", device), certificate.der)
        self.forget_rejected(device)

    def forget_rejected(self, device: str) -> None:
        """The server shows the trusted certificate again. Raises OSError."""
        self._path("rejected", device).unlink(missing_ok=True)

    def reject(self, device: str, certificate: Certificate) -> None:
        """Keep a certificate that was refused, for a person to look at. Raises OSError."""
        path = self._path("rejected", device)
        with contextlib.suppress(OSError, ValueError):
            if (known := _optional(path)) is not None and known.der == certificate.der:
                return
        self._write(path, certificate.der)

    def _path(self, folder: str, device: str) -> Path:
        return self._root / folder / f"{device}.der"

    def _make(self) -> None:
        now = datetime.now(UTC)
        if now < EARLIEST:
            raise ClockNotSet(f"the clock shows {now:%Y-%m-%d}: a certificate made now would be of no use later")
        key, certificate = make(self._host)
        self._folder(self._root)
        draft = self._root / f"own.draft-{secrets.token_hex(8)}"
        draft.mkdir(mode=0o700)
        try:
            _write_new(draft / KEY_NAME, key, 0o600)
            _write_new(draft / CERTIFICATE_NAME, certificate, 0o644)
            for path in (draft / KEY_NAME, draft / CERTIFICATE_NAME, draft):
                self._give(path)
            _sync(draft)
            draft.rename(self.file.parent)
        except OSError:
            # A directory that is not empty is never replaced: whoever was first, here or in another process, has won.
            if not self.file.exists():
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        _sync(self._root)

    def _write(self, path: Path, data: bytes) -> None:
        self._folder(self._root)
        self._folder(path.parent)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            _write_new(draft, data, 0o644)
            self._give(draft)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        _sync(path.parent)

    def _folder(self, path: Path) -> None:
        if not path.is_dir():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._give(path)

    def _give(self, path: Path) -> None:
        """Give what root made to the owner of the state directory."""
        if os.geteuid() == 0:
            owner = self._root.parent.stat()
            os.chown(path, owner.st_uid, owner.st_gid)


def _optional(path: Path) -> Certificate | None:
    try:
        data = _read(path)
    except FileNotFoundError:
        return None
    return describe(data)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LARGEST)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with open(descriptor, "wb") as file:  # noqa: PTH123  # the mode is right from the first moment
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
