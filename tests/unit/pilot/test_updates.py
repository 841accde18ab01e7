"""What is told to the server: the same names and types as an existing pilot's, and figures that add up."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pilot.api.attempts import Attempt
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.common.lifecycle import Abort, Accepted, StagedIn
from pilot.control import updates
from pilot.control.jobrun import JobRun, Usage
from pilot.control.metrics import job_metrics
from pilot.info import wire
from pilot.info.filespec import FileSpec
from pilot.user.generic.jobmetrics import get_job_metrics
from pilot.util.features import Features
from pilot.util.guarded import Launcher, Outcome
from pilot.util.https import Json
from pilot.util.memoryfiles import Summary
from pilot.util.processes import TreeSample
from tests.unit.pilot.builders import GOLDEN, IDENTITY, job_run
from tests.unit.pilot.test_wire import UPDATE, UPDATE_INTEGERS

C = ErrorCodes
NOW = 1_800_000_000.0  # 2027-01-15 08:00:00 UTC
LIMIT = 1_000_000

# Times are numbers in the recorded traffic, and text in the interface's own description, which servers store as it is.
TIMES = ("startTime", "endTime")

FIGURES = TreeSample(
    processes=3, pss=1000, rss=2000, vmem=9000, swap=10, cpu_user=4.0, cpu_system=1.0,
    rchar=5000, wchar=600, rbytes=70, wbytes=8,
)  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> JobRun:
    """A job that was just taken."""
    made = job_run(tmp_path)
    made.created = NOW - 100
    return made


def with_payload(run: JobRun, tmp_path: Path, wall: float = 10.0) -> JobRun:
    """The same with a payload that has run for a while under a real guard, and was sampled."""
    with (tmp_path / "out").open("wb") as out:
        run.adopt(Launcher().start(["true"], cwd=tmp_path, env={}, stdout=out, stderr=out))
    run.guarded.wait()
    run.guarded.started = NOW - wall
    return run


def ended(run: JobRun, error: PilotException | None = None) -> JobRun:
    run.data.outdata[0].status = run.data.logdata[0].status = "transferred"
    run.data.outdata[0].checksum = run.data.logdata[0].checksum = {"adler32": "084b021f"}
    run.outcome = Outcome(exit_code=0, cpu_user=4.5, cpu_system=0.5, max_rss=7000)
    run.ended = NOW
    if error is not None:
        run.lifecycle.errors.append(error)
    return run


def bodies(run: JobRun, tmp_path: Path) -> dict[str, dict[str, Json]]:
    """One body of each kind, by the names of the recorded ones."""
    got = {
        "updateJob starting": updates.common(run, IDENTITY, "starting", NOW),
        "updateJob running": updates.common(run, IDENTITY, "running", NOW),
    }
    with_payload(run, tmp_path)
    run.usage.add(FIGURES)
    got["updateJob running heartbeat"] = updates.heartbeat(run, IDENTITY, "running", NOW, "hello")
    got["updateJob finished"] = updates.final(ended(run), IDENTITY, NOW, "log", legacy=True, report_limit=LIMIT)
    run.lifecycle.errors.append(PilotException("exit code 1", code=C.PAYLOADEXECUTIONFAILURE))
    got["updateJob failed"] = updates.final(run, IDENTITY, NOW, "log", legacy=True, report_limit=LIMIT)
    return got


def test_every_update_says_all_that_an_existing_pilot_says_in_the_same_types(run: JobRun, tmp_path: Path) -> None:
    got = bodies(run, tmp_path)
    for name, kinds in GOLDEN["requests"].items():
        if not name.startswith("updateJob "):
            continue
        assert not set(kinds) - set(got[name]), f"{name} lacks {set(kinds) - set(got[name])}"
        for field, kind in kinds.items():
            assert type(got[name][field]).__name__ == ("str" if field in TIMES else kind), f"{name}: {field}"


def test_no_update_says_what_a_server_does_not_know(run: JobRun, tmp_path: Path) -> None:
    for name, body in bodies(run, tmp_path).items():
        assert set(body) <= set(UPDATE), f"{name}: {set(body) - set(UPDATE)}"
        json.dumps(body, allow_nan=False)


def test_translated_updates_have_the_types_that_v1_demands(run: JobRun, tmp_path: Path) -> None:
    names = {UPDATE[name] for name in UPDATE_INTEGERS}
    figures = re.compile(r"(max|avg|tot|rate)_|cpu_conversion_factor")
    for body in bodies(run, tmp_path).values():
        for name, value in wire.update_to_v1(body).items():
            wanted = int if name in names else (int, float) if figures.match(name) else str
            assert isinstance(value, wanted), f"{name}: {value!r}"


def test_an_update_says_who_and_when(run: JobRun) -> None:
    body = updates.common(run, IDENTITY, "starting", NOW)
    assert body == {
        "jobId": "254",
        "state": "starting",
        "timestamp": "2027-01-15T08:00:00+00:00",
        "siteName": "SITE_QUEUE",
        "node": "slot1@node",
        "attemptNr": 1,
        "schedulerID": "scheduler-1",
        "pilotID": body["pilotID"],
        "startTime": "2027-01-15 07:58:20",
        "xml": "",
        "metaData": "",
        "coreCount": 1,
        "cpuConsumptionUnit": "s+AMD EPYC",
    }
    assert re.match(r"http://gtag/1\|PR\|\d+\.\d+", str(body["pilotID"]))


def test_the_batch_systems_id_is_sent_where_there_is_one(run: JobRun) -> None:
    from dataclasses import replace

    assert updates.common(run, replace(IDENTITY, batch_id="17"), "running", NOW)["batchID"] == "17"


# ---- how a job ended


@pytest.mark.parametrize(
    ("code", "label", "transformation", "legacy", "wanted"),
    [
        (0, "user", "x", True, ("finished", 0)),
        (C.PAYLOADEXECUTIONFAILURE, "user", "x", True, ("failed", 1305)),
        (C.PANDAKILL, "managed", "x", True, ("failed", 1144)),
        (1135, "user", "x", True, ("holding", -1135)),
        (1136, "user", "x", True, ("holding", -1136)),
        (1137, "user", "x", True, ("holding", -1137)),
        (1141, "user", "x", True, ("holding", -1141)),
        (1152, "user", "x", True, ("holding", -1152)),
        (1181, "user", "x", True, ("holding", -1181)),
        (1137, "user", "x", False, ("holding", 1137)),
        (1137, "managed", "x", True, ("failed", 1137)),
        (1137, "ptest", "http://s/trf/user/run", True, ("holding", -1137)),
        (1099, "user", "x", True, ("failed", 1099)),
    ],
)
def test_state_and_code_follow_from_the_first_error(
    tmp_path: Path, code: int, label: str, transformation: str, legacy: bool, wanted: tuple[str, int]
) -> None:
    run = job_run(tmp_path, prodSourceLabel=label, transformation=transformation)
    if code:
        run.lifecycle.errors += [PilotException("why", code=code), PilotException("later", code=C.STAGEOUTFAILED)]
    state, number, diag = updates.outcome(run, legacy)
    assert (state, number) == wanted
    assert diag.endswith(": why") if code else diag == ""


def test_an_aborted_job_is_failed_with_the_reason(run: JobRun) -> None:
    for event in (Accepted(), StagedIn(), Abort(PilotException("the server ordered it", code=C.PANDAKILL))):
        run.lifecycle.handle(event)
    assert updates.outcome(run, True) == ("failed", 1144, "This job was killed by panda server: the server ordered it")


def test_texts_fit_into_a_servers_columns(run: JobRun, tmp_path: Path) -> None:
    run.exe_error_code, run.exe_error_diag = 8, "x" * 10_000
    ended(with_payload(run, tmp_path), PilotException("y" * 10_000))
    body = updates.final(run, IDENTITY, NOW, "", True, report_limit=LIMIT)
    for name in ("pilotErrorDiag", "exeErrorDiag", "jobMetrics"):
        assert len(str(body[name])) <= 500
    assert len(str(updates.heartbeat(run, IDENTITY, "running", NOW, "z" * 10_000)["stdout"])) == 2048


@pytest.mark.parametrize(
    ("text", "wanted"), [("a\0b", "a?b"), ("a\ud800b", "a?b"), ("\udcff", "?"), ("grün ☕\n", "grün ☕\n")]
)
def test_texts_of_the_payload_hold_nothing_that_a_database_refuses(run: JobRun, text: str, wanted: str) -> None:
    run.exe_error_diag = text
    ended(run, PilotException(f"-{text}-"))
    body = updates.final(run, IDENTITY, NOW, text, True, report_limit=LIMIT)
    assert (body["pilotLog"], body["exeErrorDiag"]) == (wanted, wanted)
    assert str(body["pilotErrorDiag"]).endswith(f"-{wanted}-")
    assert updates.heartbeat(run, IDENTITY, "running", NOW, text)["stdout"] == wanted


def test_the_final_update_says_what_the_transformation_said(run: JobRun) -> None:
    run.trans_exit_code, run.exe_error_code, run.exe_error_diag = 65, 8, "bad event"
    run.metadata = '{"exitCode": 8}'
    body = updates.final(ended(run), IDENTITY, NOW, "the end of the log", True, report_limit=LIMIT)
    assert body["transExitCode"] == 65
    assert (body["exeErrorCode"], body["exeErrorDiag"], body["metaData"]) == (8, "bad event", '{"exitCode": 8}')
    assert (body["pilotLog"], body["nInputFiles"]) == ("the end of the log", 0)


def test_times_are_told_by_phase_in_whole_seconds(run: JobRun) -> None:
    run.timing = {"getjob": 0.4, "stage-in": 1.6, "payload": 3599.5, "stage-out": 2.0, "set-up": 0.0}
    assert updates.final(ended(run), IDENTITY, NOW, "", True, report_limit=LIMIT)["pilotTiming"] == "0|2|3600|2|0|0"


# ---- files


@pytest.mark.parametrize(
    ("algorithm", "checksum"), [("adler32", "084b021f"), ("md5", "b1946ac92492d2347c6235b4d2611184")]
)
def test_the_report_lists_what_is_in_storage_as_the_existing_pilot_does(algorithm: str, checksum: str) -> None:
    there = FileSpec(
        "out.txt", "output", "vo", "FF9D", ddmendpoint="SITE_DISK", filesize=6, checksum={algorithm: checksum},
        surl="file://planned", turl="file://localhost/storage/vo/3d/b9/out.txt", status="transferred",
    )  # fmt: skip
    lost = FileSpec("lost.txt", "output", status="failed")
    never = FileSpec("never.txt", "output")
    assert json.loads(updates.output_report([there, lost, never])) == {
        "out.txt": {
            "guid": "FF9D",
            "fsize": 6,
            algorithm: checksum,
            "surl": "file://localhost/storage/vo/3d/b9/out.txt",
            "endpoint": "SITE_DISK",
        }
    }


def test_without_files_there_is_no_report() -> None:
    assert updates.output_report([]) == updates.output_report([FileSpec("f")]) == ""


# ---- figures


def test_a_job_without_a_payload_has_used_nothing(run: JobRun) -> None:
    assert updates.consumption(run, NOW) == {}


def test_while_a_payload_runs_its_figures_are_those_of_the_samples(run: JobRun, tmp_path: Path) -> None:
    with_payload(run, tmp_path, wall=10.0)
    run.usage.add(TreeSample(2, 3000, 4000, 8000, 0, 1.0, 0.5, 1, 1, 1, 1))
    run.usage.add(FIGURES)
    assert updates.consumption(run, NOW) == {
        "cpuConsumptionTime": 5,
        "meanCoreCount": 0.5,
        "maxRSS": 4000, "maxVMEM": 9000, "maxSWAP": 10, "maxPSS": 3000,
        "avgRSS": 3000, "avgVMEM": 8500, "avgSWAP": 5, "avgPSS": 2000,
        "totRCHAR": 5000, "totWCHAR": 600, "totRBYTES": 70, "totWBYTES": 8,
        "rateRCHAR": 500, "rateWCHAR": 60, "rateRBYTES": 7, "rateWBYTES": 0,
    }  # fmt: skip


def test_at_the_end_the_guards_account_of_cpu_time_counts(run: JobRun, tmp_path: Path) -> None:
    with_payload(run, tmp_path).usage.add(FIGURES)
    run.outcome = Outcome(0, cpu_user=20.0, cpu_system=0.4)
    run.ended = NOW
    body = updates.consumption(run, NOW + 1000)
    assert (body["cpuConsumptionTime"], body["meanCoreCount"]) == (20, 2.04)


def test_when_the_guard_died_the_last_sample_counts(run: JobRun, tmp_path: Path) -> None:
    with_payload(run, tmp_path).usage.add(FIGURES)
    run.outcome = Outcome(None, signal=9, guard_died=True)
    assert updates.consumption(run, NOW)["cpuConsumptionTime"] == 5


def test_a_payload_that_was_too_short_to_sample_has_the_kernels_record(run: JobRun, tmp_path: Path) -> None:
    with_payload(run, tmp_path)
    run.outcome = Outcome(0, max_rss=7000)
    body = updates.consumption(run, NOW)
    assert (body["maxRSS"], body["maxPSS"]) == (7000, 7000)
    assert "avgRSS" not in body


def test_a_payload_that_was_sampled_on_its_way_out_alone_has_the_kernels_record(run: JobRun, tmp_path: Path) -> None:
    with_payload(run, tmp_path).usage.add(TreeSample(processes=1, rchar=5))  # a zombie has no memory any more
    assert updates.consumption(run, NOW)["maxRSS"] == 0
    run.outcome = Outcome(0, max_rss=7000)
    body = updates.consumption(run, NOW)
    assert (body["maxRSS"], body["maxPSS"], body["totRCHAR"]) == (7000, 7000, 5)


def test_a_clock_that_was_set_back_makes_no_negative_rate(run: JobRun, tmp_path: Path) -> None:
    with_payload(run, tmp_path, wall=-50.0).usage.add(FIGURES)
    body = updates.consumption(run, NOW)
    assert "meanCoreCount" not in body and body["rateRCHAR"] == 0


def test_a_tree_that_is_gone_is_no_sample() -> None:
    usage = Usage()
    usage.add(TreeSample())
    assert usage.samples == 0
    usage.add(FIGURES)
    usage.add(TreeSample(processes=1))
    assert (usage.samples, usage.processes, usage.maximum["pss"], usage.total["pss"]) == (2, 3, 1000, 1000)


def metrics(run: JobRun) -> dict[str, str]:
    return job_metrics(run, Features())


def test_metrics_are_pairs_separated_by_blanks(run: JobRun, tmp_path: Path) -> None:
    assert metrics(run) == {"coreCount": "1", "jobStart": str(int(NOW - 100))}
    with_payload(run, tmp_path).usage.add(FIGURES)
    run.outcome = Outcome(0, cpu_user=4.0, cpu_system=1.0)
    run.timing = {"stage-in": 1.25, "payload": 10.0, "stage-out": 0.5, "set-up": 0.1}
    run.workdir_size = 4096
    run.data.minramcount, run.data.maxwalltime, run.data.maxdiskcount = 2000, 3600, 100
    got: dict[str, Any] = metrics(run)
    assert got == {
        "coreCount": "1", "jobStart": str(int(NOW - 100)), "actualCoreCount": "0.5", "payloadWall": "10.000",
        "stageInWall": "1.250", "stageOutWall": "0.500", "setupWall": "0.100", "maxNumProc": "3", "vmPeakMax": "9000",
        "vmPeakMean": "9000", "RSSMean": "2000", "workDirSize": "4096", "memLimit": "2000", "diskLimit": "100",
        "runLimit": "3600",
    }  # fmt: skip


def test_what_is_known_of_limits_leaks_and_the_node_is_in_the_metrics(run: JobRun) -> None:
    queue = run.infosys.queuedata
    queue.maxrss, queue.maxwdir, queue.maxtime = 4000, 5000, 6000
    run.data.maxcpucount = 7000
    run.figures = {"nEvents": "100", "leak": "1.50", "chi2": "0.20"}
    run.usage.workdir, run.workdir_size = 9000, 4096
    run.exceeded = {"maxCpuCount": "a sentence", "1235": "another"}
    features = Features({"hs06": 80.5, "shutdowntime": 1795300000.0}, {"hs06_job": 10.0})
    got = job_metrics(run, features)
    wanted = {
        "memLimit": "4000", "diskLimit": "5000", "runLimit": "6000", "cpuLimit": "7000", "nEvents": "100",
        "leak": "1.50", "chi2": "0.20", "workDirSize": "9000", "hs06": "10.0", "shutdownTime": "1795300000",
        "exceeded": "1235,maxCpuCount",
    }  # fmt: skip
    assert got == {**got, **wanted}


def test_metrics_that_are_too_many_are_cut_between_two(run: JobRun) -> None:
    run.figures = {f"figure{number}": "123456" for number in range(100)}
    text = str(
        updates.final(run, IDENTITY, NOW, "", True, LIMIT, get_job_metrics(run.data, metrics(run)))["jobMetrics"]
    )
    assert 470 < len(text) <= 500
    assert all(pair.endswith("=123456") for pair in text.split(" "))


def test_a_sites_own_memory_monitor_is_believed_about_memory_only() -> None:
    usage = Usage()
    usage.add(FIGURES)
    usage.take(Summary({"pss": 7777}, {"pss": 6666}, {"rchar": 1}))
    assert (usage.maximum["pss"], usage.average("pss")) == (7777, 6666)
    assert (usage.maximum["rss"], usage.last.rchar) == (FIGURES.rss, FIGURES.rchar)
    assert usage.summary().maximum["pss"] == 7777


def test_an_error_is_one_line_with_whom_to_ask_and_what_to_do() -> None:
    line = updates.error_line(PilotException("no route to host", code=C.STAGEINFAILED))
    assert line.startswith("1099 STAGEINFAILED: Failed to stage-in file: no route to host [storage] Look up the file")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("when", "text"), [(0.0, "1970-01-01 00:00:00"), (NOW, "2027-01-15 08:00:00"), (NOW + 0.999, "2027-01-15 08:00:00")]
)
def test_times_are_utc_in_the_servers_form(when: float, text: str) -> None:
    assert updates.server_time(when) == text


# ---- transfers with the job report


def attempt(number: int, kind: str = "ok", text: str = "") -> Attempt:
    return Attempt(f"f{number}", "in", 1, "mv", "DISK", "", "file", 5, 0.12345, kind, 0 if kind == "ok" else 1151, text)


@pytest.mark.parametrize(
    "report", ["", "{}", " { } \n", '{"a": 1}', '{"a": {"b": [1e400, 1.10]}}\n', '{"pilotkit": "mine"}', '{"ä": "}"}']
)
def test_the_transfers_are_added_to_the_report_which_keeps_all_else(report: str) -> None:
    sent = updates.with_own(report, [attempt(1), attempt(2, "stalled", "no bytes")], {}, LIMIT)
    found = json.loads(sent)
    own = found.pop("pilotkit")
    assert own["left_out"] == 0
    assert [(row["lfn"], row["kind"], row["code"], row["text"]) for row in own["transfers"]] == [
        ("f1", "ok", 0, ""), ("f2", "stalled", 1151, "no bytes")
    ]  # fmt: skip
    assert own["transfers"][0]["seconds"] == 0.123
    kept = json.loads(report) if report else {}
    kept.pop("pilotkit", None)
    assert found == kept and sent.startswith(report.strip()[:-1].rstrip())


def test_without_transfers_the_report_is_sent_as_it_is() -> None:
    assert updates.with_own(' {"a": 1}\n', [], {}, LIMIT) == ' {"a": 1}\n'
    assert updates.with_own("", [], {}, LIMIT) == ""


def test_where_room_is_short_failures_and_the_newest_are_kept_in_their_order() -> None:
    all_of_them = [attempt(n, "stalled" if n in (3, 50) else "ok") for n in range(100)]
    sent = updates.with_own('{"a": 1}', all_of_them, {}, 2000)
    assert len(sent.encode()) <= 2000
    own = json.loads(sent)["pilotkit"]
    names = [row["lfn"] for row in own["transfers"]]
    assert names[:2] == ["f3", "f50"] and names[-1] == "f99" and names == sorted(names, key=lambda name: int(name[1:]))
    assert own["left_out"] == 100 - len(names) > 0


def test_the_autopsy_goes_before_the_transfers_and_alone_where_there_are_none() -> None:
    found = json.loads(updates.with_own('{"a": 1}', [attempt(1)], {"outcome": "failed"}, LIMIT))
    assert found["a"] == 1 and found["pilotkit"]["autopsy"] == {"outcome": "failed"}
    assert [row["lfn"] for row in found["pilotkit"]["transfers"]] == ["f1"]
    assert json.loads(updates.with_own("", [], {"outcome": "failed"}, LIMIT)) == {
        "pilotkit": {"autopsy": {"outcome": "failed"}}
    }


def test_a_report_that_fills_the_limit_is_sent_alone() -> None:
    report = json.dumps({"a": "x" * 900})
    assert updates.with_own(report, [attempt(1)], {}, 1000) == report


@pytest.mark.parametrize("limit", range(0, 1200, 7))
def test_report_and_transfers_are_together_within_the_limit(limit: int) -> None:
    report = '{"ü": "ä"}'
    sent = updates.with_own(report, [attempt(n, "other", "ö" * 20) for n in range(4)], {}, limit)
    assert sent == report or len(sent.encode()) <= limit


def test_thousands_of_transfers_do_not_make_a_large_update() -> None:
    sent = updates.with_own("", [attempt(n, "other", "x" * 5000) for n in range(5000)], {}, LIMIT)
    assert len(sent) < 66_000 and json.loads(sent)["pilotkit"]["left_out"] > 4000
