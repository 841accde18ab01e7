"""Settings: from the environment, and what they refuse."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from server.app import prepare
from server.settings import ConfigurationError, Settings, is_loopback


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
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        prepare(Settings(data=str(tmp_path / "file" / "data")))
