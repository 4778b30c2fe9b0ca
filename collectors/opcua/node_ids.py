"""Node ids as people write them: text -> namespace and identifier -> index on the server of this session.

`nsu=http://vendor/cnc;s=Speed` names the namespace by its URI and stays right when the server orders its namespaces
anew; `ns=2;s=Speed` names it by its index of today. Promises: a text that could be read in two ways is refused, and an
address whose namespace the server does not know resolves to nothing, never to another namespace. Pure.

May import: the standard library.
Source: OPC UA Part 6, 5.3.1.11 (text form of ExpandedNodeId).
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["i", "s", "g", "b"]
"""Numeric, string, GUID, opaque bytes."""

_FORM = re.compile(r"(?:ns=(?P<ns>\d{1,5});|nsu=(?P<nsu>[^;]+);)?(?P<kind>[isgb])=(?P<id>.+)", re.DOTALL)
_EXAMPLES = "nsu=http://vendor.example/cnc;s=Speed, ns=2;s=Speed or i=2258"
MAX_IDENTIFIER = 4096
"""Characters of a string identifier (OPC UA Part 3, 8.2.4)."""


class BadNodeId(ValueError):
    """The text is no node id; says what was expected."""


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """A node as configured.

    Attributes:
        text: as the person wrote it.
        namespace: URI, or index 0..65535.
        kind: how to read `identifier`.
        identifier: number 0..2^32-1, text, GUID or bytes.
    """

    text: str
    namespace: str | int
    kind: Kind
    identifier: int | str | uuid.UUID | bytes

    def index(self, namespaces: Sequence[str | None]) -> int | None:
        """The namespace's index on a server with this namespace array; None if the server does not know it."""
        if isinstance(self.namespace, int):
            return self.namespace
        try:
            return namespaces.index(self.namespace)
        except ValueError:
            return None


def parse(text: str) -> NodeAddress:
    """Read a node id.

    Raises:
        BadNodeId: the text is none; the message is for people.
    """
    stripped = text.strip()
    if re.match(r"(?:svr|srv)=", stripped):
        raise BadNodeId("nodes of another server (svr=) cannot be read: connect to that server instead")
    match = _FORM.fullmatch(stripped)
    if match is None:
        raise BadNodeId(f"expected a node id such as {_EXAMPLES}")
    namespace: str | int = 0
    if match["ns"] is not None:
        namespace = int(match["ns"])
        if namespace > 0xFFFF:
            raise BadNodeId("a namespace index is 0 to 65535")
    elif match["nsu"] is not None:
        # Part 6 escapes exactly these two in the URI, so that the first ';' ends it.
        namespace = match["nsu"].replace("%3B", ";").replace("%3b", ";").replace("%25", "%")
    kind: Kind = match["kind"]  # type: ignore[assignment]  # the pattern allows these four letters only
    return NodeAddress(stripped, namespace, kind, _identifier(kind, match["id"]))


def _identifier(kind: Kind, text: str) -> int | str | uuid.UUID | bytes:
    if kind == "s":
        if len(text) > MAX_IDENTIFIER:
            raise BadNodeId(f"a string identifier has at most {MAX_IDENTIFIER} characters")
        return text
    try:
        if kind == "i":
            if not (text.isascii() and text.isdigit()) or int(text) > 0xFFFF_FFFF:
                raise BadNodeId("i= is followed by a number from 0 to 4294967295")
            return int(text)
        return uuid.UUID(text) if kind == "g" else base64.b64decode(text, validate=True)
    except binascii.Error:
        raise BadNodeId("b= is followed by bytes in base64") from None
    except ValueError as error:
        if isinstance(error, BadNodeId):
            raise
        raise BadNodeId("g= is followed by a GUID such as 72962b91-fa75-4ae6-8d28-b404dc7daf63") from None
