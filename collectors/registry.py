"""Device type -> where its `CollectorType` lives. Nothing is imported until a device of the type is configured.

Third parties register an entry point of group `shopfloor.collectors`; it loads only if `plugins:` names it.
May import: the standard library, `collectors.api`.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module

from collectors.api import CollectorType

BUILT_IN = {
    "modbus": "collectors.modbus:TYPE",
    "opcua": "collectors.opcua:TYPE",
    "host": "collectors.host:TYPE",
}
ENTRY_POINT_GROUP = "shopfloor.collectors"


class UnknownType(LookupError):
    """No collector of this name is built in or allowed by `plugins:`."""


def type_names(plugins: Collection[str] = ()) -> list[str]:
    """The device types that may be configured."""
    return [*BUILT_IN, *plugins]


def collector_type(name: str, plugins: Collection[str] = ()) -> CollectorType:
    """Load the type of this name.

    Raises:
        UnknownType: there is none, or `plugins` does not name it.
    """
    target = BUILT_IN.get(name)
    if target is not None:
        module, _, attribute = target.partition(":")
        found = getattr(import_module(module), attribute)
    elif name in plugins:
        from importlib.metadata import entry_points  # brings zipfile and email along

        points = entry_points(group=ENTRY_POINT_GROUP, name=name)
        if not points:
            raise UnknownType(name)
        found = next(iter(points)).load()
    else:
        raise UnknownType(name)
    if not isinstance(found, CollectorType):
        raise UnknownType(name)
    return found
