"""Certificates, proxies and VOMS attributes: made by openssl and voms-proxy-fake, and forged by ourselves."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from server.logic import certificates
from server.logic.authconfig import read_auth_config
from server.logic.certificates import Certificates, slashed
from server.logic.context import Role
from server.logic.errors import BadCredential
from server.logic.users import Login
from server.settings import ConfigurationError, Settings
from tests.unit.server.databases import EmptyDatabase
from tests.unit.server.dispatcher import QUEUE
from tests.unit.server.test_routes import client_of
from tests.x509 import CA_NAME, HOST_NAME, INDEPENDENT, LIMITED, USER_NAME, VO, X509, make_x509

_ATTRIBUTES = x509.ObjectIdentifier("1.3.6.1.4.1.8005.100.100.5")


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> X509:
    return make_x509(tmp_path_factory.mktemp("x509"))


def of(grid: X509, **settings: object) -> Certificates:
    chosen = Settings(**{"ca": str(grid.ca_dir), "voms_dir": str(grid.voms_dir), **settings})  # type: ignore[arg-type]
    return Certificates(chosen, read_auth_config(chosen))


def chain(*paths: Path) -> list[bytes]:
    found = [one for path in paths for one in x509.load_pem_x509_certificates(path.read_bytes())]
    return [one.public_bytes(serialization.Encoding.DER) for one in found]


def whose(grid: X509, presented: Sequence[bytes], **settings: object) -> Login:
    return of(grid, **settings).of_chain(presented, time.time())


def test_a_certificate_and_each_proxy_of_it_show_the_same_user(grid: X509) -> None:
    plain = whose(grid, chain(grid.user_cert, grid.ca_file))
    assert plain == Login(USER_NAME, "Test User", frozenset())
    assert whose(grid, chain(grid.proxy(voms=False), grid.ca_file)) == plain


def test_a_user_whose_name_ends_in_a_number_is_no_proxy(grid: X509) -> None:
    name = "/DC=test/DC=site/CN=robot/CN=4711"
    certificate, _ = grid.certificate("numbered", name)
    assert whose(grid, chain(certificate, grid.ca_file)).subject == name


def test_a_certificate_with_nonsense_inside_is_refused_in_a_sentence(grid: X509) -> None:
    """Authorities have signed such ones: a mail address that is no ASCII."""
    key = rsa.generate_private_key(65537, 2048)
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A")]), datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(5).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    alternative_name = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), b"\x30\x03\x81\x01\xe9")
    certificate = builder.add_extension(alternative_name, critical=False).sign(key, hashes.SHA256())
    with pytest.raises(BadCredential, match="A certificate in your chain cannot be read"):
        whose(grid, [certificate.public_bytes(serialization.Encoding.DER)])


def test_limited_proxies_are_told_and_independent_ones_refused(grid: X509) -> None:
    assert whose(grid, chain(grid.proxy(voms=False, language=LIMITED), grid.ca_file)).limited
    with pytest.raises(BadCredential, match="does not stand for its user"):
        whose(grid, chain(grid.proxy(voms=False, language=INDEPENDENT), grid.ca_file))
    with pytest.raises(BadCredential, match="without the certificate it was made of"):
        whose(grid, chain(grid.proxy(voms=False))[:1])


# ---- VOMS


def test_voms_attributes_give_roles(grid: X509, tmp_path: Path) -> None:
    presented = chain(grid.proxy(), grid.ca_file)
    assert whose(grid, presented) == Login(USER_NAME, "Test User", frozenset({Role.PILOT, Role.HARVESTER, Role.USER}))
    policies = {VO: [["/atlas/Role=production", {"group": "p", "role": "pilot", "queue": QUEUE, "label": "managed"}]]}
    for content, roles, queue in ((policies, {Role.PILOT}, QUEUE), ({VO: []}, set(), "")):
        (tmp_path / "policies").write_text(json.dumps(content))
        found = whose(grid, presented, auth_policies=str(tmp_path / "policies"))
        assert (found.roles, found.queue) == (roles, queue)


def carrying(grid: X509, attributes: bytes, user: tuple[Path, Path]) -> list[bytes]:
    """A proxy that a user has written these attributes into."""
    (certificate,) = x509.load_pem_x509_certificates(user[0].read_bytes())
    signer = serialization.load_pem_private_key(user[1].read_bytes(), None)
    assert isinstance(signer, rsa.RSAPrivateKey)
    now = datetime.datetime.now(datetime.UTC)
    proxy = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([*certificate.subject, x509.NameAttribute(NameOID.COMMON_NAME, "1")]))
        .issuer_name(certificate.subject)
        .public_key(signer.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.UnrecognizedExtension(_ATTRIBUTES, attributes), critical=False)
        .add_extension(_proxy_info(grid), critical=True)
        .sign(signer, hashes.SHA256())
    )
    return [proxy.public_bytes(serialization.Encoding.DER), *chain(user[0], grid.ca_file)]


def _proxy_info(grid: X509) -> x509.UnrecognizedExtension:
    (first, *_) = x509.load_pem_x509_certificates(grid.proxy(voms=False).read_bytes())
    found = first.extensions.get_extension_for_oid(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14"))
    return x509.UnrecognizedExtension(found.oid, found.value.public_bytes())


def attributes_of(path: Path) -> bytes:
    (first, *_) = x509.load_pem_x509_certificates(path.read_bytes())
    return first.extensions.get_extension_for_oid(_ATTRIBUTES).value.public_bytes()


def test_attributes_that_were_changed_made_up_or_taken_from_others_are_refused(grid: X509) -> None:
    good = attributes_of(grid.proxy())
    own = (grid.user_cert, grid.user_key)
    assert whose(grid, carrying(grid, good, own)).roles == {Role.PILOT, Role.HARVESTER, Role.USER}
    with pytest.raises(BadCredential, match="changed, or signed by somebody else"):
        whose(grid, carrying(grid, good.replace(b"Role=production", b"Role=lcgadmin/x"), own))
    thief = grid.certificate("thief", "/DC=test/DC=site/CN=Thief")
    with pytest.raises(BadCredential, match="somebody else's"):
        whose(grid, carrying(grid, good, thief))
    for nonsense in (b"", b"\x30\x00", good[:100], b"\x30\x02\x30\x00", b"\x30\x04\x30\x02\x30\x00"):
        with pytest.raises(BadCredential, match="cannot be read"):
            whose(grid, carrying(grid, nonsense, own))


def test_attributes_of_a_server_that_is_not_the_vos_are_refused(grid: X509, tmp_path: Path) -> None:
    presented = chain(grid.proxy(), grid.ca_file)
    (tmp_path / VO).mkdir()
    for lines in (None, f"{HOST_NAME}\n/CN=Other CA\n", f"/CN=other.host\n{CA_NAME}\n", f"{HOST_NAME}\n", ""):
        if lines is not None:
            (tmp_path / VO / "x.lsc").write_text(lines)
        with pytest.raises(BadCredential, match="is no VOMS server of atlas here"):
            whose(grid, presented, voms_dir=str(tmp_path))
    (tmp_path / VO / "x.lsc").write_text(f"/CN=a\n/CN=b\n------ NEXT CHAIN ------\n{HOST_NAME}\n{CA_NAME}\n")
    assert whose(grid, presented, voms_dir=str(tmp_path)).roles


def test_attributes_signed_under_an_unknown_authority_are_refused(grid: X509, tmp_path: Path) -> None:
    """Another authority of the same name: names alone prove nothing."""
    other = make_x509(tmp_path / "other")
    with pytest.raises(BadCredential, match="from an authority that is not known"):
        whose(grid, chain(grid.proxy(), grid.ca_file), ca=str(other.ca_file))


def test_attributes_that_have_ended_are_refused(grid: X509) -> None:
    with pytest.raises(BadCredential, match="have ended"):
        whose(grid, chain(grid.proxy(voms_hours=-1), grid.ca_file))


# ---- names


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("/DC=org/CN=Some Body", "/DC=org/CN=Some Body"),
        ("CN=Some Body,DC=site,DC=org", "/DC=org/DC=site/CN=Some Body"),
        ("CN=Some Body, OU=x\\, y, DC=org", "/DC=org/OU=x, y/CN=Some Body"),
        ('CN="Body, Some",DC=org', "/DC=org/CN=Body, Some"),
        ("emailAddress=a@b.c,CN=A+UID=7", "/UID=7/CN=A/emailAddress=a@b.c"),
    ],
)
def test_names_of_both_forms_become_the_grids(name: str, wanted: str) -> None:
    assert slashed(name) == wanted


@pytest.mark.parametrize("name", ["Some Body", "CN=a,b", "=x", "CN=a;DC=b=,"])
def test_what_is_no_name_is_refused(name: str) -> None:
    if name.startswith("CN=a;"):
        assert slashed("CN=a;DC=b") == "/CN=a;DC=b", "one value"
        return
    with pytest.raises(BadCredential):
        slashed(name)


def test_people_are_called_by_the_last_of_their_names() -> None:
    for subject, name in (
        ("/DC=ch/OU=Users/CN=jdoe/CN=123/CN=John Doe", "John Doe"),
        ("/C=UK/O=eScience/CN=host/a.example.org", "host/a.example.org"),
        ("/CN=A/emailAddress=a@b.c", "A"),
        ("/O=x", "/O=x"),
    ):
        assert certificates._common_name(subject) == name


# ---- a proxy server in front

SHOWN = {"SSL-Client-Verify": "SUCCESS", "SSL-Client-S-DN": "CN=Test User,DC=site,DC=test"}
GRST = {
    "GRST-CRED-AURI-0": "dn:/DC=test/DC=site/CN=Test%20User",
    "GRST-CRED-AURI-1": "fqan:/atlas/Role%3Dpilot",
    "GRST-CONN-2": "VOMS 1241537000 1273073000 1 /atlas/Role=production/Capability=NULL",
}


def seen(folder: Path, empty: EmptyDatabase, headers: dict[str, str], address: str, **settings: object) -> object:
    """(status, name, roles) of a call that comes from an address."""
    for client in client_of(folder, empty, **settings):
        url = "/api/v1/system/get_attributes"
        answer = client.get(url, headers=headers, environ_overrides={"REMOTE_ADDR": address})
        data = answer.json["data"]
        return (answer.status_code, *((data["name"], data["roles"]) if data else (answer.json["message"],)))
    return None


def test_headers_count_from_trusted_proxies_alone(tmp_path: Path, empty_database: EmptyDatabase) -> None:
    for number, (headers, address, voms, wanted) in enumerate(
        (
            ({**SHOWN, **GRST}, "10.1.2.3", 1, (200, "Test User", ["harvester", "pilot", "user"])),
            ({**SHOWN, **GRST}, "192.0.2.1", 1, (200, "Test User", ["harvester", "pilot", "user"])),
            ({**SHOWN, **GRST}, "192.0.2.2", 1, 403),
            ({**SHOWN, **GRST}, "127.0.0.1", 1, 403),
            ({**SHOWN, **GRST}, "10.1.2.3", 0, (200, "system/get_attributes is for ")),
            ({**SHOWN, **GRST, "SSL-Client-Verify": "FAILED"}, "10.1.2.3", 1, 403),
            ({**GRST, "SSL-Client-S-DN": SHOWN["SSL-Client-S-DN"]}, "10.1.2.3", 1, 403),
            ({**GRST, **SHOWN, "SSL-Client-S-DN": "(null)"}, "10.1.2.3", 1, 403),
            ({**GRST, **SHOWN, "SSL-Client-S-DN": "nonsense"}, "10.1.2.3", 1, 403),
            ({**GRST, **SHOWN, "SSL-Client-S-DN": f"{USER_NAME}/CN=proxy"}, "10.1.2.3", 1, (200, "Test User")),
            ({**GRST, **SHOWN, "SSL-Client-S-DN": f"{USER_NAME}/CN=12/CN=limited proxy"}, "10.1.2.3", 1, 403),
        )
    ):
        (tmp_path / str(number)).mkdir()
        settings = {"trusted_proxies": "10.0.0.0/8, 192.0.2.1", "trusted_voms": voms}
        found = seen(tmp_path / str(number), empty_database, headers, address, **settings)
        assert isinstance(found, tuple)
        if isinstance(wanted, int):
            assert found[0] == wanted, (headers, address)
        else:
            assert found[0] == wanted[0] and str(found[1]).startswith(str(wanted[1])), (headers, address, found)
            assert found[2:] == wanted[2:] or len(wanted) == 2


def test_what_one_client_sent_is_no_key_to_the_memory_of_another(tmp_path: Path, empty_database: EmptyDatabase) -> None:
    """A token and an Origin that spell what headers showed must not be taken for them."""
    for client in client_of(tmp_path, empty_database, trusted_proxies="10.0.0.1", trusted_voms=1):
        url, trusted = "/api/v1/system/get_attributes", {"REMOTE_ADDR": "10.0.0.1"}
        assert client.get(url, headers={**SHOWN, **GRST}, environ_overrides=trusted).status_code == 200
        login = str(Login(USER_NAME, "Test User", frozenset({Role.PILOT, Role.HARVESTER, Role.USER})))
        for origin, token in (login.split(" ", 1), ("headers", login)):
            answer = client.get(url, headers={"Origin": origin, "Authorization": f"Bearer {token}"})
            assert answer.status_code == 403


def test_limited_proxies_are_good_for_the_old_api_alone(tmp_path: Path, empty_database: EmptyDatabase) -> None:
    headers = {**SHOWN, **GRST, "SSL-Client-S-DN": f"{USER_NAME}/CN=limited proxy", "Accept": "application/json"}
    for client in client_of(tmp_path, empty_database, trusted_proxies="127.0.0.1", trusted_voms=1):
        old = client.post("/server/panda/getJob", json={"siteName": QUEUE}, headers=headers)
        assert (old.status_code, old.json["StatusCode"]) == (200, 20)
        new = client.post("/api/v1/pilot/acquire_jobs", json={"site_name": QUEUE}, headers=headers)
        assert new.status_code == 403 and "limited proxy" in new.json["message"]


# ---- settings


def test_settings_that_cannot_be_are_named_at_the_start(grid: X509, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    for settings, says in (
        ({"ca": str(tmp_path / "nowhere")}, "cannot be read"),
        ({"ca": str(tmp_path / "none")}, "no certificates of authorities"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            of(grid, **settings)
    with pytest.raises(ConfigurationError, match="PILOTKIT_TRUSTED_PROXIES: 'proxy' does not appear"):
        Settings(trusted_proxies="10.0.0.1, proxy").trusted_networks()
    assert not Settings(ca="x").is_open() and not Settings(trusted_proxies="10.0.0.1").is_open()
    assert Settings(cert="x", key="y").is_open()
