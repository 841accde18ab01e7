"""Settings: default.cfg has them all, a file of the user's goes over them, and what is wrong is named."""

from __future__ import annotations

import configparser
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from pilot.util import config
from pilot.util.wiresettings import BrokerSettings, RealtimeSettings

SECTIONS = {
    "Experiment": config.ExperimentSettings,
    "Pilot": config.PilotSettings,
    "Information": config.InformationSettings,
    "Payload": config.PayloadSettings,
    "Container": config.ContainerSettings,
    "File": config.FileSettings,
    "Token": config.TokenSettings,
    "Rucio": config.RucioSettings,
    "Harvester": config.HarvesterSettings,
    "Realtime": RealtimeSettings,
    "Message_broker": BrokerSettings,
}


def user_file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "my.cfg"
    path.write_text(text)
    return str(path)


def error_of(tmp_path: Path, text: str) -> str:
    with pytest.raises(config.SettingsError) as raised:
        config.read(user_file(tmp_path, text))
    return str(raised.value)


def test_default_cfg_and_the_settings_have_the_same_names() -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(config.DEFAULT_FILES[0])
    assert set(parser.sections()) == set(SECTIONS)
    for section, cls in SECTIONS.items():
        assert set(parser[section]) == {field.name for field in fields(cls)}, section


def test_every_default_stands_beside_a_reason() -> None:
    before = ""
    for line in config.DEFAULT_FILES[0].read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            assert before and not before.startswith("["), f"{line} has no comment before it"
        before = line


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("pilot", "heartbeat", 1800),
        ("pilot", "heartbeat_debug", 300),
        ("pilot", "http_connect_timeout", 100.0),
        ("pilot", "http_timeout", 120.0),
        ("pilot", "grace_on_signal", 3.0),
        ("pilot", "grace_planned", 60.0),
        ("pilot", "getjob_delay_min", 60.0),
        ("pilot", "getjob_delay_max", 180.0),
        ("pilot", "sick_jobs", 3),
        ("pilot", "sick_time", 600.0),
        ("pilot", "pandaserver", "http://127.0.0.1:25080"),
        ("pilot", "pilotlog", "pilotlog.txt"),
        ("pilot", "kill_file", "pilot_kill_payload"),
        ("pilot", "heartbeat_file", "heartbeat.json"),
        ("pilot", "timing_file", "pilot_timing.json"),
        ("pilot", "pandaids_file", "pandaIDs.out"),
        ("payload", "stdout", "payload.stdout"),
        ("payload", "stderr", "payload.stderr"),
        ("payload", "job_report", "jobReport.json"),
        ("payload", "stdout_limit", 2097152),
        ("payload", "memory_check", 60.0),
        ("file", "checksum_type", "adler32"),
        ("file", "lfn_limit", 255),
        ("file", "input_limit", 14336),
        ("file", "output_limit", 500_000_000_000),
        ("file", "space_to_start", 2 * 2**30),
        ("file", "space_to_run", 2**30),
        ("file", "disk_check", 60.0),
        ("experiment", "name", "generic"),
    ],
)
def test_the_defaults_are_those_of_the_documents(section: str, name: str, value: object) -> None:
    assert getattr(getattr(config.read(), section), name) == value


def test_a_users_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    changed = config.read(user_file(tmp_path, "[Pilot]\nheartbeat = 60\ninsecure_http = yes\n[File]\nlfn_limit=10\n"))
    default = config.read()
    assert (changed.pilot.heartbeat, changed.pilot.insecure_http, changed.file.lfn_limit) == (60, True, 10)
    assert changed.pilot.final_update_patience == default.pilot.final_update_patience
    assert changed.payload == default.payload
    assert changed.unknown == ()


def test_a_percent_sign_in_a_value_is_just_that(tmp_path: Path) -> None:
    read = config.read(user_file(tmp_path, "[Information]\nqueuedata_shared = /cvmfs/%(x)s/%s\n"))
    assert read.information.queuedata_shared == "/cvmfs/%(x)s/%s"


def test_settings_that_nobody_knows_are_told_with_a_hint(tmp_path: Path) -> None:
    read = config.read(
        user_file(tmp_path, "[Pilot]\nhartbeat = 60\nfrobnicate = 1\n[Pilots]\nheartbeat = 1\n[Zoo]\nlion = 1\n")
    )
    assert read.unknown == (
        "[Pilot] hartbeat; did you mean heartbeat?",
        "[Pilot] frobnicate",
        "[Pilots] heartbeat; did you mean section [Pilot]?",
        "[Zoo] lion",
    )
    assert read.pilot == config.read().pilot


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[Pilot]\nheartbeat = soon", "setting [Pilot] heartbeat must be a whole number, but is 'soon'"),
        ("[Pilot]\nheartbeat = 1.5", "setting [Pilot] heartbeat must be a whole number, but is '1.5'"),
        ("[Pilot]\nheartbeat =", "setting [Pilot] heartbeat must be a whole number, but is ''"),
        ("[Pilot]\nretry_delay = x", "setting [Pilot] retry_delay must be a number, but is 'x'"),
        ("[Pilot]\ninsecure_http = maybe", "setting [Pilot] insecure_http must be True or False, but is 'maybe'"),
        ("[Pilot]\nheartbeat = 0", "setting [Pilot] heartbeat must be more than 0"),
        ("[Pilot]\nheartbeat = -1", "setting [Pilot] heartbeat must be 0 or more, but is '-1'"),
        ("[Pilot]\nhttp_timeout = nan", "setting [Pilot] http_timeout must be 0 or more, but is 'nan'"),
        ("[Pilot]\nshutdown_limit = inf", "setting [Pilot] shutdown_limit must be 0 or more, but is 'inf'"),
        ("[File]\nchecksum_type = sha1", "setting [File] checksum_type must be one of adler32, md5, but is 'sha1'"),
        ("[File]\nlog_compression = 12", "setting [File] log_compression must be one of 1, 2, 3"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_with_its_name(tmp_path: Path, text: str, said: str) -> None:
    assert error_of(tmp_path, text).startswith(said)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(config.SettingsError, match=r"none\.cfg cannot be read: No such file or directory"):
        config.read(str(tmp_path / "none.cfg"))


@pytest.mark.parametrize("text", ["heartbeat = 5", "[Pilot\nheartbeat = 5", "[Pilot]\nheartbeat = 5\nheartbeat = 6"])
def test_a_file_that_is_no_ini_file_is_named(tmp_path: Path, text: str) -> None:
    assert error_of(tmp_path, text).startswith(f"configuration file {tmp_path}/my.cfg is not a valid INI file: ")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "my.cfg"
    path.write_bytes(b"[Pilot]\nheartbeat = \xff\xfe\n")
    with pytest.raises(config.SettingsError, match="is not a valid INI file"):
        config.read(str(path))


def test_a_default_file_without_a_setting_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = config.DEFAULT_FILES[0].read_text().replace("heartbeat_min = 10", "")
    (tmp_path / "default.cfg").write_text(text)
    monkeypatch.setattr(config, "DEFAULT_FILES", (tmp_path / "default.cfg",))
    with pytest.raises(config.SettingsError, match=r"no setting heartbeat_min in section \[Pilot\]"):
        config.read()


def test_a_missing_default_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "DEFAULT_FILES", (tmp_path / "default.cfg",))
    with pytest.raises(config.SettingsError, match=r"default\.cfg is missing"):
        config.read()


def test_settings_are_frozen() -> None:
    settings = config.read()
    assert all(is_dataclass(section) for section in (settings, settings.pilot, settings.file))
    with pytest.raises(AttributeError):
        settings.pilot.heartbeat = 1  # type: ignore[misc]
