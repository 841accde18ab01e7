"""Definitions that are missing something, mistyped, huge or hostile.

They are refused at submit with the field's name; if one reaches a pilot all the same, the job fails with a named code.
There is never a traceback, and nothing is written outside the job's folder.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import pilots
from tests.faults import Request, network
from tests.site import QUEUE, Site

ONCE = ("-v", "1")
GOOD: dict[str, object] = {
    "PandaID": 4711,
    "attemptNr": 1,
    "transformation": "bash",
    "jobPars": "-c true",
    "logFile": "job.log.tgz",
    "scopeLog": "test",
    "outFiles": "job.log.tgz",
}

# What is wrong -> the code it is reported with, and words of the text.
BAD: list[tuple[dict[str, object], int, str]] = [
    ({"transformation": None}, 1311, "transformation"),
    ({"transformation": "bash; touch /tmp/pwned"}, 1302, "transformation"),
    ({"transformation": "bash\nid"}, 1302, "transformation"),
    ({"transformation": "$(id)"}, 1302, "transformation"),
    ({"transformation": "http://127.0.0.1:1/evil/run.sh"}, 1149, "base URL"),
    ({"transformation": "no-such-command-anywhere"}, 1346, "no-such-command-anywhere"),
    ({"jobPars": "x" * 200_000}, 1302, "jobPars"),
    ({"jobPars": "a\0b"}, 1302, "jobPars"),
    ({"jobPars": ["a", "list"]}, 1302, "jobPars"),
    ({"jobPars": '--overwriteQueueData={"maxwdir":'}, 1302, "overwriteQueueData"),
    ({"jobPars": '--overwriteQueueData={"maxwdir":"many"}'}, 1117, "maxwdir"),
    ({"coreCount": "many"}, 1302, "coreCount"),
    ({"coreCount": {}}, 1302, "coreCount"),
    ({"minRamCount": "1e999"}, 1302, "minRamCount"),
    ({"inFiles": "../../etc/passwd"}, 1302, "inFiles"),
    ({"inFiles": "/etc/passwd"}, 1302, "inFiles"),
    ({"inFiles": "a,,b"}, 1311, "inFiles"),
    ({"inFiles": "a,a"}, 1302, "inFiles"),
    ({"inFiles": "a,b", "fsize": "1,2,3"}, 1312, "fsize"),
    ({"inFiles": "a", "fsize": "big"}, 1302, "fsize"),
    ({"inFiles": "a", "fsize": "9" * 40}, 1302, "fsize"),
    ({"inFiles": "a", "fsize": "-1"}, 1302, "fsize"),
    ({"inFiles": "a", "checksum": "zz"}, 1302, "checksum"),
    ({"inFiles": "a", "scopeIn": "../x"}, 1302, "scopeIn"),
    ({"inFiles": "a;b"}, 1302, "inFiles"),
    ({"outFiles": "../escape.txt,job.log.tgz"}, 1371, "outFiles"),
    ({"outFiles": "a\nb,job.log.tgz"}, 1371, "outFiles"),
    ({"outFiles": "$(id).txt,job.log.tgz"}, 1371, "outFiles"),
    ({"outFiles": "x" * 300 + ",job.log.tgz"}, 1190, "outFiles"),
    ({"outFiles": "a.txt,job.log.tgz", "ddmEndPointOut": "A,B,C"}, 1312, "ddmEndPointOut"),
    ({"outFiles": "a.txt,job.log.tgz", "scopeOut": "a/../../b"}, 1302, "scopeOut"),
    ({"outFiles": 17.5}, 1302, "outFiles"),
    ({"outFiles": {"a": 1}}, 1302, "outFiles"),
    ({"logFile": "../../escape.tgz", "outFiles": "../../escape.tgz"}, 1371, "logFile"),
    ({"logFile": "a\0b", "outFiles": ""}, 1302, "logFile"),
    ({"container_name": "docker://busybox"}, 1384, "container"),
    ({"claim_id": "a\nb: c"}, 1302, "claim_id"),
    ({"eventService": "True"}, 1238, "event ranges come from a dispatcher"),
    ({"jobPars": "-c true <ZIP_MAP>a:b</ZIP_MAP>"}, 1302, "ZIP_MAP"),
]


@pytest.mark.parametrize(
    ("change", "code", "words"), BAD, ids=lambda value: str(value)[:40] if isinstance(value, dict) else ""
)
def test_a_bad_definition_fails_with_a_named_code_and_the_field(
    tmp_path: Path, change: dict[str, object], code: int, words: str
) -> None:
    exit_code, update, log = pilots.run_file({**GOOD, **change}, tmp_path / "run")
    # A log file of an unusable name cannot be kept; the job's end must come all the same.
    assert update.get("state") == "failed", log
    assert (update["pilotErrorCode"], words in str(update["pilotErrorDiag"])) == (code, True), update["pilotErrorDiag"]
    assert "Traceback" not in log
    assert 0 <= exit_code < 128
    assert not list(tmp_path.glob("escape*")) and not Path("/tmp/pwned").exists()


@pytest.mark.parametrize("identity", [None, "", "NULL", "abc", "../1", -5, 0, "1\n2", "9" * 40, [], {}])
def test_a_definition_without_a_usable_pandaid_is_refused_in_the_log(tmp_path: Path, identity: object) -> None:
    exit_code, update, log = pilots.run_file({**GOOD, "PandaID": identity}, tmp_path / "run", "-x", "1")
    assert update == {}
    assert "PandaID" in log
    assert "Traceback" not in log
    assert exit_code != 0


def test_a_hostile_definition_from_a_server_is_reported_to_it_as_failed(site: Site, rundir: Path) -> None:
    """The definition is changed on its way, since our own server would not hand out such a thing."""
    (jobid,) = site.submit({"command": "true", "outputs": ["fine.txt"]})
    answers = []

    def corrupt(status: int, body: bytes, request: Request) -> bytes:
        if request.call != "acquire_jobs" or b"fine.txt" not in body:
            return body
        answers.append(body)
        envelope = json.loads(body)
        envelope["data"]["jobs"][0]["scopeOut"] = "../../.."
        return json.dumps(envelope).encode()

    with network(site.url) as net:
        net.change = corrupt
        pilots.run(net.url, QUEUE, rundir, *ONCE)
    assert answers
    job = site.wait_for(jobid, "failed")
    assert (job["pilotErrorCode"], "scopeOut" in str(job["pilotErrorDiag"])) == (1302, True)
    assert site.stored(jobid, "log")[0].exists()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"queue": None}, "queue"),
        ({"queue": "NO_SUCH_QUEUE"}, "NO_SUCH_QUEUE"),
        ({"command": None}, "command"),
        ({"command": ""}, "command"),
        ({"command": "a\0b"}, "command"),
        ({"outputs": ["../escape"]}, "outputs"),
        ({"outputs": ["a;b"]}, "outputs"),
        ({"outputs": ["a\nb"]}, "outputs"),
        ({"outputs": ["x" * 300]}, "outputs"),
        ({"outputs": "not a list"}, "outputs"),
        ({"outputs": [1]}, "outputs"),
        ({"outputs": ["a", "a"]}, "outputs"),
        ({"inputs": ["../escape"]}, "inputs"),
        ({"inputs": ["bad scope!:x"]}, "inputs"),
        ({"cores": "many"}, "cores"),
        ({"memory": -1}, "memory"),
        ({"scope": "../x"}, "scope"),
        ({"sandbox": "../../etc/passwd"}, "sandbox"),
        ({"no_such_field": 1}, "no_such_field"),
    ],
    ids=str,
)
def test_a_bad_job_is_refused_at_submit_with_the_fields_name_and_nothing_is_stored(
    site: Site, change: dict[str, object], field: str
) -> None:
    before = site.call("job/list", limit=1000)
    job = {"queue": QUEUE, "command": "true", **change}
    answer = site.ask(
        "job/submit_jobs",
        {"jobs": [{"queue": QUEUE, "command": "true"}, {k: v for k, v in job.items() if v is not None}]},
    )
    assert answer["success"] is False
    assert field in str(answer["message"])
    assert site.call("job/list", limit=1000) == before


def test_a_node_on_which_every_job_fails_stops_asking_and_says_why(site: Site, rundir: Path) -> None:
    jobids = site.submit(*({"command": "true"} for _ in range(5)))
    queue = json.dumps({"acopytools": {"default": ["lsm"]}, "timefloor": 60})
    pilot = pilots.run(site.url, QUEUE, rundir, "-v", "1", env={"PILOTKIT_QUEUEDATA": queue})
    pilots.wait_until(lambda: "holding" not in map(site.status, jobids), "the final reports are dealt with")
    states = [site.status(jobid) for jobid in jobids]
    assert states.count("failed") == 3 and states.count("activated") == 2
    assert "3 jobs in a row failed within 600 s each" in pilot.log() and "lsm-put is not on the PATH" in pilot.log()
    assert pilot.process.returncode == 76
    site.call("job/kill", {"job_ids": [jobid for jobid, state in zip(jobids, states) if state == "activated"]})
