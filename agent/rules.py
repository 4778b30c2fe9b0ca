"""Value rules of a tag, compiled: scale, offset, decimals, limits, maps. Pure.

Promises: scale and offset are one exact fraction of decimals; a value outside its limits, without a text in its map,
or beyond what JSON readers hold exactly is None and a reason, never a number. May import: `collectors.api`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from math import inf, isfinite, lcm
from typing import TypeAlias

from collectors.api import TagInfo, TagRules, Value

LARGEST_EXACT = 2**53
"""Beyond it a JSON reader that uses doubles sees another integer."""
BAD_RANGE = "bad:range"
BAD_DECODE = "bad:decode"
BAD_INVALID = "bad:invalid"

Step: TypeAlias = Callable[[Value], tuple[Value, str | None]]
"""Raw value -> published value and, if it became unusable, why."""

_TO_INTEGER = 1.5 * 2**52
"""Added to a float of less than 2^51 and taken off again, it leaves the nearest integer."""
_SURE = 1e9
"""Below it a product is wrong by less than 2e-7, ..."""
_NOT_HALF = 0.4999
"""... so what is no further than this from an integer is not half-way between two."""
_DIGITS = 15
"""A decimal of so many digits comes back from a double as it went in."""


def compile_step(tag: TagInfo) -> Step | None:
    """Return the function from raw to published value of a tag, or None if it is published as it is.

    Scale and offset are applied as one exact fraction of decimals: 3 x 0.1 is published as 0.3, not
    0.30000000000000004.
    """
    long_way, rules = compile_long_way(tag), tag.rules
    if long_way is None or (rules.scale is None and rules.offset is None):
        return long_way
    return long_way if rules.map is not None or rules.as_string or tag.wide else _short_way(rules, long_way)


def compile_long_way(tag: TagInfo) -> Step | None:
    """The same, one rule after the other: what `compile_step` takes for any value that is not an everyday number."""
    rules = tag.rules
    steps: list[Step] = []
    if rules.scale is not None or rules.offset is not None:
        steps.append(_linear(*_fraction(rules), rules.as_string))
    if rules.decimals is not None:
        steps.append(_rounded(rules.decimals))
    if rules.minimum is not None or rules.maximum is not None:
        steps.append(_limited(rules.minimum, rules.maximum))
    if rules.map is not None:
        steps.append(_mapped(rules.map))
    if rules.as_string:
        steps.append(lambda value: (str(value), None))
    elif tag.wide:
        steps.append(_exact)
    if not steps:
        return None
    if len(steps) == 1:
        return steps[0]

    def chain(value: Value) -> tuple[Value, str | None]:
        for step in steps:
            value, reason = step(value)
            if value is None:
                return None, reason
        return value, None

    return chain


def _short_way(rules: TagRules, long_way: Step) -> Step:
    """Scale, offset, decimals and limits in one go for numbers in the everyday range; a fifth of the work."""
    factor, addend, denominator = _fraction(rules)
    low = rules.minimum if rules.minimum is not None else -inf
    high = rules.maximum if rules.maximum is not None else inf
    decimals = rules.decimals
    power = 10**decimals if decimals is not None else 1
    # A fraction of integers that has no more decimals than asked for is what rounding would make of it, in doubles
    # too as long as these hold all its digits.
    round_integers = decimals is not None and (power % denominator != 0 or denominator == 1)
    edge = float(min(10**_DIGITS // power, LARGEST_EXACT)) if decimals is not None else float(LARGEST_EXACT)

    def step(value: Value) -> tuple[Value, str | None]:
        kind = value.__class__
        if kind is not float and kind is not int:
            return long_way(value)
        scaled = (value * factor + addend) / denominator if denominator != 1 else value * factor + addend  # type: ignore[operator]
        if not -edge < scaled < edge:
            return long_way(value)
        if decimals is not None and (kind is float or round_integers) and scaled.__class__ is float:
            shifted = scaled * power
            whole = shifted + _TO_INTEGER - _TO_INTEGER
            if decimals and whole and -_SURE < shifted < _SURE and -_NOT_HALF < shifted - whole < _NOT_HALF:
                scaled = whole / power
            else:
                scaled = round(scaled, decimals) if decimals else round(scaled)
        return (scaled, None) if low <= scaled <= high else (None, BAD_RANGE)

    return step


def _fraction(rules: TagRules) -> tuple[float, float, int]:
    """Scale and offset as (raw * factor + addend) / denominator, all integers unless these were too large."""
    scale = Fraction(repr(rules.scale)) if rules.scale is not None else Fraction(1)
    offset = Fraction(repr(rules.offset)) if rules.offset is not None else Fraction(0)
    denominator = lcm(scale.denominator, offset.denominator)
    factor, addend = int(scale * denominator), int(offset * denominator)
    if max(abs(factor), abs(addend), denominator) > LARGEST_EXACT:
        # Not a decimal that a person would write; such numbers are not exact in floating point either.
        return float(scale), float(offset), 1
    return factor, addend, denominator


def _linear(factor: float, addend: float, denominator: int, as_string: bool) -> Step:
    def linear(value: Value) -> tuple[Value, str | None]:
        if isinstance(value, str | None):
            return None, BAD_DECODE
        result = value * factor + addend
        scaled = result / denominator if denominator != 1 else result
        if not isfinite(scaled):
            return None, BAD_RANGE
        # Integers that JSON readers cannot hold are none that a device counts: the tag stays a number.
        return (scaled if as_string or abs(scaled) <= LARGEST_EXACT else float(scaled)), None

    return linear


def _rounded(decimals: int) -> Step:
    def rounded(value: Value) -> tuple[Value, str | None]:
        if not isinstance(value, float):
            return value, None
        if not isfinite(value):
            return None, BAD_INVALID
        if abs(value) > LARGEST_EXACT:
            return value, None  # has no decimals, and would become an integer that JSON cannot hold
        return (round(value, decimals) if decimals else round(value)), None

    return rounded


def _limited(minimum: float | None, maximum: float | None) -> Step:
    low = minimum if minimum is not None else float("-inf")
    high = maximum if maximum is not None else float("inf")

    def limited(value: Value) -> tuple[Value, str | None]:
        if isinstance(value, str | None) or low <= value <= high:
            return value, None
        return None, BAD_RANGE

    return limited


def _mapped(texts: Mapping[int, str]) -> Step:
    def mapped(value: Value) -> tuple[Value, str | None]:
        text = texts.get(value) if value is not None else None  # type: ignore[arg-type]  # 1.0 finds the key 1
        return (text, None) if text is not None else (None, BAD_RANGE)

    return mapped


def _exact(value: Value) -> tuple[Value, str | None]:
    if isinstance(value, int | float) and abs(value) > LARGEST_EXACT:
        return None, BAD_RANGE
    return value, None
