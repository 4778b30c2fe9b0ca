"""`lines:` of the configuration: each line by its model, which device is on which, and what does not fit together.

May import: pydantic, `agent.config_document`, `agent.config_model`, `agent.config_wording`, `agent.mistakes`,
`agent.yaml_source`, `collectors.fields`, `collectors.line_config`.
"""

from __future__ import annotations

from collections.abc import Mapping as AbstractMapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from agent.config_document import Document
from agent.config_wording import tell_errors
from agent.mistakes import did_you_mean
from agent.yaml_source import Mapping, Scalar, Sequence
from collectors.fields import DeviceConfig, check_name
from collectors.line_config import Endpoint, LineConfig, OnLine, parse_bytes


class Lines:
    """The lines of one document.

    Args:
        document: where mistakes are told.
        written: what stands under `lines`, as plain data.
    """

    def __init__(self, document: Document, written: object) -> None:
        self._document = document
        self.found: dict[str, LineConfig] = {}
        self._names: list[str] = []
        if isinstance(written, dict):
            for name, data in written.items():
                self._read(str(name), data)
        self._check_places()

    def join(self, index: int, device: DeviceConfig) -> None:
        """Tell a device which line it is on, by name or because its url leads to the same place."""
        if not isinstance(device, OnLine):
            return
        name = device.line or self._by_place(device)
        if name is None:
            settings = getattr(device, "settings", None)
        elif name in self.found:
            settings = self.found[name]
            device.join_line(name, settings)
        else:
            if name not in self._names:
                hint = did_you_mean(name, self._names) if self._names else "; write it under lines:"
                self._document.tell(("devices", index, "line"), f"no line is named '{name}'{hint}")
            return
        if isinstance(settings, LineConfig):
            for key, text in device.line_mistakes(settings).items():
                self._document.tell(("devices", index, key), text)

    def _by_place(self, device: OnLine) -> str | None:
        endpoint = getattr(device, "endpoint", None)
        return next((name for name, one in self.found.items() if one.endpoint == endpoint), None)

    def _read(self, name: str, data: object) -> None:
        loc = ("lines", name)
        self._names.append(name)
        try:
            check_name(name)
        except PydanticCustomError as error:
            self._document.tell(loc, str(error), at_key=True)
        if _is_device(self._document, name):
            self._document.tell(loc, f"a device is named '{name}' too: `pause {name}` would mean both", at_key=True)
        if not isinstance(data, AbstractMapping):
            self._document.tell(loc, "expected key: value pairs (url:, baudrate:, ...)")
            return
        try:
            self.found[name] = LineConfig.model_validate(dict(data))
        except ValidationError as errors:
            tell_errors(self._document, errors, LineConfig, loc)

    def _check_places(self) -> None:
        """One place has one line: two would be two owners of one wire."""
        taken: dict[Endpoint, list[tuple[str, LineConfig]]] = {}
        for name, line in self.found.items():
            others = taken.setdefault(line.endpoint, [])
            for other, before in others:
                if line.endpoint.kind != "listen":
                    text = f"leads to the same place as line {other}: put its devices on that one"
                    self._document.tell(("lines", name, "url"), text)
                elif line.registration is None or before.registration is None:
                    text = f"line {other} listens on the same port: both need a registration to tell their modems apart"
                    self._document.tell(("lines", name, "url"), text)
                else:
                    self._check_names(name, line.registration, other, before.registration)
            others.append((name, line))

    def _check_names(self, name: str, registration: str, other: str, before: str) -> None:
        """Who calls is known by its first bytes, so none may be the beginning of another."""
        ours, theirs = parse_bytes(registration), parse_bytes(before)
        if ours == theirs:
            self._document.tell(("lines", name, "registration"), f"is the one of line {other} already")
        elif ours.startswith(theirs) or theirs.startswith(ours):
            text = f"cannot be told from the one of line {other}: one is the beginning of the other"
            self._document.tell(("lines", name, "registration"), text)


def _is_device(document: Document, name: str) -> bool:
    devices = document.root.get("devices")
    for device in devices.items if isinstance(devices, Sequence) else ():
        written: Any = device.get("name") if isinstance(device, Mapping) else None
        if isinstance(written, Scalar) and written.text == name:
            return True
    return False
