"""The job controller: when it asks, what it says, and what becomes of the answers."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.common.lifecycle import Accepted, Event, Refused
from pilot.control.context import Context
from pilot.control.dispatcher import Dispatcher, JobAnswer
from pilot.control.job import (
    FileSource,
    JobController,
    Limits,
    Tally,
    after_job,
    heartbeat_interval,
    is_done,
    may_fetch,
)
from pilot.control.jobrun import JobRun
from pilot.control.keeper import Keeper
from pilot.util.https import Credentials, HttpClient, Json, RequestFailed, RetryPolicy
from tests.unit.pilot.builders import GOLDEN, SETTINGS, context, definition
from tests.unit.pilot.webserver import Answer, WebServer
from tests.x509 import X509

C = ErrorCodes
LIMITS = Limits(
    lifetime=1000.0, reserve=100.0, timefloor=500.0, requests=2, failures=5, space=1000, sick=3, sick_time=60.0
)


# ---- may we, must we


@pytest.mark.parametrize(
    ("tally", "elapsed", "free", "code"),
    [
        (Tally(), 0.0, 1000, 0),
        (Tally(), 899.9, 1000, 0),
        (Tally(empty=1, failures=4), 0.0, 1000, 0),
        (Tally(failures=5), 0.0, 1000, C.COMMUNICATIONFAILURE),
        (Tally(jobs=3, failures=5), 0.0, 1000, C.COMMUNICATIONFAILURE),
        (Tally(empty=2), 0.0, 1000, C.NOJOBSINPANDA),
        (Tally(jobs=1, empty=2), 0.0, 1000, 0),
        (Tally(), 900.0, 1000, C.REACHEDMAXTIME),
        (Tally(jobs=1), 900.0, 1000, 0),
        (Tally(), 0.0, 999, C.NOLOCALSPACE),
        (Tally(jobs=2), 0.0, 999, C.NOLOCALSPACE),
        (Tally(failures=5, empty=2), 2000.0, 0, C.COMMUNICATIONFAILURE),
    ],
)
def test_a_pilot_may_ask_unless_there_is_a_reason(tally: Tally, elapsed: float, free: int, code: int) -> None:
    reason = may_fetch(tally, elapsed, free, LIMITS)
    assert (reason.code if reason else 0) == code


@pytest.mark.parametrize(
    ("tally", "elapsed", "timefloor", "said"),
    [
        (Tally(), 600.0, 500.0, ""),
        (Tally(), 5000.0, 500.0, ""),
        (Tally(empty=9), 0.0, 500.0, ""),
        (Tally(jobs=1), 0.0, 0.0, "1 job(s) done, and the time floor of 0 s is reached"),
        (Tally(jobs=1), 499.0, 500.0, ""),
        (Tally(jobs=4), 500.0, 500.0, "4 job(s) done, and the time floor of 500 s is reached"),
        (Tally(jobs=1), 900.0, 5000.0, "1 job(s) done, and no time for another"),
        (Tally(jobs=1, empty=1), 0.0, 500.0, ""),
        (Tally(jobs=1, empty=2), 0.0, 500.0, "1 job(s) done, and no more at the dispatcher"),
    ],
)
def test_a_pilot_with_a_job_behind_it_is_done_when_the_time_floor_or_the_work_is_over(
    tally: Tally, elapsed: float, timefloor: float, said: str
) -> None:
    assert is_done(tally, elapsed, replace(LIMITS, timefloor=timefloor)) == said


@pytest.mark.parametrize(
    ("wished", "setting", "least", "wanted"),
    [
        (None, 1800.0, 10.0, 1800.0),
        (0.0, 1800.0, 10.0, 1800.0),
        (-5.0, 1800.0, 10.0, 1800.0),
        (60.0, 1800.0, 10.0, 60.0),
        (1.0, 1800.0, 10.0, 10.0),
        (7200.0, 1800.0, 10.0, 1800.0),
        (1.0, 5.0, 10.0, 5.0),
        (20.0, 5.0, 10.0, 5.0),
    ],
)
def test_the_server_may_shorten_the_interval_of_heartbeats_within_limits(
    wished: float | None, setting: float, least: float, wanted: float
) -> None:
    assert heartbeat_interval(wished, setting, least) == wanted


# ---- the controller


class Desk:
    """A job controller, and what it does with the jobs it gets."""

    def __init__(self, shared: Context, source: object) -> None:
        self.runs: list[JobRun] = []
        self.events: list[Event] = []
        self.ends: list[PilotException | None] = []
        self.controller = JobController(shared, source, self.runs.append, self._handle, self.ends.append)  # type: ignore[arg-type]

    def _handle(self, run: JobRun, event: Event) -> None:
        self.events.append(event)
        run.over.set()

    def work(self) -> PilotException | None:
        self.controller.run()
        (end,) = self.ends
        return end


class Answers:
    """A source of jobs: one answer after the other, an exception among them is raised."""

    def __init__(self, *answers: JobAnswer | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[dict[str, Json]] = []

    def get_job(self, request: dict[str, Json]) -> JobAnswer:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def job(**changes: Json) -> JobAnswer:
    return JobAnswer(definition=definition(**changes))


EMPTY = JobAnswer(reason="nothing queued", retry_after=0.0)
FAILURE = RequestFailed("no answer", temporary=True)


@pytest.fixture
def shared(tmp_path: Path) -> Context:
    pilot = replace(SETTINGS.pilot, getjob_delay_min=0.0, getjob_delay_max=0.0)
    settings = replace(SETTINGS, pilot=pilot, file=replace(SETTINGS.file, space_to_start=0))
    return context(tmp_path, settings=settings)


def with_timefloor(shared: Context, seconds: int) -> Context:
    shared.infosys.queuedata.timefloor = seconds
    return shared


def test_a_queue_without_a_time_floor_gives_a_pilot_one_job(shared: Context) -> None:
    desk = Desk(shared, Answers(job()))
    assert desk.work() is None
    assert [run.jobid for run in desk.runs] == ["254"]
    assert desk.events == [Accepted()]


def test_with_a_time_floor_one_job_follows_the_other_until_there_are_no_more(shared: Context) -> None:
    source = Answers(job(PandaID=1), EMPTY, job(PandaID=2), job(PandaID=3), EMPTY, EMPTY)
    desk = Desk(with_timefloor(shared, 3600), source)
    assert desk.work() is None
    assert [run.jobid for run in desk.runs] == ["1", "2", "3"]


def test_empty_answers_end_a_pilot_that_never_had_a_job(shared: Context) -> None:
    source = Answers(EMPTY, EMPTY)
    end = Desk(shared, source).work()
    assert end is not None and (end.code, end.info.shell_code) == (C.NOJOBSINPANDA, 82)
    assert len(source.requests) == 2


def test_failures_in_a_row_end_a_pilot(shared: Context) -> None:
    source = Answers(FAILURE, FAILURE, EMPTY, FAILURE, FAILURE, FAILURE, FAILURE, FAILURE)
    end = Desk(shared, source).work()
    assert end is not None and end.code == C.COMMUNICATIONFAILURE
    assert source.answers == []


def test_a_job_without_a_number_counts_as_a_failure(shared: Context) -> None:
    source = Answers(*[job(PandaID=None)] * 5)
    desk = Desk(shared, source)
    end = desk.work()
    assert end is not None and end.code == C.COMMUNICATIONFAILURE
    assert desk.runs == []


def test_a_full_disk_takes_no_job(shared: Context) -> None:
    settings = replace(shared.settings, file=replace(shared.settings.file, space_to_start=2**62))
    source = Answers()
    end = Desk(replace(shared, settings=settings), source).work()
    assert end is not None and end.code == C.NOLOCALSPACE
    assert source.requests == []


def keeper(shared: Context, x509: X509, hours: float, **changes: bool) -> Keeper:
    """Of a pilot with a proxy of so many hours."""
    found = Credentials(certificate=str(x509.proxy(hours=hours, voms=False)))
    return Keeper(found, {}, shared.settings.token, shared.log, named=True, **changes)


@pytest.mark.parametrize(
    ("hours", "catchall", "check", "code"),
    [
        (0.5, "", True, C.PROXYTOOSHORT),
        (-1.0, "", True, C.CERTIFICATEHASEXPIRED),
        (2.0, "needs_proxy=atlas", True, C.NOVOMSPROXY),
        (-1.0, "", False, 0),
        (2.0, "needs_proxy", True, 0),
    ],
)
def test_no_job_is_asked_for_on_a_proxy_that_will_not_do(
    shared: Context, x509: X509, hours: float, catchall: str, check: bool, code: int
) -> None:
    shared.infosys.queuedata.catchall = catchall
    source = Answers(EMPTY, EMPTY)
    end = Desk(replace(shared, keeper=keeper(shared, x509, hours, check=check)), source).work()
    assert end is not None and end.code == (code or C.NOJOBSINPANDA)
    assert bool(source.requests) is (code == 0)


def test_a_queue_that_needs_a_proxy_gets_no_pilot_without(shared: Context) -> None:
    shared.infosys.queuedata.catchall = "needs_proxy=any"
    end = Desk(shared, Answers()).work()
    assert end is not None and end.code == C.NOPROXY


def test_no_job_is_asked_for_that_takes_longer_than_the_proxy_lasts(shared: Context, x509: X509) -> None:
    source = Answers(EMPTY, EMPTY)
    Desk(replace(shared, keeper=keeper(shared, x509, 2.0)), source).work()
    remaining = source.requests[0]["remaining_time"]
    assert isinstance(remaining, int) and 7100 < remaining <= 7200


@pytest.mark.parametrize(("walltime", "hours", "refused"), [(7300, 2.0, True), (7000, 2.0, False), (0, 2.0, False)])
def test_a_job_that_may_outlive_the_proxy_is_refused_where_the_server_did_not_care(
    shared: Context, x509: X509, walltime: int, hours: float, refused: bool
) -> None:
    desk = Desk(replace(shared, keeper=keeper(shared, x509, hours)), Answers(job(maxWalltime=walltime), EMPTY, EMPTY))
    desk.work()
    (event,) = desk.events
    assert isinstance(event, Refused) is refused
    if isinstance(event, Refused):
        assert event.error.code == C.PROXYTOOSHORT and "may take 7300 s" in event.error.diag


def test_a_lifetime_that_is_nearly_over_takes_no_job(shared: Context) -> None:
    end = Desk(replace(shared, started=time.time() - 10**6), Answers()).work()
    assert end is not None and end.code == C.REACHEDMAXTIME


def test_a_pilot_that_stops_asks_no_more_and_a_wait_is_cut_short(shared: Context) -> None:
    desk = Desk(shared, Answers(JobAnswer(reason="later", retry_after=500.0)))
    threading.Timer(0.05, shared.stopping.set).start()
    began = time.monotonic()
    assert desk.work() is None
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(("hint", "wanted"), [(0.0, 0.0), (7.0, 7.0), (1e9, 600.0), (-1.0, 0.25), (None, 0.25)])
def test_between_empty_answers_the_servers_word_counts_within_reason(
    shared: Context, hint: float | None, wanted: float
) -> None:
    pilot = replace(shared.settings.pilot, getjob_delay_min=0.25, getjob_delay_max=0.25)
    desk = Desk(replace(shared, settings=replace(shared.settings, pilot=pilot)), Answers())
    assert desk.controller._pause(hint) == wanted


def test_the_pause_without_a_word_is_a_random_time(shared: Context) -> None:
    pilot = replace(shared.settings.pilot, getjob_delay_min=60.0, getjob_delay_max=180.0)
    desk = Desk(replace(shared, settings=replace(shared.settings, pilot=pilot)), Answers())
    pauses = [desk.controller._pause(None) for _ in range(50)]
    assert 60 <= min(pauses) < max(pauses) <= 180 and len(set(pauses)) > 10


# ---- what is asked


def ask(tmp_path: Path, *argv: str, **environ: str) -> dict[str, Json]:
    source = Answers(EMPTY, EMPTY)
    made = context(tmp_path, *argv, environ=environ)
    settings = replace(made.settings, file=replace(made.settings.file, space_to_start=0))
    Desk(replace(made, settings=settings), source).work()
    return source.requests[0]


def test_the_request_says_all_that_an_existing_pilot_says_in_the_same_types(tmp_path: Path) -> None:
    request = ask(tmp_path, HARVESTER_ID="harvester", HARVESTER_WORKER_ID="42")
    kinds = GOLDEN["requests"]["getJob"]
    assert set(request) - set(kinds) == {"remaining_time"}
    assert {name: type(request[name]).__name__ for name in kinds} == kinds


@pytest.mark.parametrize(
    ("argv", "field", "wanted"),
    [
        ([], "siteName", "SITE_QUEUE"),
        (["-r", "RES"], "siteName", "RES"),
        (["-s", "SITE"], "computingElement", "SITE"),
        ([], "prodSourceLabel", "ptest"),
        (["-j", "user"], "prodSourceLabel", "user"),
        (["-j", "user", "-i", "RC"], "prodSourceLabel", "rc_test2"),
        (["--working-group", "GP"], "workingGroup", "GP"),
        (["--country-group", "CH"], "countryGroup", "CH"),
        (["--allow-other-country"], "allowOtherCountry", True),
        (["--job-type", "managed"], "jobType", "managed"),
        (["-R", "MCORE"], "resourceType", "MCORE"),
    ],
)
def test_the_command_line_is_in_the_request(tmp_path: Path, argv: list[str], field: str, wanted: Json) -> None:
    assert ask(tmp_path, *argv)[field] == wanted


def test_what_is_not_known_is_not_asked_for(tmp_path: Path) -> None:
    request = ask(tmp_path)
    for name in ("harvester_id", "worker_id", "jobType", "countryGroup", "resourceType"):
        assert name not in request


@pytest.mark.parametrize(
    ("argv", "task", "asked"),
    [
        ([], 1000, [None, "1000"]),
        (["--allow-same-user=False"], 1000, [None, None]),
        ([], 0, [None, None]),
        ([], "NULL", [None, None]),
    ],
)
def test_later_jobs_come_from_the_first_ones_task_unless_any_user_will_do(
    tmp_path: Path, argv: list[str], task: Json, asked: list[Json]
) -> None:
    made = context(tmp_path, *argv)
    settings = replace(made.settings, file=replace(made.settings.file, space_to_start=0))
    source = Answers(job(PandaID=1, taskID=task), job(PandaID=2, taskID=77), EMPTY, EMPTY)
    Desk(with_timefloor(replace(made, settings=settings), 3600), source).work()
    assert [request.get("taskID") for request in source.requests[:2]] == asked


def test_disk_and_time_are_what_is_really_left(tmp_path: Path) -> None:
    request = ask(tmp_path, "-l", "1000")
    disk, left = request["diskSpace"], request["remaining_time"]
    assert isinstance(disk, int) and 0 < disk <= 20000  # maxwdir of the recorded queue, in MB
    assert isinstance(left, int) and 900 < left <= 1000


# ---- what becomes of a definition


def test_a_job_gets_its_directory_its_claim_and_its_interval(shared: Context) -> None:
    desk = Desk(shared, Answers(job(claim_id="c1", next_heartbeat=60, debug="True")))
    desk.work()
    (run,) = desk.runs
    assert run.workdir == shared.workdir / "PanDA_Pilot-254" and run.workdir.is_dir()
    assert (run.claim, run.interval, run.debug) == ("c1", 60.0, True)
    assert run.timing["getjob"] >= 0


@pytest.mark.parametrize("wish", ["soon", None, [1], float("nan"), float("inf"), 10**400, -1, 0])
def test_a_strange_wish_for_heartbeats_is_none(shared: Context, wish: Json) -> None:
    desk = Desk(shared, Answers(job(next_heartbeat=wish)))
    desk.work()
    assert desk.runs[0].interval == SETTINGS.pilot.heartbeat


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"transformation": None}, C.NOTDEFINED),
        ({"outFiles": "../../x,job254.log.tgz"}, C.BADOUTPUTFILENAME),
        ({"coreCount": "many"}, C.CONVERSIONFAILURE),
        ({"jobPars": '--overwriteQueueData={"maxrss": "much"}'}, C.QUEUEDATANOTOK),
        ({"jobPars": '--overwriteStorageData={"SITE_DISK": 7}'}, C.QUEUEDATANOTOK),
        ({"jobPars": "--overwriteQueueData=" + "[" * 100_000}, C.CONVERSIONFAILURE),
    ],
)
def test_a_bad_definition_is_refused_with_its_code(shared: Context, change: dict[str, Json], code: int) -> None:
    desk = Desk(shared, Answers(job(**change)))
    assert desk.work() is None
    (event,) = desk.events
    assert isinstance(event, Refused) and event.error.code == code
    assert (desk.runs[0].jobid, desk.runs[0].data.attemptnr) == ("254", 1)


def test_a_directory_that_cannot_be_made_refuses_the_job(shared: Context) -> None:
    (shared.workdir / "PanDA_Pilot-254").write_text("in the way")
    desk = Desk(shared, Answers(job()))
    desk.work()
    (event,) = desk.events
    assert isinstance(event, Refused) and event.error.code == C.MKDIR
    assert "PanDA_Pilot-254: File exists" in event.error.diag


def test_a_job_changes_the_queue_for_itself_alone(shared: Context) -> None:
    desk = Desk(shared, Answers(job(jobPars='run --overwriteQueueData={"corecount": 8}')))
    desk.work()
    assert desk.runs[0].infosys.queuedata.corecount == 8
    assert shared.infosys.queuedata.corecount == 1


def test_the_numbers_of_jobs_are_noted_for_the_wrapper(shared: Context) -> None:
    Desk(with_timefloor(shared, 3600), Answers(job(PandaID=1), job(PandaID=2), EMPTY, EMPTY)).work()
    assert (shared.rundir / "pandaIDs.out").read_text() == "1\n2\n"


def test_a_whole_request_and_answer_over_the_wire(shared: Context, web: WebServer, http: HttpClient) -> None:
    web.route("/server/panda/isAlive", Answer(b"alive=yes"))
    web.route("/server/panda/getJob", Answer({**definition(), "StatusCode": 0}))
    source = Dispatcher(http, web.url, RetryPolicy(2, 0.01, 0.01), shared.stopping)
    desk = Desk(shared, source)
    assert desk.work() is None
    assert desk.events == [Accepted()]
    assert desk.runs[0].data.jobparams == "echo hello > out.txt"
    assert set(web.to("/server/panda/getJob")[0].json()) <= set(GOLDEN["requests"]["getJob"])


# ---- a job from a file


def test_a_job_comes_from_a_file_once(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps({"transformation": "true"}))
    source = FileSource(tmp_path / "job.json")
    assert source.get_job({}).definition == {"PandaID": 1, "attemptNr": 1, "jobPars": "", "transformation": "true"}
    assert source.get_job({}).definition is None


def test_a_file_may_hold_a_list_of_one(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps([definition()]))
    taken = FileSource(tmp_path / "job.json").get_job({}).definition
    assert taken is not None and taken["PandaID"] == 254


@pytest.mark.parametrize(
    ("contents", "code", "said"),
    [
        (None, C.NOSUCHFILE, "No such file or directory"),
        (b"{", C.CONVERSIONFAILURE, "is not valid JSON"),
        (b"\xff", C.CONVERSIONFAILURE, "is not valid JSON"),
        (b"[" * 100_000, C.CONVERSIONFAILURE, "is not valid JSON"),
        (b"[]", C.CONVERSIONFAILURE, "does not hold one job definition"),
        (b"[{}, {}]", C.CONVERSIONFAILURE, "does not hold one job definition"),
        (b"7", C.CONVERSIONFAILURE, "does not hold one job definition"),
    ],
)
def test_a_file_without_a_job_is_named(tmp_path: Path, contents: bytes | None, code: int, said: str) -> None:
    if contents is not None:
        (tmp_path / "job.json").write_bytes(contents)
    with pytest.raises(PilotException, match=f"job file {tmp_path}/job.json.*{said}") as raised:
        FileSource(tmp_path / "job.json")
    assert raised.value.code == code


@pytest.mark.parametrize(
    ("ends", "sick"),
    [
        ([(C.PANDAKILL, 5.0)], 0),
        ([(C.MIDDLEWAREIMPORTFAILURE, 5.0)], 1),
        ([(C.MIDDLEWAREIMPORTFAILURE, 61.0)], 0),
        ([(C.MIDDLEWAREIMPORTFAILURE, 5.0), (0, 5.0)], 0),
        ([(C.MIDDLEWAREIMPORTFAILURE, 5.0), (C.PAYLOADEXECUTIONFAILURE, 5.0)], 0),
        ([(C.MIDDLEWAREIMPORTFAILURE, 5.0), (C.MISSINGINPUTFILE, 5.0)], 0),
        ([(C.MIDDLEWAREIMPORTFAILURE, 5.0), (C.MIDDLEWAREIMPORTFAILURE, 60.0)], 2),
    ],
)
def test_only_fast_failures_in_a_row_that_are_the_sites_fault_make_a_node_sick(
    ends: list[tuple[int, float]], sick: int
) -> None:
    tally = Tally()
    for code, seconds in ends:
        tally = after_job(tally, PilotException("broken", code=code) if code else None, seconds, LIMITS)
    assert (tally.jobs, tally.sick) == (len(ends), sick)


def test_a_sick_node_asks_for_no_more_jobs_and_says_why() -> None:
    error = PilotException("gfal-copy is not installed", code=C.MIDDLEWAREIMPORTFAILURE)
    assert may_fetch(Tally(jobs=2, sick=2, ailment=error), 10.0, 5000, LIMITS) is None
    reason = may_fetch(Tally(jobs=3, sick=3, ailment=error), 10.0, 5000, LIMITS)
    assert reason is not None and reason.code == error.code
    assert "3 jobs in a row failed" in reason.diag and "gfal-copy is not installed" in reason.diag
