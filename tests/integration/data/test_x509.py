"""Proxies as the pilot reads them, against what the tools of the grid, openssl and `cryptography` read."""

from __future__ import annotations

import calendar
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from cryptography import x509 as reference

from pilot.common.errorcodes import ErrorCodes
from pilot.util.proxy import parse_proxy, read_proxy, verdict
from tests.x509 import FQANS, USER_NAME, VO, X509, make_x509


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> X509:
    return make_x509(tmp_path_factory.mktemp("x509"))


def tool(*words: str, **environ: str) -> str:
    # The exit code says more than whether it could be read: 1 for a proxy that has ended, or is not trusted here.
    env = {**os.environ, **environ}
    return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False, timeout=30, env=env).stdout


def voms_info(made: X509, path: Path, what: str) -> str:
    words = ("voms-proxy-info", "-file", str(path), f"-{what}", "-dont-verify-ac")
    return tool(*words, X509_CERT_DIR=str(made.ca_dir)).strip()


@pytest.mark.parametrize(
    ("hours", "voms_hours"),
    [(12.0, None), (1.0, None), (12.0, 1.5), (2.0, 10.0), (0.1, 0.05), (-1.0, None), (3.0, -1.0)],
)
def test_the_pilot_reads_a_voms_proxy_as_voms_proxy_info_does(
    made: X509, hours: float, voms_hours: float | None
) -> None:
    path = made.proxy(hours=hours, voms_hours=voms_hours)
    info = read_proxy(path)
    assert (info.subject, info.issuer, info.identity) == tuple(
        voms_info(made, path, what) for what in ("subject", "issuer", "identity")
    )
    assert info.vo == voms_info(made, path, "vo") == VO
    assert list(info.fqans) == voms_info(made, path, "fqan").split() == list(FQANS)
    now = time.time()
    assert abs(max(0, info.ends - now) - int(voms_info(made, path, "timeleft"))) < 60
    assert abs(max(0, info.voms_ends - now) - int(voms_info(made, path, "actimeleft"))) < 60


@pytest.mark.parametrize(
    ("hours", "voms_hours", "code"),
    [
        (12.0, 12.0, 0),
        (12.0, 0.5, ErrorCodes.VOMSPROXYABOUTTOEXPIRE),
        (12.0, -1.0, ErrorCodes.NOVOMSPROXY),
        (0.5, 0.5, ErrorCodes.VOMSPROXYABOUTTOEXPIRE),
        (-1.0, -1.0, ErrorCodes.CERTIFICATEHASEXPIRED),
    ],
)
def test_a_real_voms_proxy_is_judged_by_the_earlier_of_its_ends(
    made: X509, hours: float, voms_hours: float, code: int
) -> None:
    found = verdict(read_proxy(made.proxy(hours=hours, voms_hours=voms_hours)), time.time(), 3600, VO)
    assert (found.code if found else 0) == code


def test_the_pilot_reads_certificates_as_cryptography_and_openssl_do(made: X509) -> None:
    for path in (made.proxy(voms=False, hours=3), made.proxy(hours=5)):
        info = read_proxy(path)
        chain = reference.load_pem_x509_certificates(path.read_bytes())
        assert info.ends == min(one.not_valid_after_utc.timestamp() for one in chain)
        assert info.begins == chain[0].not_valid_before_utc.timestamp()
        said = tool("openssl", "x509", "-in", str(path), "-noout", "-enddate", "-subject", "-nameopt", "compat")
        end = re.search(r"notAfter=(.*) GMT", said)
        assert end is not None
        assert info.ends == calendar.timegm(time.strptime(end.group(1), "%b %d %H:%M:%S %Y"))
        assert f"subject={info.subject}" in said and info.identity == USER_NAME


def test_what_openssl_makes_is_a_proxy_to_the_whole_world(made: X509) -> None:
    path = made.proxy(voms=False)
    said = tool(
        "openssl", "verify", "-allow_proxy_certs", "-CApath", str(made.ca_dir), "-untrusted", str(path), str(path)
    )
    assert said.strip().endswith("OK")


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_every_certificate_of_this_machines_authorities_is_read() -> None:
    """Many makers, many kinds of names: what the pilot says of each is what `cryptography` says."""
    # Some of them have serial numbers that no standard allows, of which the pilot reads nothing.
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    if not bundle.is_file():
        pytest.skip("this machine has no bundle of authorities (Debian: ca-certificates)")
    key = b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"
    blocks = re.findall(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n", bundle.read_bytes(), re.DOTALL)
    assert len(blocks) > 50
    for block in blocks:
        wanted = reference.load_pem_x509_certificate(block)
        found = parse_proxy(block + key)
        assert (found.begins, found.ends) == (
            wanted.not_valid_before_utc.timestamp(), wanted.not_valid_after_utc.timestamp(),
        )  # fmt: skip
        values = [str(attribute.value) for attribute in wanted.subject]
        assert [part.partition("=")[2] for part in re.split(r"/(?=[A-Za-z0-9.]+=)", found.subject)[1:]] == values
