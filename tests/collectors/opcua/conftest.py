"""One OPC UA server for all tests of this directory: starting it takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.opcua import OpcuaServer

NODES = {
    "speed": 1.5,
    "count": {"value": 7, "type": "Int32"},
    "temperature": {"value": 23.4, "type": "Float"},
    "boolean": True,
    "sbyte": {"value": -8, "type": "SByte"},
    "byte": {"value": 200, "type": "Byte"},
    "int16": {"value": -30000, "type": "Int16"},
    "uint16": {"value": 60000, "type": "UInt16"},
    "uint32": {"value": 4_000_000_000, "type": "UInt32"},
    "int64": {"value": -(2**60), "type": "Int64"},
    "uint64": {"value": 2**60, "type": "UInt64"},
    "nan": {"value": float("nan"), "type": "Double"},
    "text": "三号冲床",
    "localized": {"value": "läuft", "type": "LocalizedText"},
    "qualified": {"value": "Speed", "type": "QualifiedName"},
    "when": {"value": "2026-11-23T18:00:00.123456+00:00", "type": "DateTime"},
    "guid": {"value": "72962b91-fa75-4ae6-8d28-b404dc7daf63", "type": "Guid"},
    "nodeid": {"value": "ns=2;s=a", "type": "NodeId"},
    "bytes": {"value": "00ff", "type": "ByteString"},
    "array": {"value": [1, 2, 3], "type": "Int32"},
    "none": {"value": None, "type": "Null"},
    "removed": 1.0,
    "other": 2.0,
}


@pytest.fixture(scope="session")
def server() -> Iterator[OpcuaServer]:
    """The server; tests put back what they change but values."""
    with OpcuaServer(NODES) as running:
        yield running
