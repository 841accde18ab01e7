"""Settings: from the environment, and what they refuse."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from server.app import prepare
from server.settings import ConfigurationError, Settings, is_loopback
from tests.settings_page import PAGE, render


def test_every_field_is_documented_and_has_its_variable() -> None:
    source = Path(str(Settings.__module__.replace(".", "/") + ".py"))
    text = (Path(__file__).resolve().parents[3] / source).read_text()
    for field in fields(Settings):
        after = text.partition(f"    {field.name}: ")[2].partition("\n")[2]
        assert after.lstrip().startswith('"""'), field.name


def test_settings_survive_the_way_through_an_environment() -> None:
    chosen = Settings(data="/x", port=0, host="::1", heartbeat=5, public_url="http://a:1")
    assert Settings.from_environment(chosen.to_environment()) == chosen
    assert Settings.from_environment({"HOME": "/x"}) == Settings()


@pytest.mark.parametrize(("name", "text"), [("PORT", "http"), ("HEARTBEAT", "-1"), ("THREADS", ""), ("WORKERS", "2.5")])
def test_a_number_that_is_none_is_refused_by_its_name(name: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"PILOTKIT_{name}"):
        Settings.from_environment({f"PILOTKIT_{name}": text})


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"workers": 0}, "PILOTKIT_WORKERS must be 1 or more"),
        ({"connections": 0}, "PILOTKIT_CONNECTIONS must be 1 or more"),
        ({"body_limit": 0}, "PILOTKIT_BODY_LIMIT must be 1 or more"),
        ({"port": 65536}, "PILOTKIT_PORT must be at most 65535"),
        ({"lost_heartbeat": 0}, "PILOTKIT_LOST_HEARTBEAT must be 1 or more"),
    ],
)
def test_numbers_with_which_nothing_works_are_refused(chosen: dict[str, int], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Settings(**chosen).check()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_loopback_is_told_from_the_world(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
    if not loopback:
        with pytest.raises(ConfigurationError, match="tokens"):
            Settings(host=host).check_exposure()
    Settings(host=host, tokens="file").check_exposure()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://x/y", "nonsense", "://"])
def test_a_database_that_processes_cannot_share_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigurationError, match="database"):
        prepare(Settings(data=str(tmp_path), database=url))


def test_a_data_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be made"):
        prepare(Settings(data=str(tmp_path / "file" / "data")))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql+psycopg://u:secret@127.0.0.1/x", r"run `pip install 'psycopg\[binary\]'`"),
        ("postgresql://u:secret@127.0.0.1/x", r"begin the URL with postgresql\+psycopg://"),
        ("postgresql+psycopg2://u:secret@127.0.0.1/x", r"begin the URL with postgresql\+psycopg://"),
        ("postgresql+nosuch://u:secret@127.0.0.1/x", r"begin the URL with postgresql\+psycopg://"),
        ("sqlite+aiosqlite:////tmp/x", "use sqlite:///"),
    ],
)
def test_a_driver_that_is_missing_or_not_ours_is_named_and_no_password_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, says: str
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match=says) as caught:
        prepare(Settings(data=str(tmp_path), database=url))
    assert "secret" not in str(caught.value)


def test_a_server_that_does_not_answer_is_told_with_what_to_do(tmp_path: Path, port_of_nobody: int) -> None:
    with pytest.raises(ConfigurationError, match="PostgreSQL must be running there") as caught:
        prepare(Settings(data=str(tmp_path), database=f"postgresql+psycopg://u:secret@127.0.0.1:{port_of_nobody}/x"))
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "pilotkit.db").write_text("this is a shopping list, not a database\n" * 200)
    with pytest.raises(ConfigurationError, match=r"pilotkit.db cannot be used: file is not a database\.") as caught:
        prepare(Settings(data=str(tmp_path)))
    assert "\n" not in str(caught.value)


def test_a_database_of_another_version_is_refused_in_a_sentence(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path))
    prepare(settings)
    with contextlib.closing(sqlite3.connect(tmp_path / "pilotkit.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigurationError, match="version of another pilotkit"):
        prepare(settings)


def test_the_page_of_settings_is_what_the_code_says() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == render(), "write it anew: python -m tests.settings_page"
    assert all(f"`PILOTKIT_{field.name.upper()}`" in text for field in fields(Settings))


def test_a_file_has_more_settings_and_the_environment_wins(tmp_path: Path) -> None:
    file = tmp_path / "pilotkit.env"
    file.write_text("# ours\n\nPILOTKIT_PORT = 1\nPILOTKIT_DATA='/x y'\n")
    found = Settings.from_environment({"PILOTKIT_SETTINGS_FILE": str(file), "PILOTKIT_PORT": "2"})
    assert (found.port, found.data) == (2, "/x y")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("PILOTKIT_COLOUR=red\n", "line 1: 'PILOTKIT_COLOUR' is no setting"),
        ("\nPILOTKIT_PORT\n", "line 2: 'PILOTKIT_PORT' is no setting"),
        ("PILOTKIT_PORT=x\n", "PILOTKIT_PORT must be a whole number"),
    ],
)
def test_a_file_of_settings_that_cannot_be_used_is_refused_by_its_line(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "pilotkit.env"
    file.write_text(content)
    with pytest.raises(ConfigurationError, match=says):
        Settings.from_environment({"PILOTKIT_SETTINGS_FILE": str(file)})
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Settings.from_environment({"PILOTKIT_SETTINGS_FILE": str(tmp_path / "none")})
