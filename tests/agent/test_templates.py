"""Templates: what a device becomes, which file a mistake points into, and that every shipped one is valid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent import templates
from agent.config import Loaded, load
from agent.yaml_source import Mapping, Scalar, parse
from collectors.modbus import TYPE
from collectors.modbus.config import ModbusConfig
from collectors.opcua.config import OpcuaConfig

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "config" / "devices").glob("*.yaml"))
HEAD = "site: plant\ngateway: gw-1\nmqtt: {url: 'mqtts://broker'}\ndevices:\n"  # devices begin in line 5
METER = """\
source: its manual
vars: {ct: {description: ratio}, pt: 1}
type: modbus
interval: 10 s
word_order: CDAB
report: {heartbeat: 30 s}
tags:
  - {name: power, address: "input:52", type: float32, unit: W, scale: [0.1, "${ct}", "${pt}"], deadband: 1}
  - {name: energy, address: "input:342", type: float32, label: "电能 ${ct}"}
"""


def load_with(directory: Path, devices: str, template: str = METER, name: str = "meter.yaml") -> Loaded:
    (directory / name).parent.mkdir(exist_ok=True)
    (directory / name).write_text(template, encoding="utf-8")
    file = directory / "agent.yaml"
    file.write_text(HEAD + devices, encoding="utf-8")
    return load(file)


def devices(loaded: Loaded) -> list[Any]:
    assert not loaded.mistakes, "\n".join(map(str, loaded.mistakes))
    assert loaded.config is not None
    return list(loaded.config.devices)


def printed(loaded: Loaded, directory: Path) -> list[str]:
    return [str(mistake).replace(f"{directory}/", "") for mistake in loaded.mistakes]


def line(name: str = "m1", more: str = "vars: {ct: 40}") -> str:
    return f"  - {{name: {name}, url: 'tcp://10.0.0.1', template: ./meter.yaml, {more}}}\n"


def test_variables_products_and_order(tmp_path: Path) -> None:
    other = line("m2", "vars: {ct: 3, pt: 0.1}, interval: 2 s, word_order: ABCD")
    one, two = devices(load_with(tmp_path, line() + other))
    assert [tag.scale for tag in (one.tags[0], two.tags[0])] == [4.0, 0.03]
    assert (one.tags[1].label, two.tags[1].label) == ("电能 40", "电能 3")
    assert (one.interval, two.interval) == (10.0, 2.0)
    assert (one.word_order, two.word_order) == ("CDAB", "ABCD")
    assert one.report.heartbeat == 30.0


def test_tags_merge_by_name_and_the_device_wins(tmp_path: Path) -> None:
    more = (
        "vars: {ct: 1}, tags: [{name: new, address: 40001, type: int16},"
        " {name: energy, unit: MW.h, label: null}, {name: power, scale: 2}]"
    )
    (one,) = devices(load_with(tmp_path, line(more=more)))
    assert [tag.name for tag in one.tags] == ["power", "energy", "new"]
    power, energy, _ = one.tags
    assert (power.scale, power.unit, power.address) == (2.0, "W", "input:52")
    assert (energy.unit, energy.label, energy.type) == ("MW.h", None, "float32")


def test_a_template_may_have_a_tag_list_with_variables_of_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "list.csv").write_text("name,address,type\na,40001,int16\nb,40002,int16\n")
    template = "type: modbus\ntags_file: list.csv\n"
    text = "  - {name: m, url: 'tcp://10.0.0.1', template: own, tags: [{name: b, unit: V}]}\n"
    (one,) = devices(load_with(tmp_path, text, template, "devices/own.yaml"))
    assert [(tag.name, tag.unit) for tag in one.tags] == [("a", None), ("b", "V")]


def test_own_templates_come_before_shipped_ones(tmp_path: Path) -> None:
    text = "  - {name: m, url: 'tcp://10.0.0.1', template: eastron-sdm120}\n"
    (one,) = devices(load_with(tmp_path, text))
    assert one.tags[0].address == "30001"
    (one,) = devices(
        load_with(tmp_path, text, METER.replace("ct: {description: ratio}", "ct: 1"), "devices/eastron-sdm120.yaml")
    )
    assert one.tags[0].address == "input:52"


def test_contents_of_the_template_count(tmp_path: Path) -> None:
    first = load_with(tmp_path, line())
    second = load_with(tmp_path, line(), METER + "# more\n")
    assert devices(first)[0].fingerprint != devices(second)[0].fingerprint
    assert first.digest != second.digest


BROKEN: dict[str, tuple[str, str, list[str]]] = {
    "not there": (
        METER, "  - {name: m, template: ./mter.yaml}\n",
        ["agent.yaml:5:25: devices[m].template: there is no file './mter.yaml' in "],
    ),
    "unknown name": (
        METER, "  - {name: m, template: eastron-sdm603}\n",
        ["agent.yaml:5:25: devices[m].template: there is no template 'eastron-sdm603'; did you mean 'eastron-sdm630'?"],
    ),
    "variable missing": (
        METER, line(more="unit_id: 1"),
        ["agent.yaml:5:49: devices[m1].template: the template needs vars: {ct: ...}"],
    ),
    "variable unknown": (
        METER, line(more="vars: {ct: 1, ptt: 3}"),
        ["agent.yaml:5:77: devices[m1].vars.ptt: the template has no variable 'ptt'; did you mean 'pt'?"],
    ),
    "value of a variable": (
        METER, line(more="vars: {ct: forty}"),
        ["agent.yaml:5:74: devices[m1].tags[power].scale[#2]: expected numbers that are multiplied, got 'forty'"
         " (for ${ct} at meter.yaml:8:77)"],
    ),
    "not declared": (
        METER.replace("${pt}", "${px}"), line(),
        ["meter.yaml:8:86: devices[m1].template: '${px}' is not declared under vars:; known here: pt, ct"
         " (used at agent.yaml:5:49)"],
    ),
    "told once for many": (
        METER.replace("type: float32, unit", "type: REAL, unit"), line() + line("m2") + line("m3"),
        ["meter.yaml:8:46: devices[m1].tags[power].type: expected bool"],
    ),
    "both files": (
        METER.replace("interval: 10 s", "intervall: 10 s"), line(more="vars: {ct: 1}, unit_id: x"),
        ["agent.yaml:5:87: devices[m1].unit_id: expected a whole number",
         "meter.yaml:4:1: devices[m1].intervall: unknown key 'intervall'; did you mean 'interval'?"],
    ),
    "recursion": (
        METER + "template: ./other.yaml\n", line(),
        ["meter.yaml:10:1: devices[m1].template.template: a template cannot use another template"],
    ),
    "a name": (METER + "name: x\n", line(), ["meter.yaml:10:1: devices[m1].template.name: a template has no name"]),
    "a list": ("- a\n", line(), ["meter.yaml:1:1: file: expected keys such as type:, tags:, vars:"]),
    "notation": ("type: modbus\n\ttags: x\n", line(), ["meter.yaml:2:1: yaml: a tab", "meter.yaml:2:6: yaml: a"]),
    "vars of no template": (
        METER, "  - {name: m, type: host, vars: {a: 1}}\n",
        ["agent.yaml:5:27: devices[m].vars: has no meaning without template:"],
    ),
    "another type": (
        METER, line(more="vars: {ct: 1}, type: host"),
        ["agent.yaml:5:84: devices[m1].type: the template is for type: modbus, got 'host'"],
    ),
    "tag twice": (
        METER, line(more="vars: {ct: 1}, tags: [{name: power, unit: V}, {name: power, unit: W}]"),
        ["agent.yaml:5:116: devices[m1].tags[power].name: the name 'power' is taken already in this device, in line 5"],
    ),
    "duplicate in the template": (
        METER.replace("name: energy", "name: power"), line(),
        ["meter.yaml:9:12: devices[m1].tags[power].name: the name 'power' is taken already in this device, in line 8"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_mistakes_point_into_the_right_file(name: str, tmp_path: Path) -> None:
    template, text, expected = BROKEN[name]
    found = printed(load_with(tmp_path, text, template), tmp_path)
    assert len(found) >= len(expected), "\n".join(found)
    for wanted in expected:
        assert any(one.startswith(wanted) for one in found), "\n".join([wanted, *found])
    assert len(found) == len(expected), "\n".join(found)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_templates_are_valid_and_honest(file: Path, tmp_path: Path) -> None:
    root, mistakes = parse(file.read_text(encoding="utf-8"), file.name)
    assert not mistakes
    assert isinstance(root, Mapping)
    for key in ("source", "tested"):
        node = root.get(key)
        assert isinstance(node, Scalar)
        assert len(node.text) > 10
    filled = {"parts": "D100", "running": "M0", "fault": "X17"} if file.stem.endswith("machine") else {}
    text = f"  - {{name: m, url: 'tcp://10.0.0.1', template: {file.stem}, vars: {filled}}}\n".replace("'D", "D")
    scheme = "opc.tcp" if isinstance(kind := root.get("type"), Scalar) and kind.text == "opcua" else "tcp"
    text = text.replace("'", "").replace("tcp://10.0.0.1", f'"{scheme}://10.0.0.1"')
    (one,) = devices(load_with(tmp_path, text))
    assert isinstance(one, ModbusConfig | OpcuaConfig)
    assert all(tag.label for tag in one.tags)
    if isinstance(one, OpcuaConfig):
        return  # its tags are the plant's own: the template is about what the server takes
    explained = TYPE.explain(one)
    assert len(explained.tags) == len(one.tags) >= 3
    places = [(tag.where.area, tag.where.offset) for tag in one.tags]
    assert len(set(places)) == len(places)


def test_enough_templates_are_shipped_and_found() -> None:
    assert len(SHIPPED) >= 8
    assert templates.shipped_directory() == ROOT / "config" / "devices"


def test_twelve_meters_take_twelve_lines() -> None:
    file = ROOT / "config" / "examples" / "meters.yaml"
    found = devices(load(file))
    text = file.read_text(encoding="utf-8")
    assert len(found) == 12 == len([row for row in text.partition("devices:")[2].splitlines() if row.strip()])
    assert {len(one.tags) for one in found} == {9}
    assert found[0].tags[3].scale == 0.04
