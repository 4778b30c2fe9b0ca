"""The configuration of one OPC UA tag: where it is, how it is sampled, what of it is published.

May import: `collectors.api`, `collectors.fields`, `collectors.opcua.{node_ids,paths}`, pydantic.
"""

from __future__ import annotations

import re
from dataclasses import replace
from math import ceil
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from collectors.api import TagInfo, TagRules
from collectors.fields import Duration, TagConfig
from collectors.opcua.node_ids import BadNodeId, NodeAddress, parse
from collectors.opcua.paths import BadPath, BrowsePath, parse_path

SHORTEST_INTERVAL_S = 0.05
"""Below it servers revise the interval, and milliseconds were taken for seconds (`interval: 0.001`)."""
LARGEST_QUEUE = 10_000
MOST_ELEMENTS = 200
"""Elements of an array that one tag may spread out."""

Element: TypeAlias = tuple[int, ...]
"""Index of one element of an array, a number for each dimension."""

_INDEX = re.compile(r"\d{1,7}(?:,\d{1,7})*|(?P<low>\d{1,7}):(?P<high>\d{1,7})")


class Percent(float):
    """A deadband in percent of the variable's range (EURange)."""


def _check_node(value: str) -> str:
    try:
        return parse(value).text
    except BadNodeId as error:
        raise PydanticCustomError("node", "{text}", {"text": str(error)}) from None


def _check_path(value: str) -> str:
    try:
        return parse_path(value).text
    except BadPath as error:
        raise PydanticCustomError("path", "{text}", {"text": str(error)}) from None


def _check_pattern(value: str) -> str:
    try:
        return parse_path(value, pattern=True).text
    except BadPath as error:
        raise PydanticCustomError("browse", "{text}", {"text": str(error)}) from None


def check_interval(value: float | None) -> float | None:
    """Refuse intervals that servers revise anyway."""
    if value is not None and value < SHORTEST_INTERVAL_S:
        raise PydanticCustomError("interval", "an interval of an OPC UA server is at least 50 ms")
    return value


def _deadband(value: Any, handler: ValidatorFunctionWrapHandler) -> float | None:
    if not isinstance(value, str):
        number: float | None = handler(value)
        return number
    match = re.fullmatch(r"\s*(\d{1,3}(?:\.\d+)?)\s*%\s*", value)
    if match is None or not 0 < float(match[1]) <= 100:
        raise PydanticCustomError("deadband", "expected a number, or 0 to 100 % of the variable's range, such as 2 %")
    return Percent(match[1])


def _index_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _check_index(value: str | None) -> str | None:
    if value is None:
        return None
    match = _INDEX.fullmatch(value)
    if match is None:
        raise PydanticCustomError(
            "index", "expected the index of an element such as 3, of a matrix such as 1,2, or a range such as 0:7"
        )
    if match["low"] is not None:
        count = int(match["high"]) - int(match["low"]) + 1
        if count < 2 or count > MOST_ELEMENTS:
            raise PydanticCustomError(
                "index", "a range goes up, and has at most {most} elements", {"most": MOST_ELEMENTS}
            )
    return value


class OpcuaTag(TagConfig):
    """A variable of the server, or with `browse` all that a pattern finds."""

    deadband: Annotated[
        float | None, Field(ge=0), WrapValidator(_deadband, json_schema_input_type=float | str | None)
    ] = Field(None, description="smallest change that is published; 2 % = of the variable's range (EURange)")
    node: Annotated[str, AfterValidator(_check_node)] | None = Field(
        None,
        description="node id: nsu=URI;s=NAME (kept right when the server renumbers), or ns=2;s=NAME, ns=2;i=5, i=2258",
    )
    path: Annotated[str, AfterValidator(_check_path)] | None = Field(
        None, description="instead of node: browse path, /Objects/2:Line/2:Speed, or by names /Objects/Line/Speed"
    )
    browse: Annotated[str, AfterValidator(_check_pattern)] | None = Field(
        None,
        description="instead of node: every variable that fits /Objects/Line/*/Speed (* and ? in a name, ** any depth);"
        " the tags are called NAME.Press1.Speed, and deadband, interval and the like are those of all",
    )
    index: Annotated[
        str | None, BeforeValidator(_index_text, json_schema_input_type=str | int | None), AfterValidator(_check_index)
    ] = Field(None, description="element of an array: 3, of a matrix 1,2; a range 0:7 makes the tags NAME.0 ... NAME.7")
    enum_text: bool = Field(False, description="publish the text of an enumeration instead of its number")
    interval: Annotated[Duration | None, AfterValidator(check_interval)] = Field(
        None, description="publishing interval, default that of the device"
    )
    sampling: Duration | None = Field(None, description="how often the server looks at it, default the interval")
    queue: int | None = Field(
        None,
        ge=1,
        le=LARGEST_QUEUE,
        description="values the server keeps between messages; default interval/sampling x 2",
    )
    discard: Literal["oldest", "newest"] = Field("oldest", description="which value goes when that queue is full")

    @model_validator(mode="after")
    def _one_place(self) -> OpcuaTag:
        places = [key for key in ("node", "path", "browse") if getattr(self, key) is not None]
        if len(places) != 1:
            found = " and ".join(places) or "none of them"
            raise PydanticCustomError(
                "node", "a tag has either node, path or browse; there is {found}", {"found": found}
            )
        if self.browse is not None and self.index is not None:
            raise PydanticCustomError(
                "index", "browse finds whole variables: index needs node or path", {"key": "index"}
            )
        if self.enum_text and (self.map is not None or self.as_ is not None):
            raise PydanticCustomError(
                "enum_text", "enum_text and map are two ways to one text: keep one", {"key": "map"}
            )
        if self.index is not None and ":" in self.index:
            last = f"{self.name}.{self.index.partition(':')[2]}"
            if len(last) > 64:
                raise PydanticCustomError("index", "the name {name} would be longer than 64", {"name": last})
        return self

    @property
    def place(self) -> str:
        """Node id, path or pattern as written."""
        return self.node or self.path or self.browse or ""

    def address(self) -> NodeAddress | BrowsePath:
        """Where it is, in its parts."""
        if self.node is not None:
            return parse(self.node)
        return parse_path(self.place, pattern=self.browse is not None)

    def rules(self) -> TagRules:
        """What is done to the raw value; a deadband in percent waits for the variable's range."""
        found = super().rules()
        return replace(found, deadband=None) if isinstance(self.deadband, Percent) else found

    def elements(self) -> list[tuple[str, Element | None]]:
        """The tags it stands for: name and element; one, but for a range."""
        if self.index is None:
            return [(self.name, None)]
        low, colon, high = self.index.partition(":")
        if colon:
            return [(f"{self.name}.{number}", (number,)) for number in range(int(low), int(high) + 1)]
        return [(self.name, tuple(map(int, self.index.split(","))))]

    def infos(self, group: str) -> list[TagInfo]:
        """The tags as far as the configuration tells; of a pattern nothing, before the server is asked."""
        if self.browse is not None:
            return []
        return [
            self.info(name, group, self.place if element is None else f"{self.place}[{','.join(map(str, element))}]")
            for name, element in self.elements()
        ]

    def info(self, name: str, group: str, source: str) -> TagInfo:
        """One of its tags."""
        return TagInfo(
            name=name,
            group=group,
            source=source,
            type="string" if self.map is not None or self.as_ is not None or self.enum_text else None,
            label=self.label,
            unit=self.unit,
            description=self.description,
            rules=self.rules(),
        )


def queue_size(publishing_s: float, sampling_s: float) -> int:
    """How many values the server keeps of a tag between notifications: what fits, twice; never 0 (which means 1)."""
    return min(LARGEST_QUEUE, max(2, 2 * ceil(publishing_s / sampling_s - 1e-9)))
