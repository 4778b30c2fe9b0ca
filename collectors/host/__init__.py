"""The gateway itself as a device: load, memory, disks, network, temperatures, clock.

`TYPE` is what the registry names. May import: `collectors.api`, the light modules of this package; `collector.py`
only when a collector is made.
"""

from __future__ import annotations

from collectors.api import Collector, CollectorType, Context
from collectors.host.config import HostConfig, estimate, explain


def create(config: HostConfig, context: Context) -> Collector:
    """Make the collector of this device; it shares nothing with others."""
    from collectors.host.collector import HostCollector

    return HostCollector(config)


TYPE = CollectorType(name="host", config_model=HostConfig, create=create, estimate=estimate, explain=explain)
