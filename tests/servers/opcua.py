"""A real OPC UA server (asyncua) in a child process on a free loopback port, driven line by line over its stdin.

    with OpcuaServer({"speed": 1.5, "count": 7}) as server:
        server.set("speed", 2.5)
        server.restart(shuffle=True)        # same port, the namespaces in another order

Starting takes two or three seconds, a restart less: share one in a module or session fixture. Every node exists more
than once, as `nsu=urn:test:plant;s=NAME` and, with the value of `DECOY`, in the namespaces that change places with it
on a shuffle: a reader that keeps a namespace index reads decoys. What asyncua's own server hides: it does not sample;
its deadband compares with the last sample; it never sets the overflow bit; and nobody is told when a node is deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from tests.servers.child import ServerProcess, obey

URI = "urn:test:plant"
DECOYS = ("urn:test:decoy-1", "urn:test:decoy-2", "urn:test:decoy-3")
DECOY = -999


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class OpcuaServer(ServerProcess):
    """A server process with variables.

    Args:
        nodes: name -> first value, or `{"value": ..., "type": "Float"}` with a built-in type's name.
        port: default a free one.

    Attributes:
        module: what the child runs.
    """

    module: ClassVar[str] = "tests.servers.opcua"

    def __init__(self, nodes: Mapping[str, Any], port: int | None = None) -> None:
        super().__init__()
        self.port = port if port is not None else free_port()
        self.nodes = dict(nodes)

    @property
    def url(self) -> str:
        """As in the configuration."""
        return f"opc.tcp://127.0.0.1:{self.port}"

    @staticmethod
    def node(name: str) -> str:
        """The node id of a variable, good for ever."""
        return f"nsu={URI};s={name}"

    def start(self) -> None:
        """Start the process and wait until the server listens."""
        self.spawn([sys.executable, "-m", self.module, str(self.port)])
        self.call("start", nodes=self.nodes, shuffle=0)

    def restart(self, *, shuffle: bool = False, nodes: Mapping[str, Any] | None = None) -> None:
        """Stop the server (its clients are disconnected) and start it anew on the same port."""
        if nodes is not None:
            self.nodes = dict(nodes)
        self.call("stop")
        self.call("start", nodes=self.nodes, shuffle=random.randrange(1, 1 << 30) if shuffle else 0)

    def stop(self) -> None:
        """Stop the server; the process stays, for `start_again`."""
        self.call("stop")

    def start_again(self) -> None:
        """After `stop`."""
        self.call("start", nodes=self.nodes, shuffle=0)

    def set(
        self,
        name: str,
        value: Any = None,
        *,
        status: int = 0,
        source_ms: int | None = None,
        server_ms: int | None = None,
    ) -> None:
        """Write a variable.

        Args:
            name: of the variable.
            value: JSON value; hex text for ByteString, ISO text for DateTime.
            status: OPC UA status code.
            source_ms: source time, default now.
            server_ms: server time, default now.
        """
        self.call("set", name=name, value=value, status=status, source_ms=source_ms, server_ms=server_ms)

    def set_many(self, name: str, values: list[Any]) -> None:
        """Write several values so fast that they come in one notification."""
        self.call("set_many", name=name, values=values)

    def change(self, names: list[str], every_s: float) -> None:
        """Count these variables up every so often, from now until `still`."""
        self.call("change", names=names, every_s=every_s)

    def still(self) -> int:
        """End `change`; returns how many values were written."""
        return int(self.call("still"))

    def remove(self, name: str) -> None:
        """Delete a variable."""
        self.call("remove", name=name)

    def add(self, name: str, value: Any) -> None:
        """Make a variable."""
        self.call("add", name=name, value=value)

    def clock(self, offset_s: float) -> None:
        """Let the server's clock be off by so much (positive = ahead)."""
        self.call("clock", offset_s=offset_s)

    def channels(self, life_s: float) -> None:
        """Let no secure channel live longer from now on before it is renewed."""
        self.call("channels", life_s=life_s)

    def renewals(self) -> int:
        """How often channels were renewed since `channels`."""
        return int(self.call("renewals"))

    def publishing(self, on: bool) -> None:
        """Let the server stop to publish anything, keep-alives included, while it answers all else."""
        self.call("publishing", on=on)

    def sessions(self) -> int:
        """How many sessions the server holds."""
        return int(self.call("sessions"))


class Plant:
    """The child's side."""

    def __init__(self, port: int) -> None:
        import asyncua
        from asyncua import ua
        from asyncua.ua import uaprotocol_auto

        self.ua: Any = ua
        self._asyncua: Any = asyncua
        self._port = port
        self._server: Any = None
        self._index = 0
        self._own = 0
        self._made: list[Any] = []
        self._types: dict[str, Any] = {}
        self._changing: asyncio.Task[None] | None = None
        self._written = 0
        self._offset_s = 0.0
        self._renewals = 0
        self._shift_clock(uaprotocol_auto)

    def _shift_clock(self, module: Any) -> None:
        """The times in response headers and messages come from the `datetime` of this module."""
        real = module.datetime
        plant = self

        class Shifted(real):  # type: ignore[misc, valid-type]  # the library's datetime is not typed
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                from datetime import timedelta

                return real.now(tz) + timedelta(seconds=plant._offset_s)

        module.datetime = Shifted

    async def do_start(self, nodes: Mapping[str, Any], shuffle: int) -> None:
        ua = self.ua
        uris = [URI, *DECOYS]
        if shuffle:
            # Never back to the first place, so that an index that was kept is wrong for sure.
            dice = random.Random(shuffle)
            first = dice.choice(DECOYS)
            uris = [first, *dice.sample([uri for uri in uris if uri != first], len(DECOYS))]
        again = self._server is not None
        if not again:
            self._server = self._asyncua.Server()
            await self._server.init()
            self._server.set_endpoint(f"opc.tcp://127.0.0.1:{self._port}")
            await self.secure()
        array = self._server.nodes.namespace_array
        known = await array.read_value()
        self._own = self._own or len(known)
        await array.write_value([*known[: self._own], *uris])
        self._index = self._own + uris.index(URI)
        self._types = {}
        for name, value in nodes.items():
            await self.do_add(name, value)
            for uri in DECOYS:
                decoy = self._own + uris.index(uri)
                self._made.append(
                    await self._server.nodes.objects.add_variable(
                        ua.NodeId(name, decoy), ua.QualifiedName(name, decoy), DECOY
                    )
                )
        if again:
            await self._listen_again()
        else:
            await self._server.start()

    async def secure(self) -> None:
        """Set policies, certificates and users, before the server starts for the first time."""
        self._server.set_security_policy([self.ua.SecurityPolicyType.NoSecurity])

    async def _listen_again(self) -> None:
        """What `Server.start` does, without making the address space anew, which takes seconds."""
        from asyncua.server.binary_server_asyncio import BinaryServer

        server = self._server
        server.bserver = BinaryServer(server.iserver, "127.0.0.1", self._port, server.limits)
        server.bserver.set_policies(server._policies)
        await server.bserver.start()

    async def do_stop(self) -> None:
        """Stop as a restart does: connections end, sessions, subscriptions and our nodes are forgotten."""
        await self.do_still()
        inner = self._server.iserver
        await self._server.bserver.stop()
        for session in list(inner._external_sessions.values()):
            await session.close_session()
        await inner.subscription_service.delete_subscriptions(list(inner.subscription_service.subscriptions))
        # Server.delete_nodes looks through the whole address space for each of them: more than a second.
        space, made = inner.aspace._nodes, {node.nodeid for node in self._made}
        for node_id in made:
            del space[node_id]
        objects = space[self._server.nodes.objects.nodeid]
        objects.references = [reference for reference in objects.references if reference.NodeId not in made]
        self._made = []

    async def do_add(self, name: str, value: Any) -> None:
        ua = self.ua
        kind = None
        if isinstance(value, dict):
            kind, value = ua.VariantType[value["type"]], value["value"]
        variant = ua.Variant(self._python(value, kind), kind)
        self._types[name] = variant.VariantType
        node_id = ua.NodeId(name, self._index)
        self._made.append(
            await self._server.nodes.objects.add_variable(node_id, ua.QualifiedName(name, self._index), variant)
        )

    async def do_remove(self, name: str) -> None:
        node = self._server.get_node(self.ua.NodeId(name, self._index))
        self._made.remove(node)
        await self._server.delete_nodes([node])

    async def do_set(self, name: str, value: Any, status: int, source_ms: int | None, server_ms: int | None) -> None:
        kind = self._types[name]
        await self._write(name, self._python(value, kind), kind, status, source_ms, server_ms)

    async def do_set_many(self, name: str, values: list[Any]) -> None:
        for value in values:
            await self._write(name, value, self._types[name], 0, None, None)

    async def do_change(self, names: list[str], every_s: float) -> None:
        await self.do_still()
        self._written = 0
        self._changing = asyncio.create_task(self._change(names, every_s))

    async def do_still(self) -> int:
        if self._changing is not None:
            self._changing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._changing
            self._changing = None
        return self._written

    async def do_clock(self, offset_s: float) -> None:
        self._offset_s = offset_s

    async def do_channels(self, life_s: float) -> None:
        from asyncua.common.connection import SecureConnection

        real, plant, renew = SecureConnection.open, self, self.ua.SecurityTokenRequestType.Renew

        def open_channel(connection: Any, params: Any, server: Any) -> Any:
            plant._renewals += params.RequestType == renew
            params.RequestedLifetime = min(params.RequestedLifetime, round(life_s * 1000))
            return real(connection, params, server)

        SecureConnection.open = open_channel
        self._renewals = 0

    async def do_renewals(self) -> int:
        return self._renewals

    async def do_publishing(self, on: bool) -> None:
        for subscription in self._server.iserver.subscription_service.subscriptions.values():
            if on:
                await subscription.start()
            else:
                subscription._task.cancel()

    async def do_sessions(self) -> int:
        return len(self._server.iserver._external_sessions)

    async def _change(self, names: list[str], every_s: float) -> None:
        due = asyncio.get_running_loop().time()
        number = 0
        while True:
            number += 1
            for name in names:
                await self._write(name, float(number), self.ua.VariantType.Double, 0, None, None)
                self._written += 1
            due += every_s
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))

    async def _write(
        self, name: str, value: Any, kind: Any, status: int, source_ms: int | None, server_ms: int | None
    ) -> None:
        from datetime import UTC, datetime

        ua = self.ua
        now = time.time()
        data = ua.DataValue(
            ua.Variant(value, kind),
            ua.StatusCode(status),
            SourceTimestamp=datetime.fromtimestamp(source_ms / 1000 if source_ms is not None else now, UTC),
            ServerTimestamp=datetime.fromtimestamp(server_ms / 1000 if server_ms is not None else now, UTC),
        )
        space, value = self._server.iserver.aspace, ua.AttributeIds.Value
        (await space.write_attribute_value(ua.NodeId(name, self._index), value, data)).check()

    def _python(self, value: Any, kind: Any) -> Any:
        import uuid
        from datetime import datetime

        ua = self.ua
        if kind == ua.VariantType.ByteString:
            return bytes.fromhex(value)
        if kind == ua.VariantType.DateTime:
            return datetime.fromisoformat(value)
        if kind == ua.VariantType.LocalizedText:
            return ua.LocalizedText(value)
        if kind == ua.VariantType.QualifiedName:
            return ua.QualifiedName(value, 0)
        if kind == ua.VariantType.Guid:
            return uuid.UUID(value)
        if kind == ua.VariantType.NodeId:
            return ua.NodeId.from_string(value)
        return value


async def serve(plant: Plant) -> None:
    """Do what the parent says until it is gone."""
    import logging

    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    await obey(lambda do: getattr(plant, f"do_{do}"))
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(serve(Plant(int(sys.argv[1]))))
