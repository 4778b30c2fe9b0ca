"""What must stand at an address for the tag list to be the right one: `expect` of a device.

May import: pydantic, `collectors.fields`, the pure modules of this package.
"""

from __future__ import annotations

from functools import cached_property

from pydantic import Field, model_validator

from collectors.fields import Model
from collectors.modbus.datatypes import DataType, WordOrder
from collectors.modbus.tag import MAX_REGISTERS, AddressText, Encoding, ModbusTag


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
    def _is_readable(self) -> Expectation:
        # Read while the device is validated, whose notation the address has.
        self.tag.where  # noqa: B018  # known from here on
        return self
