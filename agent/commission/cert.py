"""`shopfloor cert`: this gateway's certificate, and the servers it trusts.

`show` tells what is to be copied to servers and how each server stands; `trust` asks a server for its certificate, lets
a person compare it, and pins it; `renew` makes another certificate for this gateway. The running agent takes either at
its next attempt. Each returns its exit code: 0 fine, 1 something is wrong, 2 usage or configuration. No command writes
to a device. May import: `agent.columns`, `agent.config`, `agent.logs`, `agent.sentences`,
`collectors.api`, `collectors.certificates`, `collectors.registry`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent import logs
from agent.columns import clean
from agent.config import AgentConfig, load
from agent.sentences import why
from collectors.api import CollectorError
from collectors.certificates import Certificate, Certificates
from collectors.fields import DeviceConfig
from collectors.registry import collector_type

WAIT_S = 15
"""The running agent tries again at least every 10 s, and then has to connect."""


@dataclass(frozen=True)
class _Site:
    """What the commands work with."""

    config: AgentConfig

    @property
    def zh(self) -> bool:
        return self.config.language == "zh"

    def say(self, zh: str, en: str) -> str:
        return zh if self.zh else en

    def certificates(self, device: DeviceConfig) -> Certificates | None:
        """Those of the device's type; None = its connection uses none."""
        kind = collector_type(device.type, self.config.plugins).certificates
        found = kind(Path(self.config.buffer.directory)) if kind is not None else None
        return found if found is not None and found.secures(device) else None

    def secured(self) -> Iterator[tuple[DeviceConfig, Certificates]]:
        for device in self.config.devices:
            if (found := self.certificates(device)) is not None:
                yield device, found


def show(path: Path, *, as_json: bool = False) -> int:
    """Show this gateway's certificate and how it stands with each server; makes the certificate if there is none."""
    site = _open(path)
    if site is None:
        return 2
    pairs = list(site.secured())
    if not pairs:
        return _complain(site.say("没有设备使用证书连接。", "no device uses certificates."), 2)
    try:
        own, file = pairs[0][1].own(), pairs[0][1].file
        servers = {device.name: _standing(device, certificates) for device, certificates in pairs}
    except (OSError, ValueError) as error:
        return _complain(_unusable(site, error), 1)
    fine = _days_left(own) >= 0 and all(server["state"] == "trusted" for server in servers.values())
    if as_json:
        print(json.dumps({"own": {"file": str(file), **_facts(own)}, "servers": servers}, ensure_ascii=False))
        return 0 if fine else 1
    print(site.say("本网关的证书", "This gateway's certificate"))
    for line in _lines(site, own):
        print(f"  {line}")
    print(f"  {site.say('文件    ', 'file       ')} {file}")
    print(
        site.say(
            "  把这个文件复制到每台服务器的“受信任客户端证书”里，或在服务器拒绝一次后点“接受”。",
            "  Copy this file to each server's trusted client certificates, or accept it there once it was refused.",
        )
    )
    print(f"\n{site.say('服务器', 'Servers')}")
    for name, server in servers.items():
        print(f"  {name}  {_standing_words(site, name, server)}")
    return 0 if fine else 1


def trust(path: Path, name: str, *, thumbprint: str | None = None, file: Path | None = None) -> int:
    """Pin the certificate of a device's server, after a person compared it.

    Args:
        path: the configuration.
        name: of the device.
        thumbprint: what it must be (SHA-1 or SHA-256, hex): no question is asked then.
        file: take the certificate from here instead of asking the server.
    """
    site = _open(path)
    if site is None:
        return 2
    device = next((one for one in site.config.devices if one.name == name), None)
    if device is None:
        known = ", ".join(one.name for one, _ in site.secured())
        return _complain(
            site.say(f"没有设备叫 {name}；有：{known}", f"no device is named {name}; there are: {known}"), 2
        )
    certificates = site.certificates(device)
    if certificates is None:
        text = site.say(f"{name} 的连接不使用证书。", f"the connection to {name} uses no certificate.")
        return _complain(text, 2)
    try:
        found = _from_file(certificates, file) if file is not None else _offered(site, device, certificates)
        if found is None:
            return 1
        return _pin(site, device, certificates, found, thumbprint)
    except (OSError, ValueError) as error:
        return _complain(_unusable(site, error), 1)


def renew(path: Path) -> int:
    """Make another certificate and key for this gateway; every server has to trust the new one."""
    site = _open(path)
    if site is None:
        return 2
    pairs = list(site.secured())
    if not pairs:
        return _complain(site.say("没有设备使用证书连接。", "no device uses certificates."), 2)
    try:
        made = pairs[0][1].renew()
    except (OSError, ValueError) as error:
        return _complain(_unusable(site, error), 1)
    for line in _lines(site, made):
        print(line)
    print(
        site.say(
            f"新证书：{pairs[0][1].file}。旧的保留在旁边。请复制到每台服务器；在那之前，断开后的设备连不上。",
            f"the new certificate is {pairs[0][1].file}; the old one is kept beside it. Copy it to each server: until"
            " then a connection that ends cannot be made again.",
        )
    )
    return 0


def _open(path: Path) -> _Site | None:
    loaded = load(path)
    if loaded.config is None:
        for mistake in loaded.mistakes:
            sys.stderr.write(f"{mistake}\n")
        return None
    logs.configure(logs.Settings(level="error"), loaded.config.language, loaded.config.timezone)
    return _Site(loaded.config)


def _from_file(certificates: Certificates, file: Path) -> Certificate:
    return certificates.parse(file.read_bytes())


def _offered(site: _Site, device: DeviceConfig, certificates: Certificates) -> Certificate | None:
    """What the server shows now, else what it showed when it was refused; None = neither, and it was told why."""
    refused = certificates.rejected(device)
    try:
        found = asyncio.run(certificates.offered(device))
    except CollectorError as error:
        reason = why(error.cause, error.text, {**error.facts, "device": device.name}, site.config.language)
        sys.stderr.write(f"{reason}\n")
        if refused is not None:
            sys.stderr.write(
                site.say("改用它上次出示、被拒绝的证书：\n", "taking the certificate it showed when it was refused:\n")
            )
        return refused
    if refused is not None and refused.der != found.der:
        sys.stderr.write(
            site.say(
                f"注意：上次被拒绝的是另一张证书（{refused.thumbprint}）。\n",
                f"note: what was refused last was another certificate ({refused.thumbprint}).\n",
            )
        )
    return found


def _pin(
    site: _Site, device: DeviceConfig, certificates: Certificates, found: Certificate, thumbprint: str | None
) -> int:
    before = certificates.trusted(device)
    for line in _lines(site, found):
        print(line)
    if thumbprint is not None and _plain(thumbprint) not in (found.thumbprint, found.sha256):
        text = site.say(
            "指纹与 --thumbprint 不符，没有信任。", "the thumbprint is not that of --thumbprint: not trusted."
        )
        return _complain(text, 1)
    if before is not None and before.der == found.der:
        certificates.trust(device, found)
        print(site.say("已经是受信任的证书。", "this certificate is trusted already."))
        return 0
    if before is not None:
        print(site.say(f"原来信任的：{before.thumbprint}", f"trusted so far: {before.thumbprint}"))
    if thumbprint is None and not _agreed(site):
        return 2 if not sys.stdin.isatty() else 1
    certificates.trust(device, found)
    print(
        site.say(
            f"已信任。运行中的采集程序会在 {WAIT_S} 秒内自动重连，不用重启。",
            f"trusted. The running agent connects by itself within {WAIT_S} s, without a restart.",
        )
    )
    return 0


def _agreed(site: _Site) -> bool:
    if not sys.stdin.isatty():
        text = "没有终端可以确认：请加 --thumbprint 指纹", "there is no terminal to ask at: add --thumbprint THUMBPRINT"
        _complain(site.say(*text), 2)
        return False
    question = site.say(
        "与服务器上显示的指纹一致吗？信任它？[y/N] ",
        "Is this the thumbprint that the server itself shows? Trust it? [y/N] ",
    )
    sys.stdout.write(question)
    sys.stdout.flush()
    if sys.stdin.readline().strip().casefold() in ("y", "yes", "是", "是的"):
        return True
    print(site.say("没有信任。", "not trusted."))
    return False


def _standing(device: DeviceConfig, certificates: Certificates) -> dict[str, Any]:
    trusted, rejected = certificates.trusted(device), certificates.rejected(device)
    state = "unknown"
    if trusted is not None:
        now = datetime.now(UTC)
        valid = trusted.not_before <= now <= trusted.not_after
        state = "changed" if rejected is not None else "trusted" if valid else "expired"
    return {
        "state": state,
        "trusted": _facts(trusted) if trusted is not None else None,
        "rejected": _facts(rejected) if rejected is not None else None,
    }


def _standing_words(site: _Site, name: str, server: dict[str, Any]) -> str:
    trusted, rejected = server["trusted"], server["rejected"]
    command = f"shopfloor cert trust {name}"
    match server["state"]:
        case "trusted":
            until, shown = trusted["not_after"][:10], trusted["thumbprint"]
            return site.say(f"已信任  {shown}  有效期至 {until}", f"trusted  {shown}  until {until}")
        case "expired":
            until = trusted["not_after"][:10]
            return site.say(
                f"证书不在有效期（至 {until}）：请在服务器上更换", f"not valid now (until {until}): renew it there"
            )
        case "changed":
            shown = rejected["thumbprint"]
            return site.say(f"证书变了，已拒绝  {shown}：{command}", f"changed and refused  {shown}: {command}")
    shown = f"  {rejected['thumbprint']}" if rejected is not None else ""
    return site.say(f"未信任{shown}：{command}", f"not trusted{shown}: {command}")


def _lines(site: _Site, certificate: Certificate) -> list[str]:
    since, until = f"{certificate.not_before:%Y-%m-%d}", f"{certificate.not_after:%Y-%m-%d}"
    days = _days_left(certificate)
    left = site.say(f"还有 {days} 天", f"{days} days left") if days >= 0 else site.say("已到期", "ended")
    if certificate.not_before > datetime.now(UTC):
        left = site.say("尚未生效，请核对时间", "not valid yet: check the clocks")
    rows = [
        (site.say("指纹    ", "thumbprint "), f"{certificate.thumbprint}  (SHA-1)"),
        ("SHA-256 " if site.zh else "SHA-256    ", certificate.sha256),
        (site.say("持有者  ", "subject    "), certificate.subject or "-"),
        (site.say("应用    ", "application"), certificate.application_uri or "-"),
        (site.say("地址    ", "hosts      "), ", ".join(certificate.hosts) or "-"),
        (site.say("密钥    ", "key        "), certificate.key),
        (site.say("有效期  ", "valid      "), f"{since} .. {until}  ({left})"),
    ]
    return [f"{name} {clean(value)}" for name, value in rows]


def _facts(certificate: Certificate) -> dict[str, Any]:
    return {
        "thumbprint": certificate.thumbprint,
        "sha256": certificate.sha256,
        "subject": certificate.subject,
        "application_uri": certificate.application_uri,
        "hosts": list(certificate.hosts),
        "key": certificate.key,
        "not_before": certificate.not_before.isoformat(),
        "not_after": certificate.not_after.isoformat(),
        "days_left": _days_left(certificate),
    }


def _days_left(certificate: Certificate) -> int:
    """Whole days; negative once it has ended."""
    return (certificate.not_after - datetime.now(UTC)).days


def _plain(thumbprint: str) -> str:
    return "".join(char for char in thumbprint.removeprefix("0x") if char not in ": -").upper()


def _unusable(site: _Site, error: OSError | ValueError) -> str:
    if isinstance(error, PermissionError):
        return site.say(
            f"没有权限：{error.filename}。请用 sudo 执行，或切换到服务的用户。",
            f"not allowed: {error.filename}. Use sudo, or run this as the service's user.",
        )
    return site.say(f"证书不能用：{error}", f"the certificates cannot be used: {error}")


def _complain(text: str, code: int) -> int:
    sys.stderr.write(f"{text}\n")
    return code
