"""What the flight recorder's entries mean: every end has a cause, somebody who decided it, and somebody to blame."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilot.common.errorcodes import ErrorCodes
from pilot.control.autopsy import Autopsy, examine, print_autopsy, render
from pilot.util.https import Json
from pilot.util.recorder import FILE, Entry, Recorder

C = ErrorCodes


def taken(**more: Json) -> Entry:
    return {"time": 100.0, "kind": "taken", "job": "7", "attempt": 2, **more}


def event(when: float, name: str, state: str, new: str, code: int = 0, text: str = "") -> Entry:
    wrong: Entry = {"code": code, "text": text} if code else {}
    return {"time": when, "kind": "event", "job": "7", "event": name, "state": state, "new": new, **wrong}


def reported(state: str, delivered: bool = True) -> Entry:
    return {"time": 109.0, "kind": "reported", "job": "7", "state": state, "delivered": delivered}


GOOD = [
    taken(),
    event(100.5, "Accepted", "received", "stage-in"),
    event(101.5, "StagedIn", "stage-in", "payload"),
    event(101.6, "PayloadStarted", "payload", "payload"),
    event(104.0, "PayloadEnded", "payload", "stage-out"),
    event(104.25, "StagedOut", "stage-out", "reporting"),
    reported("finished"),
    event(104.5, "Reported", "reporting", "over"),
]


def only(entries: list[Entry], *, alive: bool = True) -> Autopsy:
    (found,) = examine(entries, alive=alive)
    return found


def test_a_job_that_went_well_has_a_timeline_and_no_cause() -> None:
    one = only(GOOD)
    assert (one.attempt, one.outcome, one.code, one.decided_by, one.delivered) == (2, "finished", 0, "", True)
    assert [(phase.name, phase.milliseconds) for phase in one.timeline] == [
        ("received", 500.0), ("stage-in", 1000.0), ("payload", 2500.0), ("stage-out", 250.0), ("reporting", 250.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "state", "code", "decided_by"),
    [
        ("Refused", "received", C.CONVERSIONFAILURE, "the pilot, reading the job's definition"),
        ("StageInFailed", "stage-in", C.MISSINGINPUTFILE, "stage-in"),
        ("PayloadEnded", "payload", C.PAYLOADOUTOFMEMORY, "the kernel, short of memory"),
        ("PayloadEnded", "payload", C.TRANSFORMNOTFOUND, "the pilot, starting the payload"),
        ("Abort", "payload", C.INTERNALPILOTPROBLEM, "the pilot, by a fault of its own"),
        ("Abort", "payload", C.PANDAKILL, "the server, by a kill order"),
        ("Abort", "payload", C.SIGTERM, "the batch system or an administrator, by a signal to the pilot"),
        ("Abort", "payload", C.REACHEDMAXTIME, "the pilot, at the end of its time"),
        ("Abort", "payload", C.KILLPAYLOAD, "whoever made the kill file"),
        ("Abort", "payload", C.STDOUTTOOBIG, "the pilot's monitor, by a limit"),
        ("StagedOut", "stage-out", C.STAGEOUTFAILED, "stage-out"),
    ],
)
def test_the_first_error_is_the_cause_and_whose_it_is_is_said(
    name: str, state: str, code: int, decided_by: str
) -> None:
    later = event(103.0, "StagedOut", "stage-out", "reporting", C.NOREMOTESPACE, "no space")
    one = only([taken(), event(102.0, name, state, "next", code, "it was so"), later, reported("failed")])
    assert (one.outcome, one.code, one.text, one.decided_by) == ("failed", code, "it was so", decided_by)
    assert one.blame and one.advice and one.name
    assert one.evidence == [f"{name} in phase {state}: it was so", "later, from StagedOut: no space"]
    assert f"cause       {code} " in render(one) and decided_by in render(one)


@pytest.mark.parametrize(
    ("kinds", "decided_by"),
    [
        ((), "the payload, by its end"),
        (("container",), "the container runtime, before the payload began"),
        (("container", "contained"), "the payload, by its end"),
    ],
)
def test_an_end_of_a_payload_is_decided_by_whoever_ran_then(kinds: tuple[str, ...], decided_by: str) -> None:
    told: list[Entry] = [{"time": 101.7, "kind": kind, "job": "7"} for kind in kinds]
    ended = event(102.0, "PayloadEnded", "payload", "stage-out", C.PAYLOADEXECUTIONFAILURE, "exit code 3")
    assert only([*GOOD[:4], *told, ended]).decided_by == decided_by


def test_a_job_whose_pilot_is_gone_without_a_report_was_killed_in_its_last_phase() -> None:
    one = only(GOOD[:4], alive=False)
    assert (one.outcome, one.code) == ("killed", C.KILLSIGNAL)
    assert "in phase payload" in one.text and one.decided_by.startswith("whoever killed the pilot")
    assert one.timeline[-1].milliseconds is None
    assert only(GOOD[:4]).outcome == "under way"


def test_what_was_known_before_the_pilot_was_killed_stays_the_cause() -> None:
    entries = [*GOOD[:4], event(103.0, "Abort", "payload", "stopping", C.PANDAKILL, "the server ordered it")]
    one = only(entries, alive=False)
    assert (one.outcome, one.code) == ("killed", C.PANDAKILL)
    assert one.evidence[-1] == "the pilot was killed in phase stopping, before it could report that"


def test_the_last_samples_are_evidence_and_all_of_it_is_json_and_text() -> None:
    samples: list[Entry] = [{"time": 102.0 + n, "kind": "memory", "job": "7", "pss": n} for n in range(9)]
    one = only([*GOOD[:4], *samples])
    assert one.evidence == [f"memory: pss {n}" for n in range(4, 9)]
    assert one.as_json()["evidence"] == one.evidence
    assert "evidence    memory: pss 4" in render(one) and "payload    still" in render(one)


def test_a_recorder_of_two_jobs_tells_of_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Recorder(tmp_path / FILE)
    for job in ("7", "8"):
        made.decision("taken", job=job, attempt=1)
        made.decision("event", job=job, event="Accepted", state="received", new="stage-in")
    made.close()
    assert print_autopsy(tmp_path) == 0
    told = capsys.readouterr().out
    assert "job 7 (attempt 1): killed" in told and "job 8 (attempt 1): killed" in told and "its pilot is gone" in told


def test_a_recording_that_cannot_be_read_does_not_hide_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / FILE).write_bytes(b"something else")
    made = Recorder(tmp_path / "b" / FILE)
    made.decision("taken", job="7", attempt=1)
    made.close()
    assert print_autopsy(tmp_path) == 1
    said = capsys.readouterr()
    assert "job 7 (attempt 1)" in said.out and str(tmp_path / "a" / FILE) in said.err


@pytest.mark.parametrize("contents", [None, b"something else"])
def test_without_a_recording_there_is_a_sentence_and_an_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], contents: bytes | None
) -> None:
    if contents is not None:
        (tmp_path / FILE).write_bytes(contents)
    assert print_autopsy(tmp_path) == 1
    assert FILE in capsys.readouterr().err
