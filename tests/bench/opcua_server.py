"""An OPC UA server whose variables all change every interval. Its own cost is considerable, and not measured.

    python -m tests.bench.opcua_server NODES INTERVAL [CERTIFICATE KEY]

With a certificate (DER) and its key (PEM) it offers the sound policies alone. Prints its port; ends when standard input
closes. Variables are `nsu=urn:bench;s=n0`, `n1`, ... (Double).
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

URI = "urn:bench"


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def serve(nodes: int, interval: float, certificate: str | None = None, key: str | None = None) -> None:
    from asyncua import Server, ua

    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    server = Server()
    await server.init()
    port = free_port()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}")
    if certificate is None or key is None:
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    else:
        server.set_security_policy([kind for kind in ua.SecurityPolicyType if "Sha256" in kind.name])
        await server.load_certificate(Path(certificate), "der")
        await server.load_private_key(Path(key), None, "pem")
    index = await server.register_namespace(URI)
    ids = [ua.NodeId(f"n{at}", index) for at in range(nodes)]
    for at, node_id in enumerate(ids):
        await server.nodes.objects.add_variable(node_id, ua.QualifiedName(f"n{at}", index), 0.0)
    space = server.iserver.aspace
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    async with server:
        print(json.dumps([port]), flush=True)
        due, number = time.monotonic(), 0
        while not ended.is_set():
            number += 1
            now = datetime.now(UTC)
            for at, node_id in enumerate(ids):
                value = ua.Variant(number + at / 1000, ua.VariantType.Double)
                data = ua.DataValue(value, SourceTimestamp=now, ServerTimestamp=now)
                await space.write_attribute_value(node_id, ua.AttributeIds.Value, data)
            due += interval
            await asyncio.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]), *sys.argv[3:5]))
