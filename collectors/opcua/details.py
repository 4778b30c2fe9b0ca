"""What a server tells of a variable beside its value: the texts of an enumeration, range, unit.

Promises: a server that tells none of it, or nonsense, is no error: there is nothing then.

May import: `collectors.api`, `collectors.opcua.services`.
Source: OPC UA Part 8, 5.3 (DataItem, AnalogItem, MultiStateDiscrete, TwoStateDiscrete); Part 3, 8.14 (EnumStrings).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Final

from collectors.api import Unavailable
from collectors.opcua.services import Services

_DATA_TYPE: Final = 14
_DATA_TYPE_DEFINITION: Final = 23


async def properties(services: Services, nodes: Sequence[Any], name: str) -> list[Any]:
    """Return the value of a standard property of each node, None where there is none."""
    ua = services.session.ua
    wanted = [ua.QualifiedName(name, 0)]
    try:
        targets = await services.translate([(node, wanted) for node in nodes])
    except Unavailable as error:
        if error.cause != "session_refused":
            raise
        return [None] * len(nodes)
    found = [plain(ua, nodes[0]) for _, nodes in targets if nodes]
    values = iter([content(value) for value in await services.read(found)] if found else ())
    return [next(values) if nodes else None for _, nodes in targets]


async def enumerations(services: Services, nodes: Sequence[Any]) -> list[Mapping[int, str] | None]:
    """Return the texts of each variable's numbers, None where the server tells none."""
    ua = services.session.ua
    texts: list[Mapping[int, str] | None] = await _texts(services, nodes)
    states = await properties(services, nodes, "TrueState"), await properties(services, nodes, "FalseState")
    for at, (true, false) in enumerate(zip(*states, strict=True)):
        if texts[at] is None and true is not None and false is not None:
            texts[at] = {1: _text(true), 0: _text(false)}
    missing = [at for at, known in enumerate(texts) if known is None]
    if not missing:
        return texts
    types = [content(value) for value in await services.read([nodes[at] for at in missing], _DATA_TYPE)]
    unique = [node for node in dict.fromkeys(types) if isinstance(node, ua.NodeId)]
    of_type = dict(zip(unique, await _texts(services, unique), strict=True)) if unique else {}
    undefined = [node for node in unique if of_type[node] is None]
    if undefined:
        definitions = await services.read(undefined, _DATA_TYPE_DEFINITION)
        of_type |= {
            node: _from_fields(getattr(content(value), "Fields", None))
            for node, value in zip(undefined, definitions, strict=True)
        }
    for at, node in zip(missing, types, strict=True):
        texts[at] = of_type.get(node)
    return texts


async def ranges(services: Services, nodes: Sequence[Any]) -> list[float | None]:
    """Return how wide the range (EURange) of each variable is, None where there is none."""
    widths: list[float | None] = []
    for found in await properties(services, nodes, "EURange"):
        low, high = getattr(found, "Low", None), getattr(found, "High", None)
        width = high - low if isinstance(low, int | float) and isinstance(high, int | float) else 0.0
        widths.append(width if isfinite(width) and width > 0 else None)
    return widths


async def units(services: Services, nodes: Sequence[Any]) -> list[str | None]:
    """Return the unit of each variable as the server writes it."""
    return [
        _text(getattr(found, "DisplayName", None)) or None
        for found in await properties(services, nodes, "EngineeringUnits")
    ]


def plain(ua: Any, target: Any) -> Any:
    """The node id in what may be an expanded one of this server."""
    return ua.NodeId(target.Identifier, target.NamespaceIndex, target.NodeIdType)


async def _texts(services: Services, nodes: Sequence[Any]) -> list[Mapping[int, str] | None]:
    strings = await properties(services, nodes, "EnumStrings")
    values = await properties(services, nodes, "EnumValues")
    return [
        dict(enumerate(map(_text, of_strings))) if isinstance(of_strings, list) else _from_fields(of_values)
        for of_strings, of_values in zip(strings, values, strict=True)
    ]


def _from_fields(fields: Any) -> Mapping[int, str] | None:
    """Of EnumValueType or EnumField objects."""
    if not isinstance(fields, list):
        return None
    texts = {
        field.Value: _text(getattr(field, "DisplayName", None)) or str(getattr(field, "Name", "") or "")
        for field in fields
        if isinstance(getattr(field, "Value", None), int)
    }
    return texts or None


def _text(localized: Any) -> str:
    return str(getattr(localized, "Text", None) or "")


def content(data_value: Any) -> Any:
    """The value in a data value, None if it is bad."""
    bad = data_value.StatusCode is not None and data_value.StatusCode.value >> 30 >= 2
    return None if bad or data_value.Value is None else data_value.Value.Value
