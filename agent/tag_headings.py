"""Headings of tag lists, English and Chinese -> the keys of a tag; and where in a table the headings stand.

The synonyms are headings of lists that machine makers and meter vendors hand out. A heading that could mean two things
is known and refused, with both. May import: the standard library, `agent.grid`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from agent.grid import Grid, fold

SYNONYMS: dict[str, tuple[str, ...]] = {
    "name": (
        "tag", "tag name", "variable", "variable name", "point", "point name", "signal", "signal name", "parameter",
        "名称", "变量", "变量名", "变量名称", "点名", "点位", "点位名", "点位名称", "测点", "测点名", "测点名称",
        "标签名",
        "标签名称", "信号", "信号名", "信号名称", "参数", "参数名", "参数名称", "数据名称", "数据项", "属性名称",
        "标识符",
    ),
    "label": ("display name", "alias", "caption", "title", "显示名", "显示名称", "中文名", "中文名称", "别名",
        "标题"),
    "address": (
        "addr", "register", "register address", "reg", "modbus address", "plc address", "地址", "寄存器",
        "寄存器地址",
        "变量地址", "点位地址", "数据地址", "内存地址", "plc地址", "modbus地址", "软元件", "元件", "元件号",
        "软元件地址",
    ),
    "node": ("node id", "nodeid", "节点", "节点id", "节点地址", "节点标识"),
    "type": ("data type", "datatype", "类型", "数据类型", "变量类型", "数据格式", "值类型"),
    "word_order": (
        "word order", "byte order", "byteorder", "order", "endian", "endianness", "字节序", "字节顺序", "字序",
        "字顺序",
        "大小端", "解析顺序",
    ),
    "interval": (
        "period", "cycle", "poll interval", "polling interval", "scan rate", "scan interval", "采集周期", "采集间隔",
        "采样周期", "采样间隔", "轮询周期", "轮询间隔", "刷新周期", "周期", "间隔",
    ),
    "unit": ("units", "uom", "engineering unit", "单位", "工程单位", "计量单位"),
    "scale": (
        "factor", "multiplier", "gain", "coefficient", "ratio", "scaling", "倍率", "系数", "比例", "比例系数", "缩放",
        "缩放系数", "乘数", "换算系数", "倍数", "分辨率",
    ),
    "offset": ("偏移", "偏移量", "偏置", "零点"),
    "min": ("minimum", "range low", "low", "最小", "最小值", "下限", "下限值", "量程下限", "量程最小值", "范围下限"),
    "max": ("maximum", "range high", "high", "最大", "最大值", "上限", "上限值", "量程上限", "量程最大值",
        "范围上限"),
    "map": ("enum", "enumeration", "mapping", "values", "value map", "枚举", "枚举值", "映射", "值映射", "状态说明",
            "取值说明", "取值含义", "值含义"),
    "invalid": ("invalid value", "invalid values", "无效值", "无效", "无效数据"),
    "deadband": ("dead band", "死区", "死区值", "变化上报阈值"),
    "length": ("len", "registers", "register count", "count", "quantity", "长度", "字符串长度", "寄存器个数",
        "寄存器数",
               "寄存器数量", "寄存器长度", "字数", "数量", "个数"),
    "encoding": ("charset", "编码", "字符编码", "编码方式"),
    "as": ("输出为",),
    "description": ("desc", "comment", "comments", "remark", "remarks", "note", "notes", "meaning", "说明", "备注",
        "描述",
                    "注释", "含义", "功能说明", "注解"),
}  # fmt: skip
"""Key of a tag -> other headings for it; the key itself always is one."""

AMBIGUOUS_DECIMALS = frozenset({
    "decimal", "decimal places", "decimal point", "precision", "digits", "小数", "小数位", "小数位数", "小数点",
    "小数点位数", "小数点位置", "精度",
})  # fmt: skip
ACCESS = frozenset({
    "access", "rw", "r/w", "attribute", "read/write", "读写", "读/写", "读写属性", "读写权限", "权限", "访问",
    "访问权限",
    "属性", "操作属性",
})  # fmt: skip
AREA = frozenset({
    "function", "function code", "fc", "area", "register type", "功能码", "读功能码", "寄存器类型", "区", "区域",
    "存储区",
})  # fmt: skip
_IGNORED = frozenset(
    {"no", "no.", "nr", "nr.", "index", "#", "id", "group", "序号", "编号", "行号", "分组", "组", "组名"}
)
_REFUSED = {
    **dict.fromkeys(
        ("slave", "slave id", "unit id", "station", "device id", "站号", "从站", "从站号", "从站地址", "从机地址",
            "设备地址",
         "通讯地址", "设备号"),
        "a list describes one device: its number is unit_id: of the device",
    ),
    **dict.fromkeys(
        ("bit", "位", "位号", "位地址"), "the bit belongs to the address: write 40010.3 into the address column"
    ),
}  # fmt: skip
_NEUTRAL = frozenset({
    "量程", "范围", "range", "数据", "参数", "变量", "点位", "modbus", "寄存器", "基本", "采集", "plc", "信号", "测点",
    "通讯", "通信", "工程", "工程量", "转换", "换算", "量程转换", "线性转换", "缩放", "signal", "point", "tag", "data",
    "scaling", "conversion",
})  # fmt: skip
"""Headings of several columns that change nothing in the meaning of those below them."""
_ABOUT = re.compile(r"\s*(信息|属性|设置|配置|参数|info|information|settings)$")
"""Endings of such headings that say nothing more."""
_OF_THE_VALUE = frozenset({"scale", "offset", "min", "max", "deadband", "invalid", "map", "decimals?"})
"""What a heading above may change the meaning of: a lower limit of an alarm is no lower limit of the value."""
_ASIDE = re.compile(r"[(\[【]([^)\]】]*)[)\]】]")
_OPERATION = re.compile(r"[除乘÷×*0-9]")
_UNIT = re.compile(r"[(\[【/]\s*(ms|毫秒|s|sec|秒|min|分钟|分)\s*[)\]】]?$", re.IGNORECASE)
_TIME_UNITS = {"ms": "ms", "毫秒": "ms", "s": "s", "sec": "s", "秒": "s", "min": "min", "分钟": "min", "分": "min"}
_LOOKED_AT = 30


@dataclass(frozen=True, slots=True)
class Heading:
    """What a column holds.

    Attributes:
        text: as written.
        key: the tag's key; "decimals?" = rounding or scaling; "access"; "area?" = area or function code; "" = left out.
        unit: of bare numbers in the column, from the heading: `ms` in `采集周期(ms)`.
        own: the heading is the key itself, in this program's words.
    """

    text: str
    key: str
    unit: str = ""
    own: bool = False


@dataclass(slots=True)
class Headings:
    """The columns of a table.

    Attributes:
        columns: by column index.
        row: index of the (last) row of headings.
        mistakes: (row, column, message).
    """

    columns: dict[int, Heading] = field(default_factory=dict)
    row: int = 0
    mistakes: list[tuple[int, int, str]] = field(default_factory=list)


def _plain(text: str) -> str:
    return re.sub(r"[\s_\-*:]+", " ", fold(text)).strip().casefold()


_KNOWN = {_plain(word): key for key, words in SYNONYMS.items() for word in (key, *words)}
_KNOWN |= {word.replace(" ", ""): key for word, key in list(_KNOWN.items())}


def heading(text: str, keys: Collection[str]) -> Heading | None:
    """Return what a heading means; None if nobody knows, or it is refused (see `refusal`).

    Args:
        text: as written.
        keys: those of the tags that are described.
    """
    written = fold(text).strip()
    if written in keys:
        return Heading(text, written, own=True)
    if not written or written.startswith("#"):
        return Heading(text, "")
    match = _UNIT.search(written)
    word = _plain(written[: match.start()] if match is not None else written)
    aside = _ASIDE.search(word)
    for candidate in (
        word,
        _ASIDE.sub("", word).strip(),
        _ASIDE.sub(r"\1", word).replace(" ", ""),
        word.replace(" ", ""),
    ):
        if candidate in AMBIGUOUS_DECIMALS:
            return Heading(text, "decimals?")
        if candidate in ACCESS:
            return Heading(text, "access")
        if candidate in AREA and "address" in keys:
            return Heading(text, "area?")
        key = _KNOWN.get(candidate)
        if key in {"scale", "offset"} and aside is not None and _OPERATION.search(aside[1]):
            return None  # `倍率(除以)`: what is in brackets is to be done with the number
        if key is not None and key in keys:
            return Heading(text, key, _TIME_UNITS[match[1].lower()] if match is not None else "", own=candidate == key)
        if candidate in _IGNORED:
            return Heading(text, "")
    return None


def refusal(text: str) -> str | None:
    """Why a heading is known and cannot be taken, or None."""
    word = _plain(text)
    return _REFUSED.get(word) or _REFUSED.get(word.replace(" ", ""))


def count_known(texts: Sequence[str], keys: Collection[str]) -> int:
    """How many different headings stand in a row."""
    found = {known.key for text in texts if (known := heading(text, keys)) is not None and known.key}
    return len(found)


def find_headings(grid: Grid, keys: Collection[str], required: Sequence[str]) -> Headings | None:
    """Find the row (or two rows, with cells merged over columns) of headings near the top; None if there is none.

    Args:
        grid: the table.
        keys: those of the tags.
        required: keys of which one must be among the headings: the address or node.
    """
    counts = [
        count_known(row, keys) if index not in grid.banners else 0 for index, row in enumerate(grid.rows[:_LOOKED_AT])
    ]
    best = max(counts, default=0)
    if best < 2:
        return None
    last = counts.index(best)
    first = last
    if last > 0 and last - 1 not in grid.banners and _is_upper(grid, last - 1, keys):
        first = last - 1
    elif last + 1 < len(counts) and _is_lower(grid, last, keys):
        last += 1
    found = _columns(grid, first, last, keys)
    return found if any(one.key in required for one in found.columns.values()) or found.mistakes else None


def _is_upper(grid: Grid, row: int, keys: Collection[str]) -> bool:
    """Whether the row above holds headings of several columns, or of one where the row below is empty."""
    texts = [text for text in grid.rows[row] if text.strip()]
    known = sum(1 for text in texts if heading(text, keys) is not None or _plain(text) in _NEUTRAL)
    return len(texts) >= 2 and known >= 1


def _is_lower(grid: Grid, row: int, keys: Collection[str]) -> bool:
    """Whether the row below holds more headings and nothing else: beneath empty, equal or wide cells."""
    texts = grid.rows[row + 1]
    some = False
    for column, text in enumerate(texts):
        above = grid.text(row, column)
        if not text.strip() or _plain(text) == _plain(above):
            continue
        joined = heading(f"{above}{text}", keys) or heading(text, keys)
        if joined is None or not joined.key:
            return False
        some = True
    return some


def _columns(grid: Grid, first: int, last: int, keys: Collection[str]) -> Headings:
    found = Headings(row=last)
    taken: dict[str, int] = {}
    wide = ""
    for column in range(max(len(grid.rows[first]), len(grid.rows[last]))):
        upper, lower = grid.text(first, column).strip(), grid.text(last, column).strip()
        if first != last:
            wide = upper or wide  # in CSV only the first cell of a merged one holds its text
        one = _meaning(wide if first != last else "", upper, lower, keys)
        shown = lower or upper
        if one is None:
            text = shown if first == last or not wide or wide == lower else f"{wide} {lower}".strip()
            why = refusal(lower or upper)
            found.mistakes.append((last, column, f"'{text}': {why}" if why else _unknown(text)))
            continue
        if one.key and one.key in taken:
            message = f"'{shown}' means '{one.key}', and so does column {taken[one.key] + 1} already"
            found.mistakes.append((last, column, f"{message}; begin one of them with # to leave it out"))
            continue
        if one.key:
            taken[one.key] = column
        found.columns[column] = one
    return found


def _meaning(wide: str, upper: str, lower: str, keys: Collection[str]) -> Heading | None:
    if not wide or not lower or _plain(wide) == _plain(lower):
        return heading(lower or upper, keys)
    joined = heading(f"{wide}{lower}", keys)
    if joined is not None and joined.key:
        return joined
    below = heading(lower, keys)
    group = _plain(wide)
    if below is None or below.key not in _OF_THE_VALUE or heading(wide, keys) is not None:
        return below
    return below if {group, _ABOUT.sub("", group)} & _NEUTRAL else None


def _unknown(text: str) -> str:
    return f"unknown heading '{text}': a column whose heading begins with # is left out"
