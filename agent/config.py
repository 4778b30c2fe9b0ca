"""The configuration: one YAML file, checked as a whole, every mistake at once.

`load` never raises for what a person wrote: it returns the configuration, or every mistake with its place. Devices are
validated by the model of their type, which the registry loads only when a device of the type is configured. May
import: pydantic, the `agent.config_*` modules, `agent.yaml_source`, `collectors.fields`,
`collectors.line_config`, `collectors.registry`.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Mapping as AbstractMapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from agent import topics
from agent.config_checks import check_deadbands, check_mqtt, check_names, check_topics
from agent.config_document import Document, Loc
from agent.config_expand import Expander
from agent.config_lines import Lines
from agent.config_model import AgentConfig, Loaded, MqttConfig, check_gateway
from agent.config_reader import Reader, Shape, shapes_of
from agent.config_wording import tell_errors
from agent.mistakes import Mistake, did_you_mean, quote
from agent.secret_files import FileUnusable, read_secret
from agent.yaml_source import FileRefused, Mapping, Node, Scalar, Sequence, parse, read_text
from collectors.fields import DeviceConfig, check_name, parse_duration
from collectors.registry import BUILT_IN, ENTRY_POINT_GROUP, UnknownType, collector_type, type_names

CONFIG_FILE = Path("/etc/shopfloor-agent/agent.yaml")
"""Where the daemon looks unless told otherwise."""

__all__ = [
    "CONFIG_FILE",
    "AgentConfig",
    "FileUnusable",
    "Loaded",
    "Mistake",
    "MqttConfig",
    "load",
    "read_secret",
]


def load(path: Path) -> Loaded:
    """Read and check a configuration file and the files it names. Raises nothing for what a person wrote."""
    try:
        text, data = read_text(path)
    except FileRefused as refused:
        return Loaded(None, [refused.mistake])
    file = str(path)
    root, mistakes = parse(text, file)
    digest = hashlib.sha256(data)
    if root is None or not isinstance(root, Mapping):
        if not mistakes:
            mistakes.append(_no_mapping(file, root))
        return Loaded(None, mistakes, f"sha256:{digest.hexdigest()}")
    document = Document(file, path.absolute().parent, root)
    loader = _Loader(document)
    config = loader.run()
    for name, content in sorted(loader.files.items()):
        digest.update(f"\n{name} {content}".encode())
    mistakes = sorted({*mistakes, *document.mistakes})
    return Loaded(None if mistakes else config, mistakes, f"sha256:{digest.hexdigest()}")


def _no_mapping(file: str, root: Node | None) -> Mistake:
    if root is None or (isinstance(root, Scalar) and not root.text):
        message = "holds nothing but comments; config/agent.yaml is an annotated example to start from"
        return Mistake(file, 1, 1, "file", message)
    came = quote(root.text) if isinstance(root, Scalar) else "a list"
    hint = ""
    if isinstance(root, Scalar) and ("：" in root.text or ":" in root.text):
        hint = "; a key needs a plain colon and a space after it: 'site: plant-2'"
    return Mistake(
        file, root.line, root.column, "file", f"expected keys such as site:, mqtt:, devices:, got {came}{hint}"
    )


def _usable_defaults(written: object) -> dict[str, float]:
    """What `defaults` says, without what is wrong in it: that is told once, not at each device."""
    usable: dict[str, float] = {}
    for key, value in written.items() if isinstance(written, dict) else ():
        try:
            usable[key] = parse_duration(value)
        except PydanticCustomError:
            continue
    return {key: seconds for key, seconds in usable.items() if seconds > 0}


class _Loader:
    """Checks one document: top-level keys, then each device by its type, then what only the whole shows."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.files: dict[str, str] = {}
        self._plugins: tuple[str, ...] = ()
        self._brought_in: dict[int, dict[str, str]] = {}

    def run(self) -> AgentConfig | None:
        document = self.document
        top, mqtt_files = self._top()
        self._check_plugins(top)
        self._expand()
        check_names(document)
        lines = Lines(document, top.get("lines"))
        if isinstance(top.get("lines"), dict):
            top["lines"] = lines.found
        devices = self._devices(_usable_defaults(top.get("defaults")), lines)
        self._gateway(top)
        mqtt = top.get("mqtt")
        if isinstance(mqtt, dict):
            check_mqtt(document, mqtt)
        has_devices = isinstance(document.root.get("devices"), Sequence)
        config: AgentConfig | None = None
        if has_devices:
            top["devices"] = tuple(devices.values())
        try:
            config = AgentConfig.model_validate(top)
        except ValidationError as errors:
            tell_errors(document, errors, AgentConfig)
        if config is not None:
            config.mqtt.remember_files(mqtt_files)
            check_topics(document, config.mqtt, config.site, config.gateway, (one.name for one in config.devices))
        for index, device in devices.items():
            check_deadbands(document, index, device)
        return config

    def _top(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Everything but the devices, and the files that `mqtt` names."""
        without_devices = Mapping(self.document.root.line, self.document.root.column)
        without_devices.items = [item for item in self.document.root.items if item[0].text != "devices"]
        reader = Reader(self.document)
        top: dict[str, Any] = reader.read(without_devices, Shape(model=AgentConfig), ())
        devices = self.document.root.get("devices")
        if devices is not None and not isinstance(devices, Sequence):
            top["devices"] = devices.text if isinstance(devices, Scalar) and devices.text else {}
        self.files.update(reader.files)
        return top, reader.files

    def _gateway(self, top: dict[str, Any]) -> None:
        """The host's name where no other is written, and the client id made of it."""
        if "gateway" not in top:
            host = socket.gethostname()
            try:
                check_gateway(check_name(host))
            except PydanticCustomError as error:
                self.document.tell(("gateway",), f"is not written, and the host's name '{host}' cannot be it: {error}")
            top["gateway"] = host if not self.document.was_told(("gateway",)) else "unnamed"
        mqtt = top.get("mqtt")
        if isinstance(mqtt, dict) and isinstance(written := mqtt.get("client_id", "shopfloor-{gateway}"), str):
            mqtt["client_id"] = topics.expand(written, site=str(top.get("site")), gateway=str(top["gateway"]))

    def _check_plugins(self, top: AbstractMapping[str, Any]) -> None:
        names = top.get("plugins", ())
        if not isinstance(names, tuple):
            return
        installed: set[str] = set()
        if names:
            from importlib.metadata import entry_points  # brings zipfile and email along

            installed = {point.name for point in entry_points(group=ENTRY_POINT_GROUP)}
        for index, name in enumerate(names):
            if name in BUILT_IN:
                self.document.tell(("plugins", index), f"'{name}' is built in and needs no plugin")
            elif name not in installed:
                found = f"installed: {', '.join(sorted(installed))}" if installed else "none is installed"
                self.document.tell(("plugins", index), f"no plugin of the name {quote(name)} is installed ({found})")
        self._plugins = tuple(name for name in names if isinstance(name, str) and name in installed)

    def _expand(self) -> None:
        """Put templates and tag lists into the devices."""
        # Not an attribute: it knows this loader, and in a circle all cells of all lists would stay until a collection.
        expander = Expander(self.document, self._device_model)
        node = self.document.root.get("devices")
        for index, child in enumerate(node.items if isinstance(node, Sequence) else ()):
            if isinstance(child, Mapping):
                assert isinstance(node, Sequence)
                node.items[index] = expander.expand(index, child)
        self.document.mistakes += expander.templates.mistakes
        self._brought_in = expander.files

    def _devices(self, defaults: AbstractMapping[str, float], lines: Lines) -> dict[int, DeviceConfig]:
        node = self.document.root.get("devices")
        if not isinstance(node, Sequence):
            return {}
        found: dict[int, DeviceConfig] = {}
        for index, child in enumerate(node.items):
            device = self._device(index, child, defaults)
            if device is not None:
                lines.join(index, device)
                found[index] = device
        return found

    def _device(self, index: int, node: Node, defaults: AbstractMapping[str, float]) -> DeviceConfig | None:
        loc = ("devices", index)
        if not isinstance(node, Mapping):
            self.document.tell(loc, "expected key: value pairs (name:, type:, ...)")
            return None
        model = self._device_model(loc, node)
        if model is None:
            return None
        reader = Reader(self.document)
        data: dict[str, Any] = reader.read(node, Shape(model=model), loc)
        reader.files.update(self._brought_in.get(index, {}))
        self.files.update(reader.files)
        for key in ("interval", "timeout"):
            if key not in data and key in defaults and key in shapes_of(model):
                data[key] = defaults[key]
        try:
            device = model.model_validate(data)
        except ValidationError as errors:
            tell_errors(self.document, errors, model, loc)
            return None
        device.remember_files(reader.files)
        return device

    def _device_model(self, loc: Loc, node: Mapping) -> type[DeviceConfig] | None:
        kind = node.get("type")
        known = type_names(self._plugins)
        if not isinstance(kind, Scalar) or not kind.text:
            self.document.tell((*loc, "type"), f"'type:' is missing: {', '.join(known)}")
            return None
        try:
            model = collector_type(kind.text, self._plugins).config_model
        except UnknownType:
            hint = did_you_mean(kind.text, known)
            self.document.tell((*loc, "type"), f"unknown device type {quote(kind.text)}{hint}")
            return None
        except (ImportError, AttributeError) as error:
            self.document.tell((*loc, "type"), f"the collector '{kind.text}' cannot be loaded: {error}")
            return None
        assert issubclass(model, DeviceConfig)
        return model
