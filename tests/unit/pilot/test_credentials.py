"""Credentials: found in the order of the documents, and what is named but not there is said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pilot.util import credentials
from pilot.util.credentials import (
    SECRET_VARIABLES,
    find,
    known_secrets,
    storage_token,
    storage_token_file,
    tool_environment,
)
from pilot.util.https import Credentials

# Of a user who has no proxy file in /tmp.
NOBODY = 4_000_000_000
PROXY = "-----BEGIN CERTIFICATE-----\nx\n-----BEGIN RSA PRIVATE KEY-----\ny\n"
CERTIFICATES = "-----BEGIN CERTIFICATE-----\nx\n"


@pytest.fixture(autouse=True)
def no_grid_security(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine has in /etc."""
    monkeypatch.setattr(credentials, "_CA_DIRECTORY", str(tmp_path / "no-grid-security"))


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_without_anything_there_is_nothing() -> None:
    assert find({}, NOBODY, "", "") == (Credentials(), [])


# ---- the token


def test_a_token_is_read_from_its_file_with_its_origin(tmp_path: Path) -> None:
    token = write(tmp_path / "token", "sesame\n")
    found, problems = find({"PANDA_AUTH_TOKEN": token, "PANDA_AUTH_ORIGIN": "vo.pilot"}, NOBODY, "", "")
    assert (found.token, found.origin, problems) == ("sesame", "vo.pilot", [])


def test_a_relative_name_is_below_the_directory_of_tokens(tmp_path: Path) -> None:
    write(tmp_path / "token", "sesame")
    found, _ = find({"PANDA_AUTH_TOKEN": "token", "PANDA_AUTH_DIR": str(tmp_path)}, NOBODY, "", "")
    assert found.token == "sesame"


@pytest.mark.parametrize(
    ("panda", "oidc", "wanted"),
    [
        ("a", "b", ("from-a", "origin-panda")),
        ("", "b", ("from-b", "origin-oidc")),
        ("gone", "b", ("from-b", "origin-oidc")),
    ],
)
def test_pandas_own_variables_come_before_the_general_ones(
    tmp_path: Path, panda: str, oidc: str, wanted: tuple[str, str]
) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, f"from-{name}")
    found, _ = find(
        {
            "PANDA_AUTH_TOKEN": str(tmp_path / panda) if panda else "",
            "PANDA_AUTH_ORIGIN": "origin-panda",
            "OIDC_AUTH_TOKEN": str(tmp_path / oidc),
            "OIDC_AUTH_ORIGIN": "origin-oidc",
        },
        NOBODY,
        "",
        "",
    )
    assert (found.token, found.origin) == wanted


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (None, "which cannot be read"),
        ("", "which holds no token"),
        ("a b\nc", "which holds no token"),
        (b"\xff", "which cannot be read"),
    ],
)
def test_a_token_that_cannot_be_used_is_a_problem_that_names_the_file_and_never_its_contents(
    tmp_path: Path, contents: str | bytes | None, said: str
) -> None:
    path = tmp_path / "token"
    if contents is not None:
        path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    found, problems = find({"PANDA_AUTH_TOKEN": str(path)}, NOBODY, "", "")
    assert found.token == ""
    assert len(problems) == 1 and str(path) in problems[0] and said in problems[0]
    assert "a b" not in problems[0]


# ---- the certificate


def test_a_proxy_is_looked_for_in_option_then_variable_then_default_place(tmp_path: Path) -> None:
    option, variable = write(tmp_path / "o", PROXY), write(tmp_path / "v", PROXY)
    assert find({"X509_USER_PROXY": variable}, NOBODY, option, "")[0].certificate == option
    assert find({"X509_USER_PROXY": variable}, NOBODY, "", "")[0].certificate == variable


def test_the_default_place_is_named_after_the_user(tmp_path: Path) -> None:
    uid = 3_900_000_000 + os.getpid()
    default = Path(f"/tmp/x509up_u{uid}")
    default.write_text(PROXY)
    try:
        assert find({}, uid, "", "")[0].certificate == str(default)
        assert find({"X509_USER_PROXY": write(tmp_path / "v", PROXY)}, uid, "", "")[0].certificate == str(
            tmp_path / "v"
        )
        assert find({"X509_USER_PROXY": str(tmp_path / "gone")}, uid, "", "")[0].certificate == str(default)
    finally:
        default.unlink()


def test_a_file_without_a_key_given_as_option_is_the_certificates_of_authorities(tmp_path: Path) -> None:
    bundle = write(tmp_path / "ca.pem", CERTIFICATES)
    found, problems = find({"X509_USER_PROXY": write(tmp_path / "v", PROXY)}, NOBODY, bundle, "")
    assert (found.ca, found.certificate, problems) == (bundle, str(tmp_path / "v"), [])


@pytest.mark.parametrize("name", ["--cacert", "X509_USER_PROXY"])
def test_a_file_that_is_named_but_not_there_is_a_problem(tmp_path: Path, name: str) -> None:
    gone = str(tmp_path / "gone")
    option = gone if name == "--cacert" else ""
    environ = {"X509_USER_PROXY": gone} if name != "--cacert" else {}
    assert find(environ, NOBODY, option, "") == (Credentials(), [f"{name} names {gone}, which is not there"])


# ---- the authorities


def test_authorities_are_looked_for_in_option_then_variable_then_default_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("option", "variable", "default"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(credentials, "_CA_DIRECTORY", str(tmp_path / "default"))
    environ = {"X509_CERT_DIR": str(tmp_path / "variable")}
    assert find(environ, NOBODY, "", str(tmp_path / "option"))[0].ca == str(tmp_path / "option")
    assert find(environ, NOBODY, "", "")[0].ca == str(tmp_path / "variable")
    assert find({}, NOBODY, "", "")[0].ca == str(tmp_path / "default")


def test_a_directory_that_is_named_but_not_there_is_a_problem(tmp_path: Path) -> None:
    found, problems = find({}, NOBODY, "", str(tmp_path / "gone"))
    assert (found.ca, problems) == ("", [f"--capath names {tmp_path}/gone, which is no directory"])


def test_every_variable_that_leads_to_a_credential_is_kept_from_payloads() -> None:
    assert {
        "PANDA_AUTH_TOKEN", "PANDA_AUTH_DIR", "OIDC_AUTH_TOKEN", "OIDC_AUTH_DIR", "X509_USER_PROXY", "BEARER_TOKEN",
        "BEARER_TOKEN_FILE",
    } <= SECRET_VARIABLES  # fmt: skip


# ---- storage


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the place of /tmp."""
    made = tmp_path / "tmp"
    made.mkdir()
    monkeypatch.setattr(credentials, "_TEMPORARY", str(made))
    return made


def test_the_token_for_storage_is_discovered_in_the_order_of_the_wlcg(tmp_path: Path, temporary: Path) -> None:
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    named, in_runtime, in_tmp = tmp_path / "named", runtime / "bt_u7", temporary / "bt_u7"
    environ = {"BEARER_TOKEN": " ", "BEARER_TOKEN_FILE": str(named), "XDG_RUNTIME_DIR": str(runtime)}
    for path in (in_runtime, in_tmp):
        path.write_text("x")
    assert storage_token_file({**environ, "BEARER_TOKEN": "inline"}, 7) == ""
    assert storage_token_file(environ, 7) == str(named)
    del environ["BEARER_TOKEN_FILE"]
    assert storage_token_file(environ, 7) == str(in_runtime)
    assert storage_token_file(environ, 8) == ""
    in_runtime.unlink()
    assert storage_token_file(environ, 7) == str(in_tmp)
    assert storage_token_file({}, 7) == str(in_tmp)


def test_a_tool_with_a_token_of_its_own_shows_that_and_else_what_is_in_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "bt", "from-file\n")
    assert storage_token({"BEARER_TOKEN": "inline", "BEARER_TOKEN_FILE": file}) == "inline"
    assert storage_token({"BEARER_TOKEN_FILE": file}) == "from-file"
    for nothing in ({}, {"BEARER_TOKEN_FILE": str(tmp_path / "gone")}, {"BEARER_TOKEN": "two words"}):
        assert storage_token(nothing) == ""


def test_tools_get_what_is_for_storage_under_the_names_they_know() -> None:
    environ = dict.fromkeys(SECRET_VARIABLES, "old") | {"PATH": "/bin"}
    assert tool_environment({}) == {}
    env = tool_environment(environ, "/proxy", "/bt", "/ca")
    assert env == {
        "PATH": "/bin", "X509_USER_PROXY": "/proxy", "X509_USER_CERT": "old", "X509_USER_KEY": "old",
        "BEARER_TOKEN_FILE": "/bt", "X509_CERT_DIR": "/ca",
    }  # fmt: skip
    assert tool_environment(environ)["BEARER_TOKEN"] == "old"


def test_secrets_in_the_environment_and_in_the_files_it_names_are_known(tmp_path: Path) -> None:
    (tmp_path / "aws").write_text("[default]\naws_secret_access_key = c4na7y-in-a-file\n")
    environ = {
        "BEARER_TOKEN": "c4na7y-bearer",
        "APPTAINER_DOCKER_PASSWORD": "c4na7y-registry",
        "SINGULARITYENV_AWS_SESSION_TOKEN": "c4na7y-inside",
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "aws"),
        "GOOGLE_APPLICATION_CREDENTIALS": "/nowhere/at/all.json",
        "PANDA_AUTH_TOKEN": "/a/file/that/is/no/secret",
        "HOME": "/home/somebody",
    }
    told = known_secrets(environ).blot(" ".join([*environ.values(), "c4na7y-in-a-file"]))
    assert "c4na7y" not in told and told.count("***") == 4
    assert "/a/file/that/is/no/secret /home/somebody" in told
    assert {"SINGULARITYENV_AWS_SESSION_TOKEN", "APPTAINER_DOCKER_PASSWORD"} <= SECRET_VARIABLES
