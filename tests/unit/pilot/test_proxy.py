"""Proxies and certificates are read without any tool, and judged by tables."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.common.der import Element, elements
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import NoGridProxy
from pilot.user.generic.proxy import verify_proxy
from pilot.util.proxy import ProxyInfo, get_distinguished_name, parse_proxy, read_proxy, verdict
from tests.x509 import FQANS, USER_NAME, X509

C = ErrorCodes
# Made by voms-proxy-fake (tests/x509.py); it has ended, and its key was taken out.
GOLDEN = (Path(__file__).parents[2] / "golden" / "voms_proxy.pem").read_bytes()
HOUR = 3600.0
INFO = ProxyInfo("/CN=a/CN=1", "/CN=a", "/CN=a", begins=0.0, ends=1000.0, is_proxy=True)
VOMS = replace(INFO, vo="atlas", fqans=FQANS, voms_ends=500.0)


# ---- reading


def test_a_proxy_says_who_it_is_and_how_long_it_lasts(x509: X509) -> None:
    before = time.time()
    info = read_proxy(x509.proxy(hours=2, voms=False))
    assert info.identity == info.issuer == USER_NAME
    assert info.subject.startswith(f"{USER_NAME}/CN=") and info.is_proxy
    assert abs(info.ends - before - 2 * HOUR) < 60
    assert info.begins < before
    assert (info.vo, info.fqans, info.voms_ends, info.role) == ("", (), 0.0, "")


def test_voms_attributes_are_read(x509: X509) -> None:
    info = parse_proxy(GOLDEN)
    assert (info.vo, info.fqans) == ("atlas", FQANS)
    assert info.identity == USER_NAME and info.is_proxy
    assert info.voms_ends == info.ends == 1795276447.0
    assert info.role == "atlas:/atlas/Role=production"
    assert replace(info, fqans=("/atlas/Role=NULL/Capability=NULL",)).role == "atlas"


def test_the_chain_lasts_as_long_as_its_shortest_certificate(x509: X509) -> None:
    cert, key = x509.certificate("short", "/DC=test/DC=site/CN=Short", hours=1)
    long_lived = x509.user_cert.read_bytes()
    info = parse_proxy(long_lived + key.read_bytes() + cert.read_bytes())
    assert abs(info.ends - time.time() - HOUR) < 60


def test_a_certificate_with_its_key_is_no_proxy_but_may_be_shown(x509: X509) -> None:
    info = parse_proxy(x509.user_cert.read_bytes() + x509.user_key.read_bytes())
    assert info.identity == info.subject == USER_NAME and not info.is_proxy


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (b"", "no certificate in PEM"),
        (b"-----BEGIN CERTIFICATE-----\nx\n", "no certificate in PEM"),
        (b"-----BEGIN CERTIFICATE-----\n****\n-----END CERTIFICATE-----", "cannot be read"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "cannot be read"),
        (b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----", "cannot be read"),
        (GOLDEN.replace(b"PRIVATE", b"PUBLIC"), "no private key"),
    ],
)
def test_what_is_no_proxy_is_refused_with_the_reason(tmp_path: Path, contents: bytes, said: str) -> None:
    path = tmp_path / "proxy"
    path.write_bytes(contents)
    with pytest.raises(NoGridProxy) as raised:
        read_proxy(path)
    assert said in raised.value.diag and str(path) in raised.value.diag
    assert raised.value.code == C.NOPROXY


def test_a_file_that_is_not_there_is_no_proxy(tmp_path: Path) -> None:
    with pytest.raises(NoGridProxy, match="No such file"):
        read_proxy(tmp_path / "gone")


@given(st.integers(0, len(GOLDEN) - 1), st.integers(0, 255))
def test_a_damaged_proxy_is_read_or_refused_and_nothing_else(position: int, byte: int) -> None:
    damaged = GOLDEN[:position] + bytes([byte]) + GOLDEN[position + 1 :]
    with contextlib.suppress(ValueError):
        parse_proxy(damaged)


@given(st.binary(max_size=60))
def test_any_bytes_are_der_or_refused(data: bytes) -> None:
    try:
        found = elements(data)
    except ValueError:
        return
    assert sum(len(one.content) + 2 for one in found) <= len(data)


@pytest.mark.parametrize(
    ("element", "when"),
    [
        (Element(0x17, b"700101000000Z"), 0.0),
        (Element(0x17, b"491231235959Z"), 2524607999.0),
        (Element(0x17, b"500101000000Z"), -631152000.0),
        (Element(0x18, b"20500101000000Z"), 2524608000.0),
    ],
)
def test_times_of_both_kinds_are_read(element: Element, when: float) -> None:
    assert element.when() == when


@pytest.mark.parametrize("element", [Element(2, b"x"), Element(0x17, b""), Element(0x18, b"20501301000000Z")])
def test_what_is_no_time_is_refused(element: Element) -> None:
    with pytest.raises(ValueError):
        element.when()


def test_names_keep_the_characters_of_their_kind() -> None:
    assert Element(0x1E, "é".encode("utf-16-be")).text() == "é"
    assert Element(0x0C, "é".encode()).text() == "é"
    assert Element(0x14, b"\xe9").text() == "é"
    assert Element(6, bytes([0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 9, 1])).object_id() == "1.2.840.113549.1.9.1"
    assert Element(6, bytes([0x55, 4, 3])).object_id() == "2.5.4.3"


# ---- judging


@pytest.mark.parametrize(
    ("info", "now", "least", "vo", "code", "said"),
    [
        (INFO, 0.0, 0.0, "", 0, ""),
        (INFO, 999.9, 0.0, "", 0, ""),
        (INFO, 1000.0, 0.0, "", C.CERTIFICATEHASEXPIRED, "the proxy of /CN=a ended at 00:16:40 UTC on 01 January 1970"),
        (INFO, 1000.0, 0.0, "atlas", C.CERTIFICATEHASEXPIRED, "ended"),
        (INFO, 900.0, 100.0, "", 0, ""),
        (INFO, 900.1, 100.0, "", C.PROXYTOOSHORT, "ends in 100 s, 100 s are needed"),
        (INFO, 0.0, 0.0, "atlas", C.NOVOMSPROXY, "has no VOMS attributes"),
        (INFO, 0.0, 0.0, "any", C.NOVOMSPROXY, "has no VOMS attributes"),
        (VOMS, 0.0, 0.0, "", 0, ""),
        (VOMS, 0.0, 500.0, "atlas", 0, ""),
        (VOMS, 0.0, 500.0, "any", 0, ""),
        (VOMS, 0.0, 0.0, "cms", C.NOVOMSPROXY, "of atlas, those of cms are needed"),
        (VOMS, 500.0, 0.0, "", C.NOVOMSPROXY, "the VOMS attributes of the proxy of /CN=a ended"),
        (VOMS, 400.0, 200.0, "", C.VOMSPROXYABOUTTOEXPIRE, "ends in 100 s, 200 s are needed"),
        (VOMS, 1000.0, 0.0, "", C.CERTIFICATEHASEXPIRED, "ended"),
        (replace(INFO, is_proxy=False), 1000.0, 0.0, "", C.CERTIFICATEHASEXPIRED, "the certificate of /CN=a ended"),
    ],
)
def test_a_proxy_is_judged_by_its_end_its_attributes_and_what_is_needed(
    info: ProxyInfo, now: float, least: float, vo: str, code: int, said: str
) -> None:
    found = verdict(info, now, least, vo)
    assert (found.code if found else 0) == code
    assert said in (found.diag if found else "")


# ---- the documented names


def test_the_distinguished_name_is_that_of_the_proxy_of_the_environment(
    x509: X509, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("X509_USER_PROXY", str(x509.proxy(voms=False)))
    assert get_distinguished_name() == USER_NAME
    monkeypatch.delenv("X509_USER_PROXY")
    with pytest.raises(NoGridProxy):
        get_distinguished_name()


def test_the_generic_plugin_verifies_a_proxy_for_a_number_of_hours(
    x509: X509, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = str(x509.proxy(hours=3, voms=False))
    assert verify_proxy(x509=path) == verify_proxy(2.9, path) == (0, "")
    assert verify_proxy(4, path)[0] == C.PROXYTOOSHORT
    assert verify_proxy(x509=str(x509.proxy(voms=False, hours=-1)))[0] == C.CERTIFICATEHASEXPIRED
    assert verify_proxy(x509=str(tmp_path / "gone"))[0] == C.NOPROXY
    monkeypatch.setenv("X509_USER_PROXY", path)
    assert verify_proxy(2) == (0, "")
    monkeypatch.delenv("X509_USER_PROXY")
    assert verify_proxy() == (C.NOPROXY, "X509_USER_PROXY names no proxy")
    assert os.stat(path).st_mode & 0o777 == 0o600
