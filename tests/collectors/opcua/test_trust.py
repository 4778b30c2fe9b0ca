"""Certificates on disk: made once, whole, closed to others; one per device."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from collectors.opcua import trust
from collectors.opcua.certificate import clean_host, describe, first, is_for, parse, weakness
from collectors.opcua.trust import ClockNotSet, TrustStore
from tests.servers.opcua_secure import pair


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_own_certificate_is_what_servers_expect(tmp_path: Path) -> None:
    own = TrustStore(tmp_path, "gw-01").own()
    certificate = x509.load_der_x509_certificate(own.certificate.der)
    now = datetime.now(UTC)
    assert own.certificate.application_uri == "urn:gw-01:shopfloor-agent"
    assert own.certificate.hosts == ("gw-01",)
    assert own.certificate.key == "RSA 2048"
    assert own.certificate.not_before <= now - timedelta(hours=23)
    assert timedelta(days=3640) < own.certificate.not_after - now < timedelta(days=3651)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert usage.content_commitment
    assert usage.key_encipherment
    assert usage.data_encipherment
    extended = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(extended) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    key = serialization.load_pem_private_key(own.key, None)
    assert key.public_key() == certificate.public_key()
    assert weakness(own.certificate) is None


def test_the_key_is_closed_to_others_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = TrustStore(tmp_path, "gw-01")
        own = store.own()
        store.trust("cnc", own.certificate)
    finally:
        os.umask(before)
    assert mode(store.file.with_name("key.pem")) == 0o600
    assert mode(store.file.parent) == 0o700
    assert mode(tmp_path / "opcua") == 0o700
    assert "PRIVATE" not in repr(own)
    assert sorted(path.name for path in (tmp_path / "opcua").iterdir()) == ["own", "trusted"]


def test_it_is_made_once_whoever_comes_at_the_same_time(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        thumbprints = set(pool.map(lambda _: TrustStore(tmp_path, "gw-01").own().certificate.thumbprint, range(4)))
    assert len(thumbprints) == 1
    assert [path.name for path in (tmp_path / "opcua").iterdir()] == ["own"]
    # A gateway that is renamed keeps the certificate that its servers trust.
    assert TrustStore(tmp_path, "renamed").own().certificate.thumbprint in thumbprints


def test_a_clock_that_is_not_set_makes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "EARLIEST", datetime.now(UTC) + timedelta(days=1))
    with pytest.raises(ClockNotSet, match="the clock shows"):
        TrustStore(tmp_path, "gw-01").own()
    assert list(tmp_path.iterdir()) == []


def test_renewing_keeps_the_old_pair_aside(tmp_path: Path) -> None:
    store = TrustStore(tmp_path, "gw-01")
    before = store.own()
    after = store.renew()
    assert after.certificate.thumbprint != before.certificate.thumbprint
    (aside,) = (path for path in (tmp_path / "opcua").iterdir() if path.name != "own")
    assert describe((aside / "certificate.der").read_bytes()) == before.certificate


def test_trusted_and_rejected_are_one_each_by_device(tmp_path: Path) -> None:
    store = TrustStore(tmp_path / "state", "gw-01")
    one, two = (describe(pair(tmp_path, name).der) for name in ("one", "two"))
    assert store.trusted("cnc") is store.rejected("cnc") is None
    store.reject("cnc", one)
    written = (tmp_path / "state/opcua/rejected/cnc.der").stat().st_mtime_ns
    store.reject("cnc", one)
    assert (tmp_path / "state/opcua/rejected/cnc.der").stat().st_mtime_ns == written
    store.reject("cnc", two)
    assert store.rejected("cnc") == two
    store.trust("cnc", two)
    assert (store.trusted("cnc"), store.rejected("cnc"), store.trusted("cnc-2")) == (two, None, None)
    (tmp_path / "state/opcua/trusted/cnc.der").write_bytes(b"no certificate")
    with pytest.raises(ValueError, match="DER"):
        store.trusted("cnc")


def test_chains_pem_hosts_and_weak_keys(tmp_path: Path) -> None:
    made = pair(tmp_path, "plc", hosts=("10.0.0.1", "fe80::1"))
    plc = describe(made.der)
    assert describe(made.der + pair(tmp_path, "authority").der) == plc
    pem = x509.load_der_x509_certificate(made.der).public_bytes(serialization.Encoding.PEM)
    assert parse(pem) == parse(made.der) == plc
    assert is_for(plc, "10.0.0.1")
    assert is_for(plc, "FE80::1")
    assert not is_for(plc, "10.0.0.2")
    assert "RSA 1024" in (weakness(describe(pair(tmp_path, "weak", bits=1024).der)) or "")


@given(st.binary(max_size=200))
def test_what_is_no_certificate_is_a_value_error(data: bytes) -> None:
    for function in (describe, parse, first):
        if function is first and data[:1] == b"0":
            continue  # a sequence, though of nothing known
        with pytest.raises(ValueError):  # noqa: PT011  # whatever the parser says
            function(data)


@given(st.text(max_size=100))
def test_any_host_name_becomes_one_for_certificates(host: str) -> None:
    name = clean_host(host)
    assert 1 <= len(name) <= 63
    x509.DNSName(name)
    x509.UniformResourceIdentifier(f"urn:{name}:shopfloor-agent")
