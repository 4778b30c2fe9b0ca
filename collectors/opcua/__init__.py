"""OPC UA: subscriptions to variables of a server. Importing this loads the configuration model only."""

from __future__ import annotations

from collectors.api import Collector, CollectorType, Context
from collectors.opcua.config import OpcuaConfig, estimate, explain


def _create(config: OpcuaConfig, context: Context) -> Collector:
    if config.collect == "poll":
        from collectors.opcua.poller import OpcuaPoller

        return OpcuaPoller(config, context)
    from collectors.opcua.collector import OpcuaCollector

    return OpcuaCollector(config, context)


TYPE = CollectorType("opcua", OpcuaConfig, _create, estimate, explain)
