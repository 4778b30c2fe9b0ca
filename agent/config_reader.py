"""From YAML nodes to what pydantic models take, guided by the models' annotations.

A scalar for a field that holds text is taken as written, never via a number (`40010.10`, `012`, `3.1.1`, `no`); lists
become tuples where the model has tuples; named files are looked up, and keys of later versions refused. May import:
pydantic, `collectors.fields`, `agent.config_document`, `agent.secret_files`, `agent.yaml_source`.
"""

from __future__ import annotations

from collections.abc import Mapping as AbstractMapping
from collections.abc import Sequence as AbstractSequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator

from agent.config_document import Document, Loc
from agent.secret_files import FileUnusable, check_file, find_file
from agent.yaml_source import Mapping, Node, Scalar, Sequence
from collectors.fields import Model, NamedFile, OutputPath, parse_duration, parse_size


@dataclass(frozen=True, slots=True)
class Shape:
    """What a field can hold, as far as reading it matters.

    Attributes:
        text: a scalar is text, as written, though numbers may be allowed too (`0x8000` is not 32768 everywhere).
        nullable: null stands for None.
        model: a mapping is this model.
        item, as_tuple: what a list holds, and whether it becomes a tuple.
        key, value: what a mapping without a model holds.
        file: the text names a file.
        unit: how a number is shown to people: `duration`, `size` or nothing.
    """

    text: bool = False
    nullable: bool = False
    model: type[BaseModel] | None = None
    item: Shape | None = None
    as_tuple: bool = False
    key: Shape | None = None
    value: Shape | None = None
    file: NamedFile | OutputPath | None = None
    unit: str = ""


ANY = Shape()


@lru_cache(maxsize=256)
def shapes_of(model: type[BaseModel]) -> dict[str, Shape]:
    """The shape of each field by its key in the file."""
    return {
        info.alias or name: _with_metadata(_shape(info.annotation), info.metadata)
        for name, info in model.model_fields.items()
    }


@lru_cache(maxsize=256)
def unsupported_of(model: type[BaseModel]) -> dict[str, str]:
    """Keys (and `key=value`) that this model and its ancestors refuse, with the message; never a key it has."""
    refused: dict[str, str] = {}
    for ancestor in reversed(model.__mro__):
        if issubclass(ancestor, Model) and "unsupported" in vars(ancestor):
            refused.update(ancestor.unsupported())
    return {key: text for key, text in refused.items() if key not in shapes_of(model)}


def model_at(model: type[BaseModel] | None, loc: Loc) -> type[BaseModel] | None:
    """The model of the mapping at `loc` below a mapping of `model`; None where there is none."""
    shape: Shape | None = Shape(model=model)
    for part in loc:
        if shape is None:
            return None
        shape = _below(shape, part)
    return shape.model if shape is not None else None


def shape_at(model: type[BaseModel], loc: Loc) -> Shape:
    """The shape of what stands at `loc` below a mapping of `model`."""
    shape: Shape | None = Shape(model=model)
    for part in loc:
        shape = _below(shape, part) if shape is not None else None
    return shape or ANY


def _below(shape: Shape, part: str | int) -> Shape | None:
    if isinstance(part, int) and shape.item is not None:
        return shape.item
    if shape.model is not None:
        return shapes_of(shape.model).get(str(part))
    return shape.value


def _shape(annotation: Any) -> Shape:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *metadata = get_args(annotation)
        return _with_metadata(_shape(inner), metadata)
    if origin in {Union, UnionType}:
        return _union([_shape(member) for member in get_args(annotation)])
    if origin is Literal:
        return Shape(text=any(isinstance(value, str) for value in get_args(annotation)))
    if annotation is str:
        return Shape(text=True)
    if annotation is None or annotation is NoneType:
        return Shape(nullable=True)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return Shape(model=annotation)
    kind = origin if isinstance(origin, type) else annotation
    if isinstance(kind, type):
        arguments = get_args(annotation)
        if issubclass(kind, AbstractMapping):
            key, value = (_shape(argument) for argument in arguments) if len(arguments) == 2 else (ANY, ANY)
            return Shape(key=key, value=value)
        if issubclass(kind, AbstractSequence | frozenset | set) and not issubclass(kind, str | bytes):
            return Shape(item=_shape(arguments[0]) if arguments else ANY, as_tuple=kind is tuple)
    return ANY


def _with_metadata(shape: Shape, metadata: AbstractSequence[Any]) -> Shape:
    for entry in metadata:
        if isinstance(entry, NamedFile | OutputPath):
            shape = replace(shape, file=entry)
        elif isinstance(entry, BeforeValidator) and entry.func is parse_duration:
            shape = replace(shape, unit="duration")
        elif isinstance(entry, BeforeValidator) and entry.func is parse_size:
            shape = replace(shape, unit="size")
    return shape


def _union(members: list[Shape]) -> Shape:
    """What any of the members takes."""
    merged = Shape()
    for member in members:
        merged = Shape(
            text=merged.text or member.text,
            nullable=merged.nullable or member.nullable,
            model=merged.model or member.model,
            item=merged.item or member.item,
            as_tuple=merged.as_tuple or member.as_tuple,
            key=merged.key or member.key,
            value=merged.value or member.value,
            file=merged.file or member.file,
            unit=merged.unit or member.unit,
        )
    return merged


class Reader:
    """Converts one section at a time; `files` gathers the digests of the files the section names."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self.files: dict[str, str] = {}

    def read(self, node: Node, shape: Shape, loc: Loc) -> Any:
        """Return plain Python data for pydantic."""
        if isinstance(node, Scalar):
            return self._scalar(node, shape, loc)
        if isinstance(node, Sequence):
            item = shape.item or ANY
            values = [self.read(child, item, (*loc, index)) for index, child in enumerate(node.items)]
            return tuple(values) if shape.as_tuple else values
        if shape.model is not None:
            return self._model(node, shape.model, loc)
        key, value = shape.key or ANY, shape.value or ANY
        found: dict[Any, Any] = {}
        for name, child in node.items:
            converted = name.text if key.text else name.value()
            if converted in found:
                self._document.tell((*loc, name.text), f"the key {name.text} stands here twice", at_key=True)
            found[converted] = self.read(child, value, (*loc, name.text))
        return found

    def _model(self, node: Mapping, model: type[BaseModel], loc: Loc) -> dict[str, Any]:
        shapes = shapes_of(model)
        refused = unsupported_of(model)
        found: dict[str, Any] = {}
        for name, child in node.items:
            key = name.text
            if key in refused:
                self._document.tell((*loc, key), refused[key], at_key=True)
                continue
            if refused and isinstance(child, Scalar) and (text := refused.get(f"{key}={child.text}")) is not None:
                self._document.tell((*loc, key), text)
                continue
            found[key] = self.read(child, shapes.get(key, ANY), (*loc, key))
        return found

    def _scalar(self, node: Scalar, shape: Shape, loc: Loc) -> Any:
        if shape.item is not None and not shape.text:
            shape = shape.item  # one entry may stand for a list of one
        value: str | int | float | bool | None
        if shape.text:
            empty = node.plain and node.value() is None
            value = None if empty and (shape.nullable or not node.text) else node.text
        else:
            value = node.value()
        if shape.file is not None and isinstance(value, str) and value and not node.broken:
            return self._file(shape.file, value, loc, node)
        return value

    def _file(self, kind: NamedFile | OutputPath, name: str, loc: Loc, node: Scalar) -> str:
        directory = self._document.directory_of(node)
        if isinstance(kind, OutputPath):
            return str(directory / name)
        try:
            path = find_file(name, directory, secret=kind.secret)
            self.files[str(path)] = check_file(path, secret=kind.secret)
        except FileUnusable as error:
            self._document.tell(loc, str(error))
            return name
        return str(path)
