"""OPC UA: subscriptions to variables of a server. Importing this loads the configuration model only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from collectors.api import BrowseEntry, BrowseWish, Collector, CollectorType, Context
from collectors.certificates import Certificates
from collectors.opcua.config import OpcuaConfig, estimate, explain


def _create(config: OpcuaConfig, context: Context) -> Collector:
    if config.collect == "poll":
        from collectors.opcua.poller import OpcuaPoller

        return OpcuaPoller(config, context)
    from collectors.opcua.collector import OpcuaCollector

    return OpcuaCollector(config, context)


def _certificates(state_dir: Path) -> Certificates:
    from collectors.opcua.certificates import OpcuaCertificates

    return OpcuaCertificates(state_dir)


def _browse(config: OpcuaConfig, context: Context, wish: BrowseWish) -> AsyncIterator[BrowseEntry]:
    from collectors.opcua.browse import browse

    return browse(config, context, wish)


TYPE = CollectorType("opcua", OpcuaConfig, _create, estimate, explain, _certificates, _browse)
