"""What must stand at an address for the tag list to be the right one: `expect` of a device.

May import: pydantic, `collectors.fields`, the pure modules of this package.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from pydantic import Field, model_validator

from collectors.fields import Model
from collectors.modbus.datatypes import DataType, WordOrder, fits
from collectors.modbus.plan import Block
from collectors.modbus.tag import MAX_REGISTERS, NOTATION, AddressText, Encoding, ModbusTag, wrong


class Expectation(Model):
    """One value that the program of the PLC puts at a fixed place, such as a version or a station number."""

    address: AddressText = Field(description="as of a tag")
    value: bool | int | float | str = Field(description="what must be there, as it is read, before any scale")
    type: DataType | None = Field(None, description="as of a tag")
    word_order: WordOrder | None = Field(None, description="the device's unless given")
    length: int | None = Field(None, ge=1, le=MAX_REGISTERS, description="of a string, in registers")
    encoding: Encoding | None = Field(None, description="of a string")

    @cached_property
    def tag(self) -> ModbusTag:
        """How it is read."""
        keys = {"address", "type", "word_order", "length", "encoding"}
        return ModbusTag.model_validate({"name": "expect", **self.model_dump(include=keys)})

    @model_validator(mode="after")
    def _can_be_found(self) -> Expectation:
        tag = self.tag  # its address is understood here, while the device is validated whose notation it has
        is_bit = tag.where.bit is not None or not tag.where.is_register or tag.type == "bool"
        wanted = "true or false" if is_bit else 'a text (in quotes: "1201")' if tag.type == "string" else "a number"
        kinds = bool if is_bit else str if tag.type == "string" else int | float
        if NOTATION.get().broken:
            return self
        if not isinstance(self.value, kinds) or (not is_bit and isinstance(self.value, bool)):
            raise wrong("value", f"{self.address} is {wanted}: it never is {self.value!r}")
        if (
            tag.type is not None
            and isinstance(self.value, int | float)
            and not is_bit
            and not fits(tag.type, self.value)
        ):
            raise wrong("value", f"{tag.type} never is {self.value!r}")
        return self


def is_polled(expected: Expectation, blocks: Iterable[Block]) -> bool:
    """Whether one of these requests reads along what is expected."""
    where, end = expected.tag.where, expected.tag.where.offset + expected.tag.registers
    return any(block.area == where.area and block.offset <= where.offset and end <= block.end for block in blocks)
