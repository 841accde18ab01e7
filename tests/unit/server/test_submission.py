"""Submission: what is accepted, what is refused and how, and the names files get."""

from __future__ import annotations

import gzip
import io
import re
import urllib.parse

import pytest

from server.logic import sandboxes, submission
from server.logic.context import ANYBODY, Identity, Role
from server.logic.errors import BadField, BadJob
from server.logic.resourcetypes import STOCK, type_of
from tests.unit.server.dispatcher import QUEUE, Dispatcher

GUID = "e55257a1-54d4-4888-9c77-be238502a43c"


def refusal(dispatcher: Dispatcher, *jobs: object, identity: Identity = ANYBODY) -> BadJob:
    with pytest.raises(BadJob) as caught:
        submission.submit_jobs(dispatcher.context, jobs, identity)
    with dispatcher.context.database.reading() as connection:
        for table in ("jobs", "files", "catalogue", "job_history", "job_definitions", "counters"):
            assert connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar() == 0
    return caught.value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("queue", None),
        ("queue", "NO_SUCH_QUEUE"),
        ("queue", "../x"),
        ("queue", 7),
        ("command", None),
        ("command", "   "),
        ("command", ["ls"]),
        ("command", "a\x00b"),
        ("command", "x" * 200_000),
        ("name", "two\nlines"),
        ("name", "x" * 300),
        ("user", "a\x00b"),
        ("user", {"name": "x"}),
        ("scope", "../../etc"),
        ("scope", "a b"),
        ("scope", ""),
        ("label", "x" * 21),
        ("label", "a;b\n"),
        ("cores", "four"),
        ("cores", 0),
        ("cores", 1.5),
        ("cores", True),
        ("memory", -1),
        ("memory", 10**30),
        ("disk", "much"),
        ("walltime", [1]),
        ("priority", 10**9),
        ("max_attempts", 51),
        ("max_attempts", 0),
        ("environment", ["A=b"]),
        ("environment", {"A B": "c"}),
        ("environment", {"A": 5}),
        ("environment", {"A": "x\ny"}),
        ("sandbox", "../../etc/passwd"),
        ("sandbox", "never-uploaded.tar.gz"),
        ("outputs", "out.txt"),
        ("outputs", [5]),
        ("outputs", ["../out.txt"]),
        ("outputs", ["/etc/passwd"]),
        ("outputs", ["a/b"]),
        ("outputs", [".."]),
        ("outputs", [""]),
        ("outputs", ["a\x00b"]),
        ("outputs", ["a\nb"]),
        ("outputs", ["a,b"]),
        ("outputs", ["a b"]),
        ("outputs", ["a'b"]),
        ("outputs", ["a;rm -rf ~"]),
        ("outputs", ["$(id)"]),
        ("outputs", ["x" * 256]),
        ("outputs", ["out.txt", "out.txt"]),
        ("outputs", [{"local": "a.txt", "lfn": "b.txt", "colour": "red"}]),
        ("outputs", [{"local": "a.txt", "scope": "../x"}]),
        ("outputs", [{"local": "a.txt", "endpoint": "a/b"}]),
        ("outputs", [{"local": "a.txt", "optional": "yes"}]),
        ("inputs", ["a", "a"]),
        ("inputs", ["a", "user.user:a"]),
        ("inputs", ["one:a", "other:a"]),
        ("inputs", [{"lfn": "a", "local": "x"}, {"lfn": "b", "local": "x"}]),
        ("inFiles", "a,a"),
        ("inputs", "in.txt"),
        ("inputs", [None]),
        ("inputs", ["../in.txt"]),
        ("inputs", ["scope:a:b"]),
        ("inputs", ["../x:a"]),
        ("inputs", [{"lfn": "a", "fsize": -1}]),
        ("inputs", [{"lfn": "a", "fsize": "big"}]),
        ("inputs", [{"lfn": "a", "checksum": "xyz"}]),
        ("inputs", [{"lfn": "a", "guid": "1-2-3"}]),
        ("transformation", "http://x/\ny"),
        ("jobPars", "a\x00b"),
        ("jobPars", "x" * 200_000),
        ("processingType", "x" * 65),
        ("logGUID", 5),
        ("taskID", "first"),
        ("debug", "maybe"),
        ("ouputs", ["out.txt"]),
    ],
)
def test_a_bad_field_is_refused_by_its_name_and_nothing_is_stored(
    dispatcher: Dispatcher, field: str, value: object
) -> None:
    job = {"queue": QUEUE, "command": "true", field: value}
    if field == "logGUID":
        job["logFile"] = "x.log.tgz"
    error = refusal(dispatcher, {"queue": QUEUE, "command": "true"}, job)
    assert error.index == 1
    assert error.field == field
    assert f"job 1, field '{field}'" in str(error)
    assert len(str(error)) < 400
    assert "\n" not in str(error)


@pytest.mark.parametrize("job", [None, 5, "job", [], [{"queue": QUEUE}]])
def test_what_is_no_object_is_no_job(dispatcher: Dispatcher, job: object) -> None:
    error = refusal(dispatcher, job)
    assert error.index == 0
    assert str(error).startswith("job 0 must be an object like {'queue'")


def test_a_misspelt_field_is_answered_with_the_one_that_was_meant(dispatcher: Dispatcher) -> None:
    assert "did you mean 'outputs'?" in str(refusal(dispatcher, {"queue": QUEUE, "command": "true", "ouputs": []}))


def test_half_a_character_is_refused(dispatcher: Dispatcher) -> None:
    assert refusal(dispatcher, {"queue": QUEUE, "command": "echo \ud800"}).field == "command"


def test_a_users_job_is_the_users_own(dispatcher: Dispatcher) -> None:
    alice = Identity("alice", frozenset({Role.USER}))
    operator = Identity("root", frozenset({Role.OPERATOR}))
    assert refusal(dispatcher, {"queue": QUEUE, "command": "true", "user": "bob"}, identity=alice).field == "user"
    (mine,) = dispatcher.submit({}, identity=alice)
    (his,) = dispatcher.submit({"user": "bob"}, identity=operator)
    assert dispatcher.job(mine)["prodUserName"] == "alice"
    assert dispatcher.job(his)["prodUserName"] == "bob"


def test_a_friendly_job_goes_onto_the_wire_as_rungen(dispatcher: Dispatcher) -> None:
    stored = sandboxes.store_sandbox(
        dispatcher.context, "jobO.1.tar.gz", io.BytesIO(gzip.compress(bytes(1024))), ANYBODY
    )
    command = "echo 'hi; $(there)' > \"out.txt\" && cat < in.txt"
    dispatcher.submit(
        {
            "command": command,
            "sandbox": stored.name,
            "outputs": [{"local": "out.txt", "lfn": "user.x.out.txt"}],
            "inputs": [{"lfn": "in.txt", "fsize": 5, "checksum": "00000001", "endpoint": "DISK"}],
        }
    )
    job = dispatcher.get_job()
    assert job["transformation"] == "http://server/trf/user/runGen-00-00-02"
    assert job["jobPars"] == (
        '-j "" --sourceURL http://server -r . -a jobO.1.tar.gz -i "[\'in.txt\']" '
        f"-o \"{{'out.txt': 'user.x.out.txt'}}\" -p \"{urllib.parse.quote(command)}\""
    )
    assert job["inFiles"] == "in.txt"
    assert job["fsize"] == "5"
    assert job["checksum"] == "ad:00000001"
    assert job["ddmEndPointIn"] == "DISK"


def test_the_address_of_this_server_in_a_command_is_the_users_own_text(dispatcher: Dispatcher) -> None:
    dispatcher.submit({"command": "echo ${SURL}"})
    assert urllib.parse.quote("echo ${SURL}") in str(dispatcher.get_job()["jobPars"])


def test_environment_variables_are_set_before_the_command(dispatcher: Dispatcher) -> None:
    dispatcher.submit({"command": "env", "environment": {"A": "it's; b"}})
    quoted = str(dispatcher.get_job()["jobPars"]).rpartition('-p "')[2].rstrip('"')
    assert urllib.parse.unquote(quoted) == "export A='it'\"'\"'s; b'\nenv"


def test_getjobs_own_names_win(dispatcher: Dispatcher) -> None:
    dispatcher.submit(
        {
            "cores": 2,
            "coreCount": 4,
            "transformation": "http://elsewhere/run.sh",
            "jobPars": "a b",
            "outFiles": "o.txt,l.tgz",
            "logFile": "l.tgz",
            "scopeOut": "vo",
            "scopeLog": "vo",
            "ddmEndPointOut": "A,B",
            "logGUID": GUID,
            "realDatasets": "ds1,ds2",
            "destinationDBlockToken": "x,NULL",
            "cmtConfig": "x86_64",
        }
    )
    job = dispatcher.get_job()
    expected = {
        "coreCount": 4,
        "transformation": "http://elsewhere/run.sh",
        "jobPars": "a b",
        "outFiles": "o.txt,l.tgz",
        "logFile": "l.tgz",
        "logGUID": GUID,
        "scopeOut": "vo",
        "scopeLog": "vo",
        "ddmEndPointOut": "A,B",
        "realDatasets": "ds1,ds2",
        "destinationDblock": "ds1,ds2",
        "destinationDBlockToken": "x,NULL",
        "cmtConfig": "x86_64",
    }
    assert {key: job[key] for key in expected} == expected


def test_a_log_by_its_own_name_leaves_the_friendly_outputs_alone(dispatcher: Dispatcher) -> None:
    (job,) = dispatcher.submit({"outputs": ["out.txt"], "logFile": "my.log.tgz", "logGUID": GUID, "scopeLog": "logs"})
    assert [(f["type"], f["scope"], f["lfn"]) for f in dispatcher.files(job)] == [
        ("output", "user.user", "out.txt"),
        ("log", "logs", "my.log.tgz"),
    ]
    definition = dispatcher.get_job()
    assert definition["outFiles"] == "out.txt,my.log.tgz"
    assert definition["logGUID"] == GUID


@pytest.mark.parametrize(
    ("job", "field"),
    [
        ({"outputs": ["a"], "outFiles": "b"}, "outputs"),
        ({"inputs": ["a"], "inFiles": "b"}, "inputs"),
        ({"outputs": ["a"], "scopeOut": "x"}, "scopeOut"),
        ({"inputs": ["a"], "ddmEndPointIn": "DISK"}, "ddmEndPointIn"),
        ({"outputs": ["a"], "logFile": "a"}, "logFile"),
        ({"outputs": ["a"], "logFile": "b,c"}, "logFile"),
    ],
)
def test_two_ways_to_say_the_same_are_refused_by_name(
    dispatcher: Dispatcher, job: dict[str, object], field: str
) -> None:
    assert refusal(dispatcher, {"queue": QUEUE, "command": "true", **job}).field == field


def test_a_definition_some_server_gave_out_can_be_submitted_as_it_is(dispatcher: Dispatcher) -> None:
    dispatcher.submit({"outputs": ["a.txt"], "memory": 100})
    given = dispatcher.get_job()
    dispatcher.finish(int(str(given["PandaID"])))
    (again,) = dispatcher.submit(given)
    job = dispatcher.get_job()
    assert job["PandaID"] == again != given["PandaID"]
    assert job["minRamCount"] == 100
    assert job["outFiles"] == f"{again}.a.txt,{again}.{given['logFile']}"


def test_a_taken_name_gets_the_jobs_number_in_front(dispatcher: Dispatcher) -> None:
    jobs = [{"queue": QUEUE, "command": "true", "outputs": ["hist.root"]}] * 2
    first, second = submission.submit_jobs(dispatcher.context, jobs, ANYBODY)
    assert first["outputs"] == [{"scope": "user.user", "lfn": "hist.root", "local": "hist.root"}]
    number = second["PandaID"]
    assert second["outputs"] == [{"scope": "user.user", "lfn": f"{number}.hist.root", "local": "hist.root"}]
    (other,) = submission.submit_jobs(dispatcher.context, [{**jobs[0], "scope": "elsewhere"}], ANYBODY)
    assert other["outputs"] == [{"scope": "elsewhere", "lfn": "hist.root", "local": "hist.root"}]


def test_an_output_never_takes_the_name_of_a_file_that_is_given_as_an_input(dispatcher: Dispatcher) -> None:
    given = {"lfn": "x.root", "endpoint": "DISK", "fsize": 5}
    jobs: list[dict[str, object]] = [
        {"inputs": [given], "outputs": ["x.root"]},
        {"outputs": ["x.root"]},
        {"outputs": ["x.root"], "scope": "elsewhere"},
    ]
    both, before, other = dispatcher.submit(*jobs)
    (later,) = dispatcher.submit({"outputs": ["x.root"]})
    names = [next(f["lfn"] for f in dispatcher.files(job) if f["type"] == "output") for job in (both, before, later)]
    assert names == [f"{both}.x.root", f"{before}.x.root", f"{later}.x.root"]
    assert dispatcher.files(other)[0]["lfn"] == "x.root"
    definition = dispatcher.get_job()
    assert (definition["inFiles"], definition["ddmEndPointIn"]) == ("x.root", "DISK")


def test_a_name_that_somebody_only_waits_for_is_free(dispatcher: Dispatcher) -> None:
    dispatcher.submit({"inputs": ["later.txt"]})
    (make,) = dispatcher.submit({"outputs": ["later.txt"]})
    assert dispatcher.files(make)[0]["lfn"] == "later.txt"


def test_a_jobs_own_parameters_follow_the_new_name(dispatcher: Dispatcher) -> None:
    raw = {"transformation": "run", "jobPars": "make out.txt myout.txt out.txt2 'out.txt'", "outFiles": "out.txt"}
    _, second = dispatcher.submit(raw, raw)
    dispatcher.get_job()
    assert dispatcher.get_job()["jobPars"] == f"make {second}.out.txt myout.txt out.txt2 '{second}.out.txt'"


def test_inputs_mean_the_outputs_of_their_own_submission_first(dispatcher: Dispatcher) -> None:
    (old,) = dispatcher.submit({"outputs": ["x.root"]})
    dispatcher.get_job()
    dispatcher.finish(old)
    make, use = dispatcher.submit({"outputs": ["x.root"]}, {"inputs": ["x.root"], "command": "cat x.root"})
    assert dispatcher.status(use) == "assigned"
    assert dispatcher.job(use)["waiting_for"] == [{"scope": "user.user", "lfn": f"{make}.x.root", "PandaID": make}]
    dispatcher.get_job()
    dispatcher.finish(make)
    job = dispatcher.get_job()
    assert job["inFiles"] == f"{make}.x.root"
    command = urllib.parse.unquote(str(job["jobPars"]).rpartition('-p "')[2].rstrip('"'))
    assert command == f"ln -sf {make}.x.root x.root\ncat x.root"


def test_a_job_cannot_wait_for_its_own_output(dispatcher: Dispatcher) -> None:
    error = refusal(dispatcher, {"queue": QUEUE, "command": "true", "inputs": ["x"], "outputs": ["x"]})
    assert error.field == "inputs"


def test_jobs_that_wait_for_each_other_in_a_circle_are_refused(dispatcher: Dispatcher) -> None:
    jobs = [
        {"inputs": ["c"], "outputs": ["d"]},
        {"inputs": ["given", "c"], "outputs": ["a"]},
        {"inputs": ["a"], "outputs": ["b"]},
        {"inputs": ["b"], "outputs": ["c"]},
    ]
    error = refusal(dispatcher, *({"queue": QUEUE, "command": "true", **job} for job in jobs))
    assert (error.index, error.field) == (3, "inputs")
    assert "needs 'b' of job 2, which needs 'a' of job 1, which needs 'c' of job 3" in str(error)


def test_an_input_that_two_jobs_of_the_submission_make_is_ambiguous(dispatcher: Dispatcher) -> None:
    jobs: list[dict[str, object]] = [{"outputs": ["x"]}, {"outputs": ["x"]}, {"inputs": ["x"]}]
    error = refusal(dispatcher, *({"queue": QUEUE, "command": "true", **job} for job in jobs))
    assert (error.index, error.field) == (2, "inputs")
    assert "'x' is an output of job 0 and of job 1" in str(error)


def test_a_job_that_takes_a_name_and_gives_it_takes_the_other_jobs(dispatcher: Dispatcher) -> None:
    refine, make = dispatcher.submit({"inputs": ["x"], "outputs": ["x"]}, {"outputs": ["x"]})
    assert dispatcher.job(refine)["waiting_for"] == [{"scope": "user.user", "lfn": f"{make}.x", "PandaID": make}]


def test_too_many_jobs_are_refused_in_a_readable_sentence(dispatcher: Dispatcher) -> None:
    with pytest.raises(BadField) as caught:
        submission.submit_jobs(dispatcher.context, [{}] * 10_001, ANYBODY)
    assert str(caught.value) == "jobs has 10001 jobs; submit at most 10000 at a time"


def test_a_long_chain_is_no_circle(dispatcher: Dispatcher) -> None:
    chain: list[dict[str, object]] = [{"inputs": [f"f{n}"], "outputs": [f"f{n + 1}"]} for n in range(2000)]
    chain[0]["inputs"] = []
    assert len(dispatcher.submit(*reversed(chain))) == 2000


def test_the_log_is_unique_without_being_asked_for(dispatcher: Dispatcher) -> None:
    first, second = dispatcher.submit({}, {})
    for job in (first, second):
        (log,) = [str(f["lfn"]) for f in dispatcher.files(job) if f["type"] == "log"]
        assert re.fullmatch(rf"{job}\.[0-9a-f]{{8}}\.log\.tgz", log)


@pytest.mark.parametrize(
    ("cores", "memory", "kind"),
    [(1, 2000, "SCORE"), (1, 2001, "SCORE_HIMEM"), (8, 16000, "MCORE"), (8, 16001, "MCORE_HIMEM"), (1, 0, "SCORE")],
)
def test_the_resource_type_follows_from_cores_and_memory(cores: int, memory: int, kind: str) -> None:
    assert type_of(STOCK, cores, memory) == kind


def test_numbers_go_on_after_each_other(dispatcher: Dispatcher) -> None:
    assert dispatcher.submit({}, {}, {}) == [1, 2, 3]
    assert dispatcher.submit({}) == [4]
