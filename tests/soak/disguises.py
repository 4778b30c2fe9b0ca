"""The forms in which a secret can lie in a log or a message without being readable at a glance."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode, urlsafe_b64encode
from urllib.parse import quote, quote_plus


def of_text(secret: str) -> dict[str, bytes]:
    """Name of the form -> what to search for."""
    return {
        "text": secret.encode(),
        "JSON": json.dumps(secret)[1:-1].encode(),
        "URL": quote(secret, safe="").encode(),
        "form": quote_plus(secret).encode(),
        "URL, every byte": "".join(f"%{byte:02X}" for byte in secret.encode()).encode(),
        "UTF-16": secret.encode("utf-16-le"),
    } | of_bytes(secret.encode())


def of_pem(line: str) -> dict[str, bytes]:
    """The same of a line of a PEM file, which is base64 itself."""
    raw = b64decode(line)
    return {"text": line.encode(), "URL": quote(line, safe="").encode(), "binary": raw} | of_bytes(raw)


def of_bytes(raw: bytes) -> dict[str, bytes]:
    """Hexadecimal and base64, wherever in what was encoded it began."""
    found = {"hex": raw.hex().encode(), "HEX": raw.hex().upper().encode()}
    found["hex, apart"] = raw.hex(" ").encode()
    for shift in range(3):
        for name, encode in (("base64", b64encode), ("base64url", urlsafe_b64encode)):
            whole = encode(bytes(shift) + raw)
            # What shares a group of four with bytes before or after it depends on those.
            first, last = (0, 2, 3)[shift], len(shift * b"0" + raw) * 8 // 6
            found[f"{name}, {shift} bytes in"] = whole[first:last]
    return found
