"""The OPC UA server of `tests.servers.opcua` with the manners of small and of broken servers, and a tree to browse.

    with OddServer({"speed": 1.5}) as server:
        server.odd(limits={"monitor": 3})            # more in a call: BadTooManyOperations
        server.odd(mute=["speed"])                   # accepted, and never sent
        server.odd()                                 # decent again

The tree: /Objects/Line/{Press1,Press2}/{Speed,State,Mode,Label}, Speed with EURange 0..200 and EngineeringUnits, State
of a data type with EnumStrings, all in the namespace `URI`; and Line/Profile, an array.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tests.servers.opcua import OpcuaServer, Plant, serve

CALLS = {
    "monitor": ("create_monitored_items", "ItemsToCreate"),
    "read": ("read", "NodesToRead"),
    "browse": ("browse", "NodesToBrowse"),
    "translate": ("translate_browsepaths_to_nodeids", ""),
}
STATES = ("idle", "running", "故障")


class OddServer(OpcuaServer):
    """See the module."""

    module: ClassVar[str] = "tests.servers.opcua_odd"

    def odd(
        self,
        *,
        limits: Mapping[str, int] | None = None,
        poison: Sequence[str] = (),
        mute: Sequence[str] = (),
        no_filter: bool = False,
        no_subscriptions: bool = False,
        no_translate: bool = False,
        sessions: int | None = None,
        counts_keepalives: bool = False,
        slow_reads_s: float = 0.0,
        slow_monitor_s: float = 0.0,
    ) -> None:
        """Behave so from now on.

        Args:
            limits: most operations in a call, by service; more is BadTooManyOperations, however many it announces.
            poison: variables that make a call that monitors them fail as a whole.
            mute: variables that are monitored and never sent.
            no_filter: items with a filter are refused.
            no_subscriptions, no_translate: the service is not there.
            sessions: with so many open, another one is refused.
            counts_keepalives: keep-alives use up a number, which they must not.
            slow_reads_s, slow_monitor_s: so long it takes to answer a read, or to monitor the nodes of a call.
        """
        self.call(
            "odd",
            limits=dict(limits or {}),
            poison=list(poison),
            mute=list(mute),
            no_filter=no_filter,
            no_subscriptions=no_subscriptions,
            no_translate=no_translate,
            sessions=sessions,
            counts_keepalives=counts_keepalives,
            slow_reads_s=slow_reads_s,
            slow_monitor_s=slow_monitor_s,
        )

    def calls(self) -> dict[str, list[int]]:
        """Operations in each call since `odd`, by service."""
        found: dict[str, list[int]] = self.call("calls")
        return found

    def lose(self, name: str, value: Any, *, kept: bool) -> None:
        """Write a variable, and lose the message that tells it; `kept`: it can be asked for again."""
        self.call("lose", name=name, value=value, kept=kept)

    def drop_subscriptions(self) -> None:
        """Delete every subscription without a word."""
        self.call("drop_subscriptions")

    def deafen(self, name: str) -> None:
        """Monitor a variable no longer, and tell nobody."""
        self.call("deafen", name=name)

    def filters(self) -> list[float]:
        """Deadbands that clients asked for since `odd`."""
        found: list[float] = self.call("filters")
        return found

    def grow(self, press: str) -> None:
        """Add a press to the line."""
        self.call("grow", press=press)


class _Odd(Plant):
    """The child's side."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._how: dict[str, Any] = {}
        self._calls: dict[str, list[int]] = {}
        self._filters: list[float] = []
        self._line: Any = None
        self._state_type: Any = None
        self._wrap()

    async def do_start(self, nodes: Mapping[str, Any], shuffle: int) -> None:
        await super().do_start(nodes, shuffle)
        if self._line is None:
            await self._plant_tree()

    async def do_odd(self, **how: Any) -> None:
        self._how = how
        self._calls, self._filters = {}, []

    async def do_calls(self) -> dict[str, list[int]]:
        return self._calls

    async def do_filters(self) -> list[float]:
        return self._filters

    async def do_drop_subscriptions(self) -> None:
        service = self._server.iserver.subscription_service
        for subscription in list(service.subscriptions.values()):
            await subscription.stop()
        service.subscriptions.clear()

    async def do_deafen(self, name: str) -> None:
        for subscription in self._server.iserver.subscription_service.subscriptions.values():
            service = subscription.monitored_item_srv
            deaf = [at for at, item in service._monitored_items.items() if item.read_value_id.NodeId.Identifier == name]
            service.delete_monitored_items(deaf)

    async def do_lose(self, name: str, value: Any, kept: bool) -> None:
        for subscription in self._server.iserver.subscription_service.subscriptions.values():
            await self._write(name, value, self._types[name], 0, None, None)
            lost = subscription._pop_publish_result()
            assert lost.NotificationMessage.NotificationData, "nothing was lost"
            if not kept:
                subscription._not_acknowledged_results.pop(lost.NotificationMessage.SequenceNumber, None)

    async def do_index(self) -> int:
        return self._index

    async def do_grow(self, press: str) -> None:
        ua, index = self.ua, self._index
        folder = await self._line.add_object(ua.NodeId(f"{press}", index), ua.QualifiedName(press, index))
        speed = await self._variable(folder, press, "Speed", 100.0)
        await speed.add_property(
            ua.NodeId(f"{press}.range", index),
            ua.QualifiedName("EURange", 0),
            ua.Variant(ua.Range(Low=0.0, High=200.0), ua.VariantType.ExtensionObject),
        )
        unit = ua.EUInformation(NamespaceUri="urn:units", UnitId=1, DisplayName=ua.LocalizedText("mm/s"))
        await speed.add_property(
            ua.NodeId(f"{press}.unit", index),
            ua.QualifiedName("EngineeringUnits", 0),
            ua.Variant(unit, ua.VariantType.ExtensionObject),
        )
        await folder.add_variable(
            ua.NodeId(f"{press}.State", index),
            ua.QualifiedName("State", index),
            ua.Variant(1, ua.VariantType.Int32),
            datatype=self._state_type.nodeid,
        )
        await self._variable(folder, press, "Mode", 2)
        await self._variable(folder, press, "标签", "冲床")

    async def _variable(self, folder: Any, press: str, name: str, value: Any) -> Any:
        ua, index = self.ua, self._index
        self._types[f"{press}.{name}"] = ua.Variant(value).VariantType
        return await folder.add_variable(ua.NodeId(f"{press}.{name}", index), ua.QualifiedName(name, index), value)

    async def _plant_tree(self) -> None:
        ua, index = self.ua, self._index
        base = self._server.get_node(ua.ObjectIds.Enumeration)
        self._state_type = await base.add_data_type(ua.NodeId("StateType", index), ua.QualifiedName("StateType", index))
        texts = [ua.LocalizedText(text) for text in STATES]
        await self._state_type.add_property(
            ua.NodeId("StateType.texts", index), ua.QualifiedName("EnumStrings", 0), texts
        )
        objects = self._server.nodes.objects
        self._line = await objects.add_object(ua.NodeId("Line", index), ua.QualifiedName("Line", index))
        for press in ("Press1", "Press2"):
            await self.do_grow(press)
        await self._line.add_variable(
            ua.NodeId("Profile", index), ua.QualifiedName("Profile", index), ua.Variant([1.5, 2.5, 3.5])
        )

    def _wrap(self) -> None:
        from asyncua.server.internal_session import InternalSession
        from asyncua.server.internal_subscription import InternalSubscription

        for service, (method, field) in CALLS.items():
            setattr(InternalSession, method, self._limited(service, getattr(InternalSession, method), field))
        real_subscribe = InternalSession.create_subscription
        real_create = InternalSession.create_session
        real_pop = InternalSubscription._pop_publish_result
        plant = self

        async def create_subscription(session: Any, *args: Any, **kwargs: Any) -> Any:
            if plant._how.get("no_subscriptions"):
                raise plant._fault("BadServiceUnsupported")
            return await real_subscribe(session, *args, **kwargs)

        async def create_session(session: Any, *args: Any, **kwargs: Any) -> Any:
            most = plant._how.get("sessions")
            if most is not None and session.external and len(plant._server.iserver._external_sessions) >= most:
                raise plant._fault("BadTooManySessions")
            return await real_create(session, *args, **kwargs)

        def pop(subscription: Any) -> Any:
            result = real_pop(subscription)
            if plant._how.get("counts_keepalives") and not result.NotificationMessage.NotificationData:
                subscription._notification_seq += 1
            return result

        InternalSession.create_subscription = create_subscription
        InternalSession.create_session = create_session
        InternalSubscription._pop_publish_result = pop

    def _limited(self, service: str, real: Any, field: str) -> Any:
        plant = self

        async def method(session: Any, params: Any) -> Any:
            if not session.external:
                return await real(session, params)
            operations = getattr(params, field) if field else params
            plant._calls.setdefault(service, []).append(len(operations))
            if len(operations) > plant._how.get("limits", {}).get(service, 1 << 30):
                raise plant._fault("BadTooManyOperations")
            if service == "translate" and plant._how.get("no_translate"):
                raise plant._fault("BadServiceUnsupported")
            if service in {"read", "monitor"}:
                await asyncio.sleep(plant._how.get({"read": "slow_reads_s"}.get(service, "slow_monitor_s"), 0.0))
            if service != "monitor":
                return await real(session, params)
            return await plant._monitor(session, params, real)

        return method

    async def _monitor(self, session: Any, params: Any, real: Any) -> Any:
        ua, how = self.ua, self._how
        names = [item.ItemToMonitor.NodeId.Identifier for item in params.ItemsToCreate]
        if set(names) & set(how.get("poison", ())):
            raise self._fault("BadInternalError")
        results = await real(session, params)
        service = self._server.iserver.subscription_service.subscriptions[params.SubscriptionId].monitored_item_srv
        for name, item, result in zip(names, params.ItemsToCreate, results, strict=True):
            wanted = item.RequestedParameters.Filter
            if type(wanted).__name__ == "DataChangeFilter":
                self._filters.append(wanted.DeadbandValue)
                if how.get("no_filter"):
                    service.delete_monitored_items([result.MonitoredItemId])
                    result.StatusCode = ua.StatusCode(ua.StatusCodes.BadFilterNotAllowed)
            if name in how.get("mute", ()):
                service.delete_monitored_items([result.MonitoredItemId])
                service.isub._triggered_datachanges.pop(result.MonitoredItemId, None)
        return results

    def _fault(self, name: str) -> Any:
        return self.ua.UaStatusCodeError(getattr(self.ua.StatusCodes, name))


if __name__ == "__main__":
    asyncio.run(serve(_Odd(int(sys.argv[1]))))
