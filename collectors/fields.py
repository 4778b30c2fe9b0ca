"""The fields that configuration models are made of: names, durations, sizes, secret files, tags, devices.

Every model is frozen and refuses unknown keys. May import: pydantic, `collectors.api`.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, overload

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError

from collectors.api import NO_RULES, TagRules

T = TypeVar("T")

NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$"
RESERVED_NAMES = frozenset({"agent", "status", "meta", "health"})

_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)?\s*$")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(B|KB|MB|GB|KiB|MiB|GiB)?\s*$")
_SIZE_UNITS = {"B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def parse_duration(value: object) -> float:
    """Return seconds from `500 ms`, `1 s`, `5 min`, `5m`, `1 h`, `7 d` or a number of seconds.

    Raises:
        PydanticCustomError: neither; the text names the form that is expected.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match is None:
        raise PydanticCustomError(
            "duration", "expected a duration such as 500 ms, 1 s, 5 min, 1 h or 7 d, or a number of seconds"
        )
    return float(match[1]) * _DURATION_UNITS[match[2] or "s"]


def parse_size(value: object) -> int:
    """Return bytes from `64 MB`, `1 GB` (powers of 1000), `64 MiB` (1024) or a number of bytes.

    Raises:
        PydanticCustomError: neither.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.match(value) if isinstance(value, str) else None
    if match is None:
        raise PydanticCustomError("size", "expected a size such as 60 KB, 64 MB, 1 GB or 512 MiB")
    return round(float(match[1]) * _SIZE_UNITS[match[2] or "B"])


def check_name(value: str) -> str:
    """Return the name if it may stand in topics and file names.

    Raises:
        PydanticCustomError: it may not; the text says which form is expected.
    """
    if not re.fullmatch(NAME_PATTERN, value):
        raise PydanticCustomError(
            "name",
            "a name is 1 to 64 of A-Z a-z 0-9 _ . - and starts with a letter, digit or _"
            " (texts in any language go into label)",
        )
    return value


Name = Annotated[str, AfterValidator(check_name), Field(json_schema_extra={"pattern": NAME_PATTERN})]
Duration = Annotated[
    float,
    BeforeValidator(parse_duration, json_schema_input_type=str | float),
    Field(gt=0, le=366 * 86_400),
]
"""Seconds, > 0."""
DurationOrZero = Annotated[
    float,
    BeforeValidator(parse_duration, json_schema_input_type=str | float),
    Field(ge=0, le=366 * 86_400),
]
"""Seconds, >= 0."""
Size = Annotated[int, BeforeValidator(parse_size, json_schema_input_type=str | int), Field(ge=0)]
"""Bytes."""


class SecretText:
    """A secret read from a file; shows itself as `***` wherever it is printed."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret itself; only for the call that needs it."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretText) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True)
class NamedFile:
    """Marks a field that names a file: the configuration loader finds the file and puts its absolute path there.

    Attributes:
        secret: others must not be able to read it (mode & 027 == 0, but for files of $CREDENTIALS_DIRECTORY).
    """

    secret: bool


@dataclass(frozen=True, slots=True)
class OutputPath:
    """Marks a field that names what the agent writes; a relative path is made absolute from the file that names it."""


SecretFile = Annotated[str, Field(min_length=1), NamedFile(secret=True)]
"""Name or path of a file that holds a secret; looked up in $CREDENTIALS_DIRECTORY, the secrets directory, beside the
configuration. The configuration loader checks that it exists and that others cannot read it (mode & 027 == 0)."""
PublicFile = Annotated[str, Field(min_length=1), NamedFile(secret=False)]
"""Name or path of a file that may be read by anybody, such as a certificate; looked up in the same places."""


class Model(BaseModel):
    """What every section of the configuration is: frozen, strict, no unknown keys."""

    # Built when the first is checked: the process that runs only takes over what another one has checked.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True, defer_build=True)

    @classmethod
    def unsupported(cls) -> dict[str, str]:
        """Keys, and values as `key=value`, that the contract names and this version refuses; with the message.

        The loader tells the message at the key's or the value's place instead of "unknown key", and collects the
        entries of a model's ancestors too, so that a subclass names only its own.
        """
        return {}


class Section(Model):
    """A part of the configuration that is replaced as a whole on reload; equal only if the files it names are too."""

    _files: dict[str, str] = PrivateAttr(default_factory=dict)
    _fingerprint: str = PrivateAttr("")

    @property
    def file_digests(self) -> dict[str, str]:
        """Digest by path of the files that the section names, as they were when it was loaded."""
        return self._files

    @property
    def fingerprint(self) -> str:
        """A text that is equal for two sections iff their settings, and the contents of the files they name, are.

        The contents are those of when the section was loaded. Made when it is first asked for.
        """
        if not self._fingerprint:
            settings = f"{self._settings()} {sorted(self.file_digests.items())}"
            self._fingerprint = hashlib.sha256(settings.encode()).hexdigest()
        return self._fingerprint

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As of every model; settings that are not the same have a fingerprint of their own."""
        copy = super().model_copy(update=update, deep=deep)
        if update:
            copy._fingerprint = ""  # noqa: SLF001 - one of us
        return copy

    def _settings(self) -> str:
        return f"{type(self).__qualname__} {self.model_dump_json()}"

    def remember_files(self, digests: dict[str, str]) -> None:
        """Take note of the files' contents; called once, by the loader."""
        self._files.update(digests)


class Report(Model):
    """Publish changed tags only, and the whole group every `heartbeat`."""

    heartbeat: Duration = Field(60.0, description="how often the whole group is published although nothing changed")


class TagsFile(Model):
    """A tag list in a file."""

    file: str = Field(min_length=1, description="CSV or XLSX; relative to the file that names it")
    sheet: str | None = Field(None, description="of a workbook with several")
    decimals: Literal["rounds", "scales"] | None = Field(
        None,
        description="what a column 小数位 / decimal places means: `rounds` = digits after rounding, `scales` = the"
        " point is put into the number (2: 1234 is 12.34)",
    )
    count_from: Literal[0, 1] | None = Field(
        None, description="of addresses that are bare numbers: 0 = the first register is 0, as on the wire; 1 = it is 1"
    )
    area: Literal["coil", "discrete", "input", "holding"] | None = Field(
        None, description="of addresses that are bare numbers, where no column says it (功能码, function code)"
    )


def _file_and_sheet(value: object) -> object:
    if not isinstance(value, str):
        return value
    file, _, sheet = value.partition("#")
    return {"file": file, "sheet": sheet} if sheet else {"file": file}


def _product(value: object) -> object:
    """A list of factors is their product, exact in decimals: 0.1 x 3 is 0.3."""
    if not isinstance(value, list | tuple):
        return value
    if not value:
        raise PydanticCustomError("factors", "expected a number, or a list of numbers that are multiplied")
    product = Decimal(1)
    for index, factor in enumerate(value):
        if isinstance(factor, bool) or not isinstance(factor, int | float):
            raise PydanticCustomError("factors", "expected numbers that are multiplied", {"key": index})
        product *= Decimal(repr(factor))
    found = float(product)
    if not isfinite(found):
        raise PydanticCustomError("factors", "the product is too large")
    return found


class TagConfig(Model):
    """Keys of a tag that mean the same for every protocol."""

    name: Name = Field(description="key in `values`")
    label: str | None = Field(None, description="text for people, any language")
    description: str | None = None
    unit: str | None = Field(None, description="UCUM where known (Cel, kW.h, r/min, %)")
    deadband: float | None = Field(None, ge=0, description="smallest change that is published; needs `report`")
    scale: Annotated[float | None, BeforeValidator(_product, json_schema_input_type=float | list[float] | None)] = (
        Field(None, description="factor on the raw value; a list is multiplied: [0.01, 40]")
    )
    offset: float | None = Field(None, description="added after `scale`")
    decimals: int | None = Field(None, ge=0, le=15, description="rounds what is published")
    min: float | None = Field(None, description="below it the value is null with bad:range")
    max: float | None = Field(None, description="above it the value is null with bad:range")
    map: dict[int, str] | None = Field(None, description="raw number -> text; an unmapped number is null, bad:range")
    as_: str | None = Field(None, alias="as", pattern="^string$", description="`string`: 64-bit integers as text")

    @model_validator(mode="after")
    def _limits_in_order(self) -> TagConfig:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise PydanticCustomError("limits", "min is above max", {"key": "min"})
        return self

    def rules(self) -> TagRules:
        """What is done to the raw value on its way out."""
        found = TagRules(
            scale=self.scale,
            offset=self.offset,
            decimals=self.decimals,
            minimum=self.min,
            maximum=self.max,
            map=self.map,
            deadband=self.deadband,
            as_string=self.as_ == "string",
        )
        return NO_RULES if found == NO_RULES else found  # one object for the many that have none


class Packed(Sequence[T]):
    """What is seldom asked for of a configuration, in a twentieth of the memory. To iterate is to unpack all."""

    __slots__ = ("_bytes", "_count")

    def __init__(self, items: Sequence[T]) -> None:
        self._count = len(items)
        self._bytes = zlib.compress(pickle.dumps(list(items), pickle.HIGHEST_PROTOCOL), 1)

    def _unpacked(self) -> list[T]:
        found: list[T] = pickle.loads(zlib.decompress(self._bytes))  # noqa: S301 - packed above
        return found

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[T]:
        return iter(self._unpacked())

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        return self._unpacked()[index]


class DeviceConfig(Section):
    """Keys of a device that mean the same for every type. Subclasses add theirs and narrow `type` to a Literal."""

    always_reports: ClassVar[bool] = False
    """True where only changes are published without `report` too (OPC UA), so that a deadband needs none."""

    name: Name = Field(description="unique on this gateway")
    label: str | None = Field(None, description="text for people, any language")
    description: str | None = None
    type: str
    interval: Duration = Field(1.0, description="how often tags are read that name no interval of their own")
    timeout: Duration = Field(3.0, description="how long one request may take")
    report: Report | None = Field(
        None, description="publish changed tags only; without: the whole group every interval"
    )

    template: str | None = Field(
        None, min_length=1, description="keys and tags of a kind of device: a file (`./meter.yaml`), or a shipped name"
    )
    vars: dict[str, str | int | float | bool] | None = Field(
        None, description="what the template's `${name}` stand for on this device"
    )
    tags_file: Annotated[
        TagsFile | None, BeforeValidator(_file_and_sheet, json_schema_input_type=str | TagsFile | None)
    ] = Field(None, description="a tag list beside or instead of `tags`: `list.csv`, `list.xlsx#Sheet2`, {file: ...}")

    def pack(self) -> None:
        """Take less memory, for a process that goes on for years: called once, when all is checked.

        A type of device that asks for its tags only when it plans what to read may replace them by `Packed`.
        """

    @classmethod
    def unsupported(cls) -> dict[str, str]:
        """Keys of every device that later versions bring."""
        return {
            "expect": "checks of the device's identity are not supported yet",
            "hours": "working hours are not supported yet",
            "off": "switching a device off is not supported yet: remove it, or put # before its lines",
        }


def json_key(model: type[BaseModel], name: str) -> str:
    """The key as written in the file (`as`), of a field as named in code (`as_`)."""
    info: Any = model.model_fields[name]
    return info.alias or name
