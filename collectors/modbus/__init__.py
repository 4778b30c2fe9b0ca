"""PLCs, meters and inverters over Modbus TCP: function codes 1 to 4, never a write.

`TYPE` is what the registry names. May import: `collectors.api`, the light modules of this package; `collector.py`,
and with it pymodbus, only when a collector is made.
"""

from __future__ import annotations

from collectors.api import Collector, CollectorType, Context
from collectors.modbus.config import ModbusConfig
from collectors.modbus.estimate import estimate, explain


def create(config: ModbusConfig, context: Context) -> Collector:
    """Make the collector of this device; it shares the connection with the others of its address."""
    from collectors.modbus.collector import ModbusCollector

    return ModbusCollector(config, context)


TYPE = CollectorType(name="modbus", config_model=ModbusConfig, create=create, estimate=estimate, explain=explain)
