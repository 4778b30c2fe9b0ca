"""Files that the configuration names: where they are looked for, and whether others could read a secret.

May import: the standard library, `collectors.fields`.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from collectors.fields import SecretText

SECRETS_DIRECTORY = Path("/etc/shopfloor-agent/secrets")
_FORBIDDEN_MODE = 0o027
_MAX_SECRET_BYTES = 64 * 1024


class FileUnusable(Exception):
    """A file that the configuration names is missing, unreadable or open to others; the text says what to do."""


def find_file(name: str, beside: Path, *, secret: bool = False) -> Path:
    """Return the absolute path of a file named in the configuration.

    Args:
        name: an absolute path, or a name or path looked up in $CREDENTIALS_DIRECTORY, the secrets directory and
            `beside`, in this order.
        beside: the directory of the file that names it.
        secret: the name may be a password that stands in the wrong place, so it is not repeated.

    Raises:
        FileUnusable: there is none.
    """
    if "\x00" in name:
        raise FileUnusable("a file name cannot contain a NUL character")
    places = [place for place in (_credentials_directory(), SECRETS_DIRECTORY, beside) if place]
    closed: str | None = None
    for place in places:
        candidate = place / name
        try:
            candidate.stat()
        except PermissionError:
            closed = closed or str(place)  # an ordinary user who checks may still find it beside the file
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise FileUnusable(f"cannot be looked up in {place}: {error.strerror}") from None
        else:
            return candidate.absolute()
    if closed is not None:
        raise FileUnusable(f"{closed} may not be read by this user: run the command as the service's user")
    if secret:
        searched = ", ".join(str(place) for place in places)
        raise FileUnusable(f"there is no file of this name in {searched}; the secret itself stands in the file")
    if Path(name).is_absolute():
        raise FileUnusable(f"there is no file {name}")
    raise FileUnusable(f"there is no file '{name}' in {', '.join(str(place) for place in places)}")


def check_file(path: Path, *, secret: bool) -> str:
    """Return the digest of a file's content.

    Args:
        path: absolute.
        secret: others must not be able to read it.

    Raises:
        FileUnusable: it cannot be read, is no file, is empty, or is a secret that others can read.
    """
    return hashlib.sha256(_read(path, secret=secret)).hexdigest()


def read_secret(path: Path | str) -> SecretText:
    """Return the text of a secret file without the line end that editors add.

    Raises:
        FileUnusable: as `check_file`; or it is no text.
    """
    data = _read(Path(path), secret=True)
    try:
        return SecretText(data.decode().removesuffix("\n").removesuffix("\r"))
    except UnicodeDecodeError:
        raise FileUnusable(f"{path} is not UTF-8 text") from None


def _credentials_directory() -> Path | None:
    given = os.environ.get("CREDENTIALS_DIRECTORY", "")
    return Path(given) if given else None


def _read(path: Path, *, secret: bool) -> bytes:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise FileUnusable(f"{path} is no ordinary file")
            data = file.read(_MAX_SECRET_BYTES + 1) if secret else file.read(16 * _MAX_SECRET_BYTES + 1)
    except PermissionError:
        raise FileUnusable(
            f"{path} may not be read by this user: chown root:shopfloor and chmod 640 it, "
            "or run the command as the service's user"
        ) from None
    except IsADirectoryError:
        raise FileUnusable(f"{path} is a directory") from None
    except FileNotFoundError:
        raise FileUnusable(f"there is no file {path}") from None
    except OSError as error:
        raise FileUnusable(f"{path} cannot be read: {error.strerror}") from None
    if not data.strip():
        raise FileUnusable(f"{path} is empty")
    if len(data) > (_MAX_SECRET_BYTES if secret else 16 * _MAX_SECRET_BYTES):
        raise FileUnusable(f"{path} is too large")
    mode = stat.S_IMODE(status.st_mode)
    credentials = _credentials_directory()
    if secret and mode & _FORBIDDEN_MODE and not (credentials and path.is_relative_to(credentials)):
        raise FileUnusable(
            f"others can read or change the secret {path} (mode {mode:04o}): chown root:shopfloor and chmod 640 it"
        )
    return data
