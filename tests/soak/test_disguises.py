"""A search that finds nothing has to be one that could have."""

from __future__ import annotations

import json
import os
from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote, urlencode

import pytest

from tests.soak import disguises

SECRET = 'canary "c4n4ry"+&ü'


@pytest.mark.parametrize("before", range(7))
@pytest.mark.parametrize("after", range(4))
def test_a_secret_is_found_in_what_holds_it_however_it_is_written(before: int, after: int) -> None:
    raw = os.urandom(before) + SECRET.encode() + os.urandom(after)
    text = "b" * before + SECRET + "a" * after
    held = [raw, json.dumps(text).encode(), quote(text).encode(), urlencode({"p": text}).encode()]
    held += [text.encode("utf-16-le"), raw.hex().encode(), raw.hex().upper().encode(), raw.hex(" ").encode()]
    held += [b64encode(raw), urlsafe_b64encode(raw), b64encode(raw).rstrip(b"=")]
    forms = disguises.of_text(SECRET)
    for one in held:
        assert any(form in one for form in forms.values()), one
    assert not any(form in b64encode(os.urandom(3000)) for form in forms.values())


def test_a_line_of_a_key_is_found_decoded_too() -> None:
    key = os.urandom(48)
    forms = disguises.of_pem(b64encode(key).decode())
    for one in (key, key.hex().encode(), b64encode(b"x" + key), b64encode(key)):
        assert any(form in one for form in forms.values()), one
