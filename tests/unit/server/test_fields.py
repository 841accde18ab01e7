"""The arguments of updates: one table for both APIs, units, lengths, and what cannot be a value."""

from __future__ import annotations

import pytest
from sqlalchemy import BigInteger, Integer, String

from server.db.tables import jobs
from server.logic.errors import BadField
from server.logic.fields import FIELDS, LEGACY, LOG_LENGTH, V1, Kind, collect


def test_every_text_is_cut_to_the_length_of_its_column() -> None:
    texts = [f for f in FIELDS if f.column and f.kind is Kind.TEXT]
    assert texts
    for field in texts:
        kind = jobs.c[field.column].type
        assert isinstance(kind, String)
        assert kind.length == field.length, field.column


def test_every_number_fits_its_column() -> None:
    report = collect(1, "running", {f.legacy: 2**31 - 1 for f in FIELDS if f.kind is Kind.INTEGER}, LEGACY)
    for name in report.columns:
        assert isinstance(jobs.c[name].type, (Integer, BigInteger))


def test_both_apis_know_the_same_columns() -> None:
    assert {f.column for f in LEGACY.values()} == {f.column for f in V1.values()}


@pytest.mark.parametrize(
    ("legacy", "v1"),
    [
        ("jobSubStatus", "job_sub_status"),
        ("maxRSS", "max_rss"),
        ("avgSWAP", "avg_swap"),
        ("totRCHAR", "tot_rchar"),
        ("rateWBYTES", "rate_wbytes"),
        ("cpuConsumptionTime", "cpu_consumption_time"),
        ("xml", "job_output_report"),
        ("cpu_architecture_level", "cpu_architecture_level"),
    ],
)
def test_a_field_has_its_documented_name_in_each_api(legacy: str, v1: str) -> None:
    assert LEGACY[legacy] is V1[v1]


def test_unknown_arguments_of_v1_are_not_those_of_legacy() -> None:
    assert {"timestamp", "workdir", "remainingSpace", "messageLevel"} <= LEGACY.keys()
    assert not {"timestamp", "workdir", "remaining_space", "message_level"} & V1.keys()


def test_totals_are_kept_in_kilobytes_and_capped() -> None:
    report = collect(1, "running", {"totRCHAR": 10 * 1024, "totWCHAR": 1e30, "rateRCHAR": 2048}, LEGACY)
    assert report.columns == {"totRCHAR": 10, "totWCHAR": 10**10 - 1, "rateRCHAR": 2048}


def test_v1_rates_are_divided_too() -> None:
    assert collect(1, "running", {"rate_rchar": 2048}, V1).columns == {"rateRCHAR": 2}


@pytest.mark.parametrize("value", [None, "", "NULL", "None"])
def test_what_is_not_set_is_left_alone(value: object) -> None:
    assert collect(1, "running", {"node": value, "maxRSS": value, "startTime": value}, LEGACY).columns == {}


def test_numbers_may_come_as_text_from_forms() -> None:
    report = collect(1, "running", {"maxRSS": "1000", "transExitCode": "3", "attemptNr": "2"}, LEGACY)
    assert report.columns == {"maxRSS": 1000, "transExitCode": 3}
    assert report.attempt == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("maxRSS", "many"),
        ("maxRSS", "nan"),
        ("maxRSS", "1e999"),
        ("maxRSS", True),
        ("maxRSS", [1]),
        ("transExitCode", 2**31),
        ("cpuConsumptionTime", 10**30),
        ("attemptNr", "first"),
        ("startTime", "yesterday"),
        ("startTime", -5),
        ("endTime", 1e20),
        ("node", {"name": "x"}),
        ("xml", ["x"]),
        ("pilotErrorDiag", False),
    ],
)
def test_a_value_that_cannot_be_what_it_must_be_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(BadField) as caught:
        collect(1, "running", {field: value}, LEGACY)
    assert caught.value.field == field


def test_times_come_as_seconds_or_as_text_in_utc() -> None:
    report = collect(1, "finished", {"startTime": 1795215280.5, "endTime": "2026-11-20 22:55:10"}, LEGACY)
    assert report.columns == {"startTime": 1795215280.5, "endTime": 1795215310.0}


def test_texts_are_cut_and_nul_is_made_visible() -> None:
    report = collect(
        1, "failed", {"pilotErrorDiag": "a\x00b" + "x" * 1000, "pilotLog": "old" + "n" * LOG_LENGTH}, LEGACY
    )
    assert report.columns["pilotErrorDiag"] == "a␀b" + "x" * 497
    assert report.pilot_log == "n" * LOG_LENGTH


def test_the_memory_leak_is_taken_out_of_the_job_metrics() -> None:
    report = collect(1, "running", {"jobMetrics": "nEvents=5 leak=-0.5 chi2=1.2e3 x=y"}, LEGACY)
    assert (report.columns["memory_leak"], report.columns["memory_leak_x2"]) == (-0.5, 1200.0)
    assert "memory_leak" not in collect(1, "running", {"jobMetrics": "leak=a.b"}, LEGACY).columns
