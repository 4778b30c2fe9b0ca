"""The configuration of a Modbus device.

Promises: what passes here can be planned and decoded: every tag is (see `tag.py`), and none is longer than one
request. Every mistake is told with the place it was made at. May import: pydantic, `collectors.api`,
`collectors.fields`, `collectors.line_config`, the pure modules of this package.
"""

from __future__ import annotations

import re
import sys
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ModelWrapValidatorHandler, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError

from collectors.api import TagInfo, group_name
from collectors.fields import Duration, Model, Packed
from collectors.line_config import Endpoint, LineConfig, OnLine, parse_endpoint
from collectors.modbus.brands import BRAND_NAMES, BRANDS, BrandName
from collectors.modbus.datatypes import WIDE, WordOrder
from collectors.modbus.expect import Expectation
from collectors.modbus.tag import MAX_REGISTERS, NOTATION, Interval, Mistakes, ModbusTag, Notation, parse_invalid

__all__ = ["MAX_COILS", "MAX_REGISTERS", "ModbusConfig", "ModbusTag", "parse_invalid"]

MAX_COILS = 2000
"""What one request of the standard can carry."""

_HOLD_START = re.compile(r"^&?VB(\d+)$", re.IGNORECASE)


def _check_hold_start(value: object) -> object:
    match = _HOLD_START.match(value) if isinstance(value, str) else None
    return int(match[1]) if match is not None else value


class BrandOptions(Model):
    """A maker whose notation needs to know more."""

    name: BrandName
    hold_start: Annotated[int, BeforeValidator(_check_hold_start, json_schema_input_type=int | str)] = Field(
        0, ge=0, le=20_478, description="of the Siemens brand: HoldStart of MBUS_INIT, such as VB1000"
    )

    @model_validator(mode="after")
    def _only_siemens(self) -> BrandOptions:
        if self.hold_start and not self.name.startswith("siemens"):
            raise PydanticCustomError("hold_start", "only Siemens has a HoldStart", {"key": "hold_start"})
        return self


def _brand_by_name(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


Brand = Annotated[
    BrandOptions | None,
    BeforeValidator(_brand_by_name, json_schema_input_type=BrandName | BrandOptions | None),
]


def _as_list(value: object) -> object:
    return value if isinstance(value, list | tuple) else [value]


Expected = Annotated[
    list[Expectation], BeforeValidator(_as_list, json_schema_input_type=Expectation | list[Expectation])
]
_ON_LINE = "line://"


def _check_url(value: str) -> str:
    if not value.startswith(_ON_LINE):
        parse_endpoint(value)
    return value


class ModbusConfig(OnLine):
    """A device that is read over Modbus: function codes 1 to 4, never a write."""

    type: Literal["modbus"]
    url: Annotated[str, AfterValidator(_check_url)] = Field(
        description="tcp://HOST:502, rtu+tcp://HOST:PORT (serial server), serial:///dev/serial/by-id/NAME (9600 baud,"
        " 8N1); or use `line`"
    )
    interval: Interval = Field(1.0, description="how often tags are read that name no interval of their own")
    unit_id: int = Field(1, ge=0, le=255, description="which device behind the address")
    brand: Brand = Field(
        None,
        description=f"whose notation addresses may have too: {', '.join(BRAND_NAMES)};"
        " or {name: siemens-s7-200-smart, hold_start: VB1000}",
    )
    word_order: WordOrder = Field(
        "ABCD", description="bytes of a 32-bit value as they arrive, A the most significant; with brand: the maker's"
    )
    max_registers: int = Field(
        MAX_REGISTERS, ge=1, le=MAX_REGISTERS, description="registers in one request at most; with brand: the maker's"
    )
    max_coils: int = Field(MAX_COILS, ge=1, le=MAX_COILS, description="coils or inputs in one request at most")
    max_gap: int = Field(
        8, ge=0, le=MAX_COILS, description="unnamed addresses read along to save a request; 0 = only what is named here"
    )
    answer_time: Duration | None = Field(
        None, le=10, description="from a request to the first byte of its answer, to plan and estimate with (tcp 5 ms,"
        " serial and rtu+tcp 20 ms, listen 200 ms)",
    )  # fmt: skip
    expect: Expected = Field(
        default_factory=list,
        description="what must stand where: else all tags are bad:layout. Compared at each connect and at each poll"
        " that reads the address anyway; else every hour, and when a request failed",
    )
    tags: list[ModbusTag] = Field(min_length=1)
    _intervals: tuple[float, ...] = PrivateAttr(())

    @cached_property
    def settings(self) -> LineConfig:
        """The line this device is on: of the configuration, else one with nothing set but the address."""
        return self.joined or LineConfig(url=self.url)

    @property
    def endpoint(self) -> Endpoint:
        """Where it is reached: devices of equal endpoints share one connection."""
        return self.settings.endpoint

    @property
    def where(self) -> str:
        """The endpoint for people: `192.168.10.21:502`, `/dev/ttyUSB0`."""
        return self.endpoint.where

    @property
    def line_label(self) -> str:
        """The line's name, or the address of one without a name."""
        return self.joined_name or str(self.endpoint)

    def line_mistakes(self, settings: LineConfig) -> dict[str, str]:
        """Key -> what does not fit the line."""
        if settings.is_rtu and self.unit_id == 0:
            return {"unit_id": "on a serial line 0 calls everybody and nobody answers: units are 1 to 247"}
        return {}

    @model_validator(mode="wrap")
    @classmethod
    def _by_brand(cls, data: Any, handler: ModelWrapValidatorHandler[ModbusConfig]) -> ModbusConfig:
        """Read the tags' addresses in the notation of the brand; its word order and limit are the defaults."""
        if isinstance(data, dict) and data.get("line") is not None and "url" not in data:
            data = {**data, "url": f"{_ON_LINE}{data['line']}"}
        written = data.get("brand") if isinstance(data, dict) else None
        if written is None:
            return handler(data)
        name: object = written
        hold_start: object = 0
        if isinstance(written, dict):
            name, hold_start = written.get("name"), _check_hold_start(written.get("hold_start", 0))
        brand = BRANDS.get(name) if isinstance(name, str) else None
        if brand is None or not isinstance(name, str) or not isinstance(hold_start, int):
            notation = Notation(broken=True)
        else:
            notation = Notation(name, hold_start)
            data = {"word_order": brand.word_order, "max_registers": brand.max_registers, **data}
        token = NOTATION.set(notation)
        try:
            return handler(data)
        finally:
            NOTATION.reset(token)

    @property
    def brand_name(self) -> str | None:
        """The maker, if one is given."""
        return self.brand.name if self.brand is not None else None

    @model_validator(mode="after")
    def _tags_fit_requests(self) -> ModbusConfig:
        mistakes = Mistakes("device")
        if self.line is not None and not self.url.startswith(_ON_LINE):
            mistakes.add(("line",), "line", "the line leads there already: leave url or line out", self.line)
        if self.line is None and self.url.startswith(_ON_LINE):
            mistakes.add(("url",), "url", f"write line: {self.url.removeprefix(_ON_LINE)}", self.url)
        for index, tag in enumerate(self.tags):
            if tag.where.is_register and tag.registers > self.max_registers:
                mistakes.add(("tags", index, "length" if tag.type == "string" else "type"), "max_registers",
                             f"takes {tag.registers} registers, and max_registers allows {self.max_registers} in one"
                             " request; a value is never put together from two", tag.length or tag.type)  # fmt: skip
        mistakes.raise_if_any()
        return self

    def interval_of(self, tag: ModbusTag) -> float:
        """Seconds between two readings of the tag."""
        return tag.interval if tag.interval is not None else self.interval

    def order_of(self, tag: ModbusTag) -> WordOrder:
        """The tag's word order."""
        return tag.word_order or self.word_order

    def groups(self) -> dict[str, float]:
        """Group name -> interval in seconds, the shortest first."""
        found: dict[str, float] = {}
        for interval in self._intervals or sorted({self.interval_of(tag) for tag in self.tags}):
            found.setdefault(group_name(interval), interval)
        return found

    def pack(self) -> None:
        """See `DeviceConfig`."""
        self._intervals = tuple(self.groups().values())
        self.__dict__["tags"] = Packed(self.tags)

    def tag_infos(self) -> list[TagInfo]:
        """The tags for `meta` and the agent."""
        return [
            TagInfo(
                name=sys.intern(tag.name),
                group=group_name(self.interval_of(tag)),
                source=tag.address,
                type=tag.json_type,
                label=tag.label,
                unit=tag.unit,
                description=tag.description,
                wide=tag.type in WIDE,
                rules=tag.rules(),
            )
            for tag in self.tags
        ]
