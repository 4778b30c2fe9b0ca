"""Units as people write them -> UCUM, for `meta`. Pure; an unknown unit is kept as it is.

Source of the spellings: unit columns of Chinese machine lists; of the codes: UCUM (ucum.org). May import: nothing.
"""

_UCUM = {
    "℃": "Cel",
    "°C": "Cel",
    "摄氏度": "Cel",
    "度": "kW.h",  # on an energy meter; a temperature is written ℃
    "千瓦时": "kW.h",
    "kWh": "kW.h",
    "KWH": "kW.h",
    "千瓦": "kW",
    "KW": "kW",
    "瓦": "W",
    "伏": "V",
    "安": "A",
    "赫兹": "Hz",
    "HZ": "Hz",
    "兆帕": "MPa",
    "千帕": "kPa",
    "帕": "Pa",
    "公斤压力": "kgf/cm2",
    "转/分": "r/min",
    "rpm": "r/min",
    "RPM": "r/min",
    "件": "{piece}",
    "个": "{piece}",
    "pcs": "{piece}",
    "毫米": "mm",
    "米": "m",
    "秒": "s",
    "分钟": "min",
    "小时": "h",
    "立方米": "m3",
    "m³": "m3",
    "m³/h": "m3/h",
    "立方米/小时": "m3/h",
    "%RH": "%",
    "％": "%",
}


def ucum(unit: str) -> str:
    """The UCUM code of a unit as written, or the text itself."""
    return _UCUM.get(unit.strip(), unit.strip())
