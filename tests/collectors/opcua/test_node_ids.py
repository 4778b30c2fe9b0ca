"""Node ids as people write them."""

from __future__ import annotations

import base64
import contextlib
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.opcua.node_ids import BadNodeId, parse


@pytest.mark.parametrize(
    ("text", "namespace", "kind", "identifier"),
    [
        ("i=2258", 0, "i", 2258),
        ("ns=3;i=1001", 3, "i", 1001),
        ("ns=2;s=Press.Speed", 2, "s", "Press.Speed"),
        ('nsu=http://vendor.example/cnc;s="Spindle"."Speed"', "http://vendor.example/cnc", "s", '"Spindle"."Speed"'),
        ("ns=2;s=a;b=c=d", 2, "s", "a;b=c=d"),
        ("ns=2;s=速度", 2, "s", "速度"),
        ("nsu=urn:a%3Bb%25c;i=1", "urn:a;b%c", "i", 1),
        (
            "ns=1;g=72962B91-FA75-4AE6-8D28-B404DC7DAF63",
            1,
            "g",
            uuid.UUID("72962b91-fa75-4ae6-8d28-b404dc7daf63"),
        ),
        ("ns=1;b=AP8=", 1, "b", b"\x00\xff"),
        ("  i=85 ", 0, "i", 85),
    ],
)
def test_reads_every_form(text: str, namespace: str | int, kind: str, identifier: object) -> None:
    address = parse(text)
    assert (address.namespace, address.kind, address.identifier) == (namespace, kind, identifier)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Speed",
        "2:Speed",
        "ns=2;Speed",
        "ns=65536;i=1",
        "ns=-1;i=1",
        "ns=x;i=1",
        "ns=2;i=4294967296",
        "ns=2;i=-1",
        "ns=2;i=1.5",
        "ns=2;i=１",
        "ns=2;s=",
        "ns=2;g=123",
        "ns=2;b=***",
        "svr=1;ns=2;s=a",
        "ns=2;nsu=urn:a;s=b",
        "s=" + "x" * 4097,
    ],
)
def test_refuses_what_is_none(text: str) -> None:
    with pytest.raises(BadNodeId):
        parse(text)


def test_an_unknown_namespace_is_never_another_one() -> None:
    namespaces = ["http://opcfoundation.org/UA/", "urn:server", "urn:b", "urn:a"]
    assert parse("nsu=urn:a;s=x").index(namespaces) == 3
    assert parse("nsu=urn:A;s=x").index(namespaces) is None
    assert parse("nsu=urn:a ;s=x").index(namespaces) is None
    assert parse("ns=9;s=x").index(namespaces) == 9


@settings(max_examples=150)
@given(
    st.one_of(
        st.tuples(st.just("i"), st.integers(0, 2**32 - 1)),
        st.tuples(st.just("s"), st.text(min_size=1).filter(lambda text: text.strip() == text)),
        st.tuples(st.just("g"), st.uuids()),
        st.tuples(st.just("b"), st.binary(min_size=1)),
    ),
    st.one_of(st.integers(0, 65535), st.text(st.characters(exclude_characters=";", codec="utf-8"), min_size=1)),
)
def test_what_is_written_is_read(form: tuple[str, int | str | uuid.UUID | bytes], namespace: int | str) -> None:
    kind, identifier = form
    shown = base64.b64encode(identifier).decode() if isinstance(identifier, bytes) else identifier
    where = f"ns={namespace}" if isinstance(namespace, int) else f"nsu={namespace.replace('%', '%25')}"
    address = parse(f"{where};{kind}={shown}")
    assert (address.namespace, address.kind, address.identifier) == (namespace, kind, identifier)


@settings(max_examples=150)
@given(st.text())
def test_any_text_is_an_address_or_refused_with_words(text: str) -> None:
    with contextlib.suppress(BadNodeId):
        assert parse(text).text == text.strip()
