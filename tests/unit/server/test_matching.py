"""Which pilot may get which job, and the reason when it may not."""

from __future__ import annotations

import pytest

from server.db.dispatch import Head
from server.logic.matching import JobRequest, Obstacle, best_first, label_fits, label_in_queue, nearest, obstacles


def head(**values: object) -> Head:
    plain: dict[str, object] = {
        "classID": 1,
        "computingSite": "Q",
        "gshare": "Undefined",
        "prodSourceLabel": "user",
        "processingType": "x",
        "resource_type": "SCORE",
        "workingGroup": "",
        "countryGroup": "",
        "architecture": "",
        "coreCount": 1,
        "minRamCount": 0,
        "maxDiskCount": 0,
        "maxWalltime": 0,
        "PandaID": 1,
        "currentPriority": 1000,
    }
    return Head(**{**plain, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "gets"),
    [
        ("user", {"user", "panda", "install"}),
        ("managed", {"managed", "test", "prod_test", "install"}),
        ("", {"managed", "test", "prod_test", "install"}),
        ("unified", {"managed", "test", "prod_test", "install", "user", "panda"}),
        ("ptest", {"ptest"}),
        ("test", {"test"}),
        ("rc_test2", {"rc_test2"}),
    ],
)
def test_a_label_gets_the_labels_of_the_documented_map(asked: str, gets: set[str]) -> None:
    labels = {"user", "panda", "install", "managed", "test", "prod_test", "ptest", "rc_test2"}
    assert {label for label in labels if label_fits(asked, "", label, "x")} == gets


def test_test_with_a_computing_element_gets_tests_and_gangarobot() -> None:
    assert label_fits("test", "ce", "prod_test", "x")
    assert label_fits("test", "ce", "user", "gangarobot")
    assert not label_fits("test", "ce", "user", "x")
    assert not label_fits("test", "", "prod_test", "x")


@pytest.mark.parametrize("label", ["user", "managed", "unified", ""])
def test_a_queue_in_test_runs_tests_only(label: str) -> None:
    assert label_in_queue(label, "test") == "test"
    assert label_in_queue(label, "online") == label


def test_special_labels_stay_what_they_are_in_a_queue_in_test() -> None:
    assert label_in_queue("ptest", "test") == "ptest"


@pytest.mark.parametrize(
    ("job", "pilot", "reason"),
    [
        ({"minRamCount": 4000}, {"memory": 2000}, "memory"),
        ({"maxDiskCount": 500}, {"disk": 100}, "disk"),
        ({"maxWalltime": 3600}, {"remaining_time": 60}, "time"),
        ({"coreCount": 8}, {"cores": 4}, "cores"),
        ({"resource_type": "MCORE"}, {"resource_type": "SCORE"}, "resource_type"),
        ({"prodSourceLabel": "managed"}, {}, "label"),
    ],
)
def test_each_obstacle_has_its_word_and_its_numbers(
    job: dict[str, object], pilot: dict[str, object], reason: str
) -> None:
    request = JobRequest(queue="Q", label="user", **pilot)  # type: ignore[arg-type]
    found = obstacles(request, "user", head(**job))
    assert [obstacle.reason for obstacle in found] == [reason]
    for value in (*job.values(), *pilot.values()):
        assert str(value) in found[0].sentence


def test_what_a_pilot_does_not_say_is_no_obstacle() -> None:
    needs = head(minRamCount=10**6, maxDiskCount=10**6, maxWalltime=10**6, coreCount=64)
    assert obstacles(JobRequest(queue="Q", label="user"), "user", needs) == []


def test_a_pilot_without_time_left_gets_only_jobs_that_ask_for_none() -> None:
    request = JobRequest(queue="Q", label="user", remaining_time=0)
    assert obstacles(request, "user", head(maxWalltime=1))
    assert not obstacles(request, "user", head(maxWalltime=0))


def test_priority_comes_before_age() -> None:
    heads = [
        head(PandaID=1, currentPriority=10),
        head(PandaID=9, currentPriority=20),
        head(PandaID=5, currentPriority=20),
    ]
    assert [h.PandaID for h in best_first(heads, JobRequest("Q"), {})] == [5, 9, 1]


def test_the_reason_named_is_that_of_the_job_that_misses_by_least() -> None:
    far = [Obstacle("memory", "m"), Obstacle("disk", "d")]
    assert nearest([far, [Obstacle("label", "l")]]).reason == "label"


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ("SCORE", {"SCORE"}),
        ("SCORE*", {"SCORE", "SCORE_HIMEM"}),
        ("SCORE%", {"SCORE", "SCORE_HIMEM"}),
        ("%_HIMEM", {"SCORE_HIMEM", "MCORE_HIMEM"}),
        ("?CORE", {"SCORE", "MCORE"}),
        ("*", {"SCORE", "SCORE_HIMEM", "MCORE", "MCORE_HIMEM"}),
        ("score*", set()),
        ("", {"SCORE", "SCORE_HIMEM", "MCORE", "MCORE_HIMEM"}),
    ],
)
def test_a_resource_type_asked_for_may_be_a_pattern(wanted: str, fits: set[str]) -> None:
    kinds = ("SCORE", "SCORE_HIMEM", "MCORE", "MCORE_HIMEM")
    request = JobRequest("Q", resource_type=wanted)
    assert {kind for kind in kinds if not obstacles(request, "user", head(resource_type=kind))} == fits
