"""What pydantic found, in words for a person who is no programmer: what was expected, what came, what to try.

May import: pydantic, `agent.config_document`, `agent.config_hints`, `agent.config_model`, `agent.config_reader`,
`agent.mistakes`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as AbstractMapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agent.config_document import Document, Found, Loc
from agent.config_hints import meant_value, plain_hint, unit_hint, unknown_key_hint, value_hint
from agent.config_model import AgentConfig
from agent.config_reader import Shape, model_at, shape_at, shapes_of, unsupported_of
from agent.mistakes import did_you_mean, nearest, one_of, quote
from agent.yaml_source import Mapping, Scalar, Sequence

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text",
    "list_type": "a list ([a, b], or lines that begin with '- ')",
    "tuple_type": "a list ([a, b], or lines that begin with '- ')",
    "dict_type": "key: value pairs",
    "model_type": "key: value pairs",
    "model_attributes_type": "key: value pairs",
    "none_required": "nothing (null)",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_SECRET_KEY = re.compile(r"pass|secret|token|_key$", re.IGNORECASE)
_DURATION_UNITS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (0.001, "ms"))
_SIZE_UNITS = ((1000**3, "GB"), (1000**2, "MB"), (1000, "KB"))


def tell_errors(document: Document, errors: ValidationError, model: type[BaseModel], base: Loc = ()) -> None:
    """Add a mistake for each thing that pydantic found.

    Args:
        document: where to look for places and add mistakes.
        errors: what pydantic found in the mapping at `base`.
        model: the model of that mapping.
        base: where that mapping stands.
    """
    several: dict[Loc, list[str]] = {}
    for error in errors.errors(include_url=False):
        key = (error.get("ctx") or {}).get("key")
        loc: Loc = (*base, *error["loc"], key) if isinstance(key, str | int) else (*base, *error["loc"])
        found = document.find(loc)
        if found.broken or document.was_told(found.loc):
            continue
        kind = error["type"]
        if kind == "too_short" and isinstance(found.node, Sequence) and found.node.items:
            continue  # pydantic counts the good entries only, and the bad ones are told
        if kind == "duplicate" and document.told_within(found.loc):
            continue  # told already, at the second of the two
        if kind == "missing":
            _tell_missing(document, loc, model, base)
        elif kind == "extra_forbidden":
            _tell_unknown(document, loc, model, base)
        elif kind in _EXPECTED:  # branches of a union: told together
            expected = several.setdefault(found.loc, [])
            if _EXPECTED[kind] not in expected:
                expected.append(_EXPECTED[kind])
        else:
            shape = shape_at(model, found.loc[len(base) :])
            document.tell(found.loc if found.complete else loc, _say(error, found, shape))
    for loc, expected in several.items():
        document.tell(loc, f"expected {one_of(expected)}, got {_came(document.find(loc))}{_type_hint(document, loc)}")


def shown_number(value: float, unit: str = "") -> str:
    """Show a number, a duration in seconds or a size in bytes as it is written in the file."""
    if unit == "duration":
        for seconds, name in _DURATION_UNITS:
            if value >= seconds and abs(value / seconds - round(value / seconds)) < 1e-9:
                return f"{round(value / seconds)} {name}"
        return f"{value:g} s"
    if unit == "size":
        for size, name in _SIZE_UNITS:
            if value >= size:
                return f"{value / size:g} {name}"
        return f"{value:g} B"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _tell_missing(document: Document, loc: Loc, model: type[BaseModel], base: Loc) -> None:
    parent = document.find(loc[:-1]).node
    key = str(loc[-1])
    if isinstance(parent, Mapping):
        here = model_at(model, loc[len(base) : -1])
        known = list(shapes_of(here)) if here is not None else [key]
        strangers = [name.text for name, _ in parent.items if name.text not in known]
        if any(nearest(stranger, known) == key or _points_at(stranger, key) for stranger in strangers):
            return  # the misspelt key is told, with this one as what was meant
        refused = unsupported_of(here) if here is not None else {}
        if any(f"{key}:" in refused.get(stranger, "") for stranger in strangers):
            return  # the key of a later version is told, with this one as what to write instead
    what = here.model_fields[key].description if here is not None and key in here.model_fields else None
    document.tell(loc, f"'{key}:' is missing{f' ({what})' if what else ''}")


def _points_at(stranger: str, key: str) -> bool:
    hint = unknown_key_hint(stranger, [key])
    return hint is not None and f"'{key}'" in hint


def _tell_unknown(document: Document, loc: Loc, model: type[BaseModel], base: Loc) -> None:
    key = str(loc[-1])
    here = model_at(model, loc[len(base) : -1])
    known = list(shapes_of(here)) if here is not None else []
    hint = unknown_key_hint(key, known) or (_belongs(key, here, loc) if here is not None else None)
    if hint is None:
        hint = did_you_mean(key, known, listed=40)
    document.tell(loc, f"unknown key '{key}'{hint}", at_key=True)


def _belongs(key: str, here: type[BaseModel], loc: Loc) -> str | None:
    """Say where a key that is valid elsewhere belongs: below `here`, or in a section of the file."""
    for outer in (here, AgentConfig) if len(loc) > 1 else (here,):
        for name, shape in shapes_of(outer).items():
            inner = shape.model or (shape.item.model if shape.item is not None else None)
            if inner is None or key not in shapes_of(inner) or (outer is AgentConfig and name == loc[0]):
                continue
            return f"; it belongs to each entry of {name}:" if shape.model is None else f"; it belongs under {name}:"
    return None


def _say(error: ErrorDetails, found: Found, shape: Shape) -> str:
    kind = error["type"]
    context: AbstractMapping[str, Any] = error.get("ctx") or {}
    came = _came(found)
    if kind == "literal_error":
        valid = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        text = found.node.text if isinstance(found.node, Scalar) else ""
        near = meant_value(text, valid) if text else None
        meant = f"; did you mean '{near}'?" if near else ""
        return f"expected {one_of(valid) if valid else context.get('expected')}, got {came}{meant}"
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"expected {words} {shown_number(context[name], shape.unit)}, got {came}"
    if kind in {"string_too_short", "too_short"}:
        return f"is empty; expected at least {context['min_length']} {'character' if 'string' in kind else 'entry'}"
    if kind in {"string_too_long", "too_long"}:
        return f"too long: at most {context['max_length']} allowed"
    if kind == "string_pattern_mismatch":
        return f"expected the form {context['pattern']}, got {came}"
    message = error["msg"]
    if kind == "value_error":
        message = message.removeprefix("Value error, ")
    if isinstance(found.node, Scalar) and found.complete:
        shown = found.node.text
        if kind in {"duration", "size"}:
            message += unit_hint(shown, of_time=kind == "duration")
        elif not shown.isascii():
            message += plain_hint(shown)
        if shown and shown in message:
            return message
        return f"{message}, got {came}" if "; " not in message else f"{message} (got {came})"
    return message


def _came(found: Found) -> str:
    node = found.node
    if isinstance(node, Sequence):
        return "a list"
    if isinstance(node, Mapping):
        return "key: value pairs"
    if found.key is not None and _SECRET_KEY.search(found.key.text):
        return "something else"
    if not node.text and node.plain:
        return "nothing"
    return quote(node.text)


def _type_hint(document: Document, loc: Loc) -> str:
    found = document.find(loc)
    node = found.node
    if not isinstance(node, Scalar):
        return ""
    if not node.plain and node.text and not isinstance(Scalar(0, 0, node.text).value(), str):
        return "; remove the quotes"
    return value_hint(str(loc[-1]) if loc else "", node.text)
