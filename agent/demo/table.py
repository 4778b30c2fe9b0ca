"""The live table as lines of text for a window of any size. Pure.

Promises: never more lines than the window is high, no line wider than it; every device keeps some rows.
May import: the standard library, `agent.columns`, `agent.demo.*` that are pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from agent.columns import cut, width
from agent.demo.board import DeviceView, TagView, Value
from agent.demo.cells import Colour, Paint, fit, wrap
from agent.demo.texts import Texts

_FLASH_MS = 700
_GAP = 2
_GROUPED_FROM = 100_000
_ROWS_EACH = 3
_BYTE = "By"  # UCUM
_BYTES_SCALED_FROM = 10_000
_BYTE_UNITS = ("kB", "MB", "GB", "TB")
_BRAILLE = 0x2800
# Dots of a braille cell by height, the lowest first: a bar of height h lights the first h of its column.
_LEFT_DOTS = (0x40, 0x04, 0x02, 0x01)
_RIGHT_DOTS = (0x80, 0x20, 0x10, 0x08)


@dataclass(frozen=True, slots=True)
class Layout:
    """Columns of the table; 0 = not shown."""

    device: int = 12
    tag: int = 20
    label: int = 0
    value: int = 13
    unit: int = 6
    age: int = 6
    quality: int = 13
    trend: int = 0

    def columns(self) -> list[tuple[str, int]]:
        """Name and width of the columns that are shown, from left to right."""
        names = ("device", "tag", "label", "value", "unit", "trend", "age", "quality")
        return [(name, size) for name in names if (size := getattr(self, name))]

    @property
    def width(self) -> int:
        """Width of a whole row."""
        shown = self.columns()
        return sum(size for _, size in shown) + _GAP * (len(shown) - 1)


_STEPS_DOWN: tuple[dict[str, int], ...] = (
    {"tag": 16, "value": 12},
    {"quality": 8, "device": 8},
    {"unit": 0},
    {"quality": 0},
    {"device": 0},
    {"age": 0},
    {"tag": 8, "value": 8},
    {"tag": 1, "value": 1},
)


def layout(columns: int, *, trends: bool = True) -> Layout:
    """The columns that fit into this width: fewer in a narrow window; labels and trends in a wide one."""
    chosen = Layout()
    for step in _STEPS_DOWN:
        if chosen.width <= columns:
            break
        chosen = replace(chosen, **step)
    spare = columns - chosen.width
    if spare >= 14 + _GAP:
        chosen = replace(chosen, label=14)
        spare = columns - chosen.width
        if trends and spare >= 16 + _GAP:
            chosen = replace(chosen, trend=16)
            spare = columns - chosen.width
    for name, most in (("value", 17), ("quality", 17), ("tag", 25), ("label", 24), ("device", 16), ("unit", 7)):
        size = getattr(chosen, name)
        if size:
            grown = max(size, min(most, size + spare))
            spare -= grown - size
            chosen = replace(chosen, **{name: grown})
    return chosen


def shares(wanted: Sequence[int], room: int) -> list[int]:
    """Deal out `room` rows, nobody more than wanted: some to each, then the small ones in full before the large."""
    given = [0] * len(wanted)
    smallest_first = sorted(range(len(wanted)), key=lambda index: wanted[index])
    for enough in (*range(1, _ROWS_EACH + 1), max(wanted, default=0)):
        for index in smallest_first:
            more = min(wanted[index], enough) - given[index]
            more = max(0, min(more, room))
            given[index] += more
            room -= more
    return given


def value_text(value: Value, texts: Texts) -> str:
    """A value for people: no more digits than mean something; a dash for none."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return texts("yes" if value else "no")
    if isinstance(value, str):
        return value
    if abs(value) >= _GROUPED_FROM and value == int(value):
        return f"{int(value):,}"
    short = f"{value:.6g}"
    return short if "e" not in short else repr(value)


def for_people(value: Value, unit: str, texts: Texts) -> tuple[str, str]:
    """A value and its unit; large numbers of bytes in kB to TB."""
    if unit == _BYTE and isinstance(value, int | float) and abs(value) >= _BYTES_SCALED_FROM:
        step = min(len(_BYTE_UNITS), (len(str(int(abs(value)))) - 1) // 3)
        return f"{value / 1000**step:.4g}", _BYTE_UNITS[step - 1]
    return value_text(value, texts), unit


def age_text(age_ms: int) -> str:
    """How old something is, in at most six columns."""
    seconds = max(0, age_ms) / 1000
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"


def sparkline(samples: Iterable[float], columns: int) -> str:
    """The last samples as bars of braille dots, two to a column, scaled to their own range."""
    last = list(samples)[-2 * columns :]
    if not last:
        return ""
    low, high = min(last), max(last)
    span = high - low
    heights = [1 + round(3 * (sample - low) / span) if span else 1 for sample in last]
    if len(heights) % 2:
        heights.insert(0, 0)
    pairs = zip(heights[::2], heights[1::2], strict=True)
    return "".join(chr(_BRAILLE + sum(_LEFT_DOTS[:left]) + sum(_RIGHT_DOTS[:right])) for left, right in pairs)


def quality_colour(quality: str) -> Colour:
    """Green, yellow or red."""
    if not quality:
        return "green"
    return "yellow" if quality.startswith("uncertain") else "red"


class Table:
    """Draws devices into a window.

    Args:
        trends: whether the terminal can be expected to show braille.
    """

    def __init__(self, texts: Texts, paint: Paint, *, trends: bool = True) -> None:
        self._texts = texts
        self._paint = paint
        self._trends = trends

    def window(
        self,
        title: tuple[str, str],
        devices: Sequence[DeviceView],
        footer: Sequence[tuple[Sequence[str], str]],
        size: tuple[int, int],
        now_ms: int,
    ) -> list[str]:
        """The whole window.

        Args:
            title: what stands left and right in the first line.
            devices: in the order in which they are shown.
            footer: paragraphs, each of parts and what stands between them; the last ones give way in a low window.
            size: columns and lines of the window.
        """
        columns, lines = size
        left, right = title
        blanks = max(1, columns - width(left) - width(right) - 2)
        head = self._paint(fit(f" {left}{' ' * blanks}{right} ", columns), "reverse")
        foot = [line for parts, gap in footer for line in wrap(parts, columns, gap)]
        foot = foot[: max(0, lines - 3 - 2 * len(devices))]
        rows = self.rows(devices, columns, max(0, lines - 2 - len(foot)), now_ms)
        return [head, *rows, "", *foot][:lines]

    def rows(self, devices: Sequence[DeviceView], columns: int, room: int, now_ms: int) -> list[str]:
        """Heading and rows of all devices in at most `room` lines."""
        chosen = layout(columns, trends=self._trends)
        heading = self._row(chosen, {name: self._texts(name) for name, _ in chosen.columns()}, {})
        lines = [self._paint(cut(heading, columns), "bold")]
        dealt = shares([max(1, len(device.tags)) for device in devices], room - 1)
        for device, count in zip(devices, dealt, strict=True):
            lines += self._device(device, chosen, count, now_ms)
        return lines[: max(0, room)]

    def _device(self, device: DeviceView, chosen: Layout, count: int, now_ms: int) -> list[str]:
        names = [device.name, device.label, self._texts.state(device.state)]
        colours: list[tuple[Colour, ...]] = [("bold", "cyan"), (), _STATE_COLOURS.get(device.state, ("dim",))]
        shown = list(device.tags.items())
        hidden = len(shown) - count
        if hidden > 0:
            shown = shown[: max(0, count - 1)]
            hidden += 1
        lines = []
        for index, (name, tag) in enumerate(shown):
            cells, painted = self._cells(name, tag, now_ms, chosen.trend)
            cells["device"] = names[index] if index < len(names) else ""
            painted["device"] = colours[index] if index < len(names) else ()
            lines.append(self._row(chosen, cells, painted))
        if hidden > 0 or not shown:
            note = self._texts("more", n=hidden) if hidden > 0 else self._texts("waiting")
            label = "" if lines else device.name
            lines.append(self._note(chosen, label, note))
        return lines[:count]

    def _note(self, chosen: Layout, device: str, note: str) -> str:
        lead = f"{fit(device, chosen.device)}{' ' * _GAP}" if chosen.device else ""
        return lead + self._paint(cut(note, max(1, chosen.width - width(lead))), "dim")

    def _cells(
        self, name: str, tag: TagView, now_ms: int, trend: int
    ) -> tuple[dict[str, str], dict[str, tuple[Colour, ...]]]:
        fresh = tag.changed_at > 0 and now_ms - tag.changed_at < _FLASH_MS
        known = tag.at > 0
        value, unit = for_people(tag.value, tag.unit, self._texts)
        cells = {
            "tag": name,
            "label": tag.label,
            "value": value if known else "",
            "unit": unit,
            "age": age_text(now_ms - tag.at) if known else "",
            "quality": (tag.quality or self._texts("good")) if known else "",
            "trend": sparkline(tag.trend, trend) if trend else "",
        }
        painted: dict[str, tuple[Colour, ...]] = {
            "value": (quality_colour(tag.quality),) if tag.quality else ("bold",) if fresh else (),
            "unit": ("dim",),
            "age": ("dim",),
            "trend": ("cyan",),
            "quality": (quality_colour(tag.quality),),
        }
        return cells, painted

    def _row(self, chosen: Layout, cells: dict[str, str], painted: dict[str, tuple[Colour, ...]]) -> str:
        parts = []
        for name, size in chosen.columns():
            text = fit(cells.get(name, ""), size, right=name in _RIGHT)
            parts.append(self._paint(text, *painted.get(name, ())))
        return (" " * _GAP).join(parts)


_RIGHT = frozenset({"value", "age"})
_STATE_COLOURS: dict[str, tuple[Colour, ...]] = {
    "ok": ("green",),
    "degraded": ("yellow",),
    "bad": ("red",),
    "misconfigured": ("red",),
}
