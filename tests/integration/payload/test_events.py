"""Event service jobs from end to end: a real payload that speaks the protocol, our dispatcher, real storage."""

from __future__ import annotations

import json
import shlex
import signal
import sqlite3
import sys
import tarfile
from pathlib import Path

import pytest

from tests import pilots
from tests.containers import sandbox
from tests.integration.payload.conftest import Submit, settings
from tests.servers import RunningServer, running_server
from tests.site import QUEUE, Site, add_site

ONCE = ("-v", "1")
# A payload of the event service in twenty lines: what it does with a range is for each test to say, in `work`.
CLIENT = """
import json, os, socket, sys, time
channel = socket.socket(socket.AF_UNIX)
channel.connect(os.environ["PILOT_EVENTRANGECHANNEL"])
stream = channel.makefile("rw")
def say(text):
    stream.write(text + "\\n")
    stream.flush()
def ranges():
    while True:
        say("Ready for events")
        answer = stream.readline().strip()
        if answer == "No more events":
            return
        yield from json.loads(answer)
def done(one, text="output"):
    name = "out-%d" % one["startEvent"]
    open(name, "w").write(text)
    say("%s,%s,CPU:1,WALL:2" % (os.path.abspath(name), one["eventRangeID"]))
"""
# What a merge job does: the outputs in all archives one after the other, a line each.
MERGE = """
import sys, tarfile
with open(sys.argv[1], "w") as merged:
    for name in sys.argv[2:]:
        with tarfile.open(name) as archive:
            for member in archive:
                merged.write(archive.extractfile(member).read().decode() + "\\n")
"""
ALL = CLIENT + "for one in ranges(): done(one, json.dumps(one))\n"


@pytest.fixture
def payload(site: Site, tmp_path: Path) -> Submit:
    """Submits a program as a job of ten events in ranges of two."""

    def submitted(program: str, **job: object) -> int:
        script = tmp_path / f"payload-{len(list(tmp_path.glob('payload-*')))}.py"
        script.write_text(program, encoding="utf-8")
        events = {"number": 10, "per_range": 2}
        wanted = {"transformation": "python3", "jobPars": f"-u {script}", "events": events, **job}
        (jobid,) = site.submit(wanted)
        return jobid

    return submitted


def archives(site: Site, jobid: int) -> dict[str, str]:
    """Files in the archives of a job's event ranges, with what is in them."""
    found: dict[str, str] = {}
    for path in site.storage.rglob(f"EventService_premerge_{jobid}-*.tar"):
        with tarfile.open(path) as archive:
            for member in archive:
                stream = archive.extractfile(member)
                assert stream is not None and member.name not in found
                found[member.name] = stream.read().decode()
    return found


def facts(server: RunningServer, jobid: int) -> list[dict[str, object]]:
    """What the dispatcher knows of the ranges of a job."""
    with sqlite3.connect(server.data / "pilotkit.db") as connection:
        rows = connection.execute("SELECT facts FROM event_ranges WHERE pool = ?", (f"job {jobid}",)).fetchall()
    connection.close()
    return [json.loads(row[0] or "null") for row in rows]


@pytest.mark.parametrize("cores", [1, 2])
def test_a_payload_takes_its_ranges_and_the_output_of_each_is_stored(
    site: Site, server: RunningServer, rundir: Path, payload: Submit, cores: int
) -> None:
    jobid = payload(ALL, coreCount=cores)
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE)
    job = site.wait_for(jobid)
    assert (job["jobStatus"], job["events"]) == ("finished", {"done": 5}), pilot.log()
    stored = archives(site, jobid)
    assert sorted(stored) == ["out-1", "out-3", "out-5", "out-7", "out-9"]
    assert json.loads(stored["out-3"])["lastEvent"] == 4
    assert job["metrics"]["nEvents"] == 10  # type: ignore[index]
    (archive,) = {str(one["zipFile"]["lfn"]) for one in facts(server, jobid)}  # type: ignore[index]
    assert next(site.storage.rglob(archive)).stat().st_size == facts(server, jobid)[0]["zipFile"]["fsize"]  # type: ignore[index]
    assert {one["cpuConsumptionTime"] for one in facts(server, jobid)} == {1}
    log = next(Path(path) for path in site.stored(jobid, "log"))
    with tarfile.open(log) as tarball:
        assert not [name for name in tarball.getnames() if "premerge" in name or name.endswith(".sock")]


def test_ranges_that_fail_are_tried_again_by_the_next_attempt(site: Site, rundir: Path, payload: Submit) -> None:
    jobid = payload(
        CLIENT
        + """
first = os.environ["PanDA_AttemptNr"] == "1"
for one in ranges():
    if first and one["startEvent"] == 3:
        say("ERR_MINE_PROCESS %s: cannot read event" % one["eventRangeID"])
    elif first and one["startEvent"] == 5:
        say("not-there,%s,CPU:1,WALL:1" % one["eventRangeID"])
    else:
        done(one)
""",
        maxAttempt=2,
    )
    pilots.run(site.url, QUEUE, rundir, *ONCE)
    again = site.wait_for(jobid, "activated", "sent", "running", "finished")
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE)
    job = site.wait_for(jobid)
    assert again["attemptNr"] == 2
    # The two that failed came back in halves.
    assert (job["jobStatus"], job["attemptNr"], job["events"]) == ("finished", 2, {"done": 7}), pilot.log()
    assert "of 5 event ranges 2 failed and 0 were not ended; range" in pilot.log()
    assert "ERR_MINE_PROCESS: cannot read event" in pilot.log()
    assert "its output 'not-there' is no file in the job's directory" in pilot.log()
    assert sorted(archives(site, jobid)) == ["out-1", "out-3", "out-4", "out-5", "out-6", "out-7", "out-9"]


@pytest.mark.parametrize(
    ("program", "code", "text", "states"),
    [
        (
            "for one in ranges(): say('ERR_X_FATAL %s: no way' % one['eventRangeID'])",
            1228, "5 of 5 event ranges cannot be processed; range", {"fatal": 5},
        ),
        ("for one in ranges(): break", 1224, "of 1 event ranges 0 failed and 1 were not ended", {"ready": 5}),
        ("", 1238, "the payload was given no event range", {"ready": 5}),
        ("done(next(ranges())); next(ranges()); os._exit(7)", 1305, "exit code 7", {"done": 1, "ready": 4}),
        ("done(next(ranges())); os.kill(os.getpid(), 9)", 1305, "ended by signal 9", {"done": 1, "ready": 4}),
    ],
)  # fmt: skip
def test_a_payload_that_does_not_do_all_its_ranges_fails_and_what_it_has_done_is_kept(
    site: Site, rundir: Path, payload: Submit, program: str, code: int, text: str, states: dict[str, int]
) -> None:
    jobid = payload(f"{CLIENT}\n{program}\n")
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE)
    job = site.wait_for(jobid, "failed")
    assert job["pilotErrorCode"] == code, pilot.log()
    assert text in str(job["pilotErrorDiag"])
    assert job["events"] == states
    assert len(archives(site, jobid)) == states.get("done", 0)


def test_a_killed_pilots_ranges_are_done_by_the_next_one_and_what_was_stored_stays(
    site: Site, rundir: Path, payload: Submit
) -> None:
    jobid = payload(
        CLIENT
        + """
for number, one in enumerate(ranges()):
    done(one)
    if os.environ["PanDA_AttemptNr"] == "1" and number == 1:
        time.sleep(60)
""",
        maxAttempt=2,
    )
    often = settings(event_save_gap=0.3, event_update=0.2)
    with pilots.running(site.url, QUEUE, rundir, *ONCE, settings=often) as pilot:
        pilots.wait_until(lambda: site.job(jobid)["events"].get("finished") == 2, "two ranges finished")  # type: ignore[attr-defined]
        pilot.signal(signal.SIGKILL)
        pilot.wait()
    assert site.status(jobid) == "running"
    # It tells of the first one's end, and then waits for what that sets free.
    second = pilots.run(site.url, QUEUE, rundir, "-v", "20", settings=often)
    job = site.wait_for(jobid, "finished")
    assert job["events"] == {"done": 5}, second.log()
    assert sorted(archives(site, jobid)) == ["out-1", "out-3", "out-5", "out-7", "out-9"]


def test_a_pilot_that_is_told_to_leave_leaves_at_once_and_the_ranges_go_back(
    site: Site, rundir: Path, payload: Submit
) -> None:
    jobid = payload(CLIENT + "done(next(ranges())); print('so far'); time.sleep(60)\n")
    with pilots.running(site.url, QUEUE, rundir, *ONCE) as pilot:
        pilots.wait_until(lambda: list(rundir.glob("pilotkit-*/PanDA_Pilot-*/out-1")), "the first output")
        pilot.signal(signal.SIGTERM)
        pilot.wait()
    job = site.wait_for(jobid, "failed")
    assert job["pilotErrorCode"] == 1201
    assert job["events"] == {"ready": 5}
    with tarfile.open(site.stored(jobid, "log")[0]) as tarball:
        assert not [name for name in tarball.getnames() if name.endswith("/out-1")], "no output in the log"


def test_a_killed_job_gets_no_more_events(site: Site, rundir: Path, payload: Submit) -> None:
    jobid = payload(CLIENT + "for one in ranges(): done(one); time.sleep(1.5)\n")
    often = settings(event_save_gap=0.3, event_update=0.2)
    with pilots.running(site.url, QUEUE, rundir, *ONCE, settings=often) as pilot:
        pilots.wait_until(lambda: site.job(jobid)["events"].get("finished"), "a finished range")  # type: ignore[attr-defined]
        site.call("job/kill", {"job_ids": [jobid]})
        pilot.wait()
    job = site.wait_for(jobid, "failed")
    assert job["pilotErrorCode"] == 1144, pilot.log()
    assert "tobekilled, for its events" in str(job["pilotErrorDiag"])
    assert set(job["events"]) <= {"done", "cancelled", "ready"}  # type: ignore[call-overload]


def test_an_outage_of_the_server_costs_no_range(tmp_path: Path, rundir: Path) -> None:
    with running_server(tmp_path / "data", environment={"PILOTKIT_RETRY_AFTER": "1"}) as first:
        site = add_site(first.url, tmp_path / "site")
        script = tmp_path / "payload.py"
        script.write_text(ALL.replace("done(one, json.dumps(one))", "done(one); time.sleep(0.8)"))
        (jobid,) = site.submit(
            {"transformation": "python3", "jobPars": f"-u {script}", "events": {"number": 6}, "coreCount": 1}
        )
        often = settings(event_save_gap=0.3, event_update=0.2, event_ranges_ahead=2, event_retry=0.5)
        with pilots.running(first.url, QUEUE, rundir, *ONCE, settings=often) as pilot:
            pilots.wait_until(lambda: site.job(jobid)["events"].get("finished"), "a finished range")  # type: ignore[attr-defined]
            first.stop()
            pilots.wait_until(lambda: "asking again in" in pilot.log(), "the pilot misses the server")
            second = first.restart()
            try:
                pilot.wait()
                job = site.wait_for(jobid)
            finally:
                second.stop()
    assert (job["jobStatus"], job["events"]) == ("finished", {"done": 6}), pilot.log()
    assert len(archives(site, jobid)) == 6


def test_several_processes_of_a_payload_share_its_events(site: Site, rundir: Path, payload: Submit) -> None:
    jobid = payload(
        """
import subprocess, sys
child = sys.argv[1:] == ["child"]
if not child:
    children = [subprocess.Popen([sys.executable, __file__, "child"]) for _ in range(4)]
    sys.exit(max(one.wait() for one in children))
"""
        + ALL,
        events={"number": 40},
        coreCount=2,
    )
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE)
    job = site.wait_for(jobid)
    assert (job["jobStatus"], job["events"]) == ("finished", {"done": 40}), pilot.log()
    assert len(archives(site, jobid)) == 40


def test_a_merge_is_a_job_like_others(site: Site, rundir: Path, payload: Submit) -> None:
    jobid = payload("print('merged')", events=None, eventService=True, eventServiceMerge=True)
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE)
    assert site.wait_for(jobid)["jobStatus"] == "finished", pilot.log()


def test_the_merge_job_of_a_jobset_comes_by_itself_when_its_pilots_are_done(
    site: Site, rundir: Path, payload: Submit, tmp_path: Path
) -> None:
    script = tmp_path / "merge.py"
    script.write_text(MERGE)
    jobset = {"taskID": 5, "jobsetID": 6}
    parameters = f"{script} merged.txt ${{IN/S}}"
    merge = {"transformation": "python3", "jobPars": parameters, "outFiles": "merged.txt"}
    slowly = ALL.replace("done(one, json.dumps(one))", "done(one, json.dumps(one)); time.sleep(0.5)")
    first = payload(slowly, **jobset, events={"number": 20, "per_range": 2, "merge": merge}, coreCount=1)
    payload(slowly, **jobset, events=None, eventService=True, coreCount=1)
    with pilots.running(site.url, QUEUE, rundir, *ONCE, settings=settings(event_ranges_ahead=1)) as other:
        pilots.wait_until(lambda: site.status(first) == "running", "the first job runs")
        pilots.run(site.url, QUEUE, tmp_path / "second", *ONCE, settings=settings(event_ranges_ahead=1))
        other.wait()
    pilots.wait_until(lambda: site.job(first)["events"] == {"done": 10}, "the ranges of both jobs are done")
    pilots.wait_until(lambda: site.job(first)["merge"]["state"] == "merging", "the merge job")  # type: ignore[index]
    (child,) = site.job(first)["children"]  # type: ignore[misc]
    assert child["kind"] == "merge"
    last = pilots.run(site.url, QUEUE, tmp_path / "third", *ONCE)
    job = site.wait_for(child["PandaID"])
    assert (job["jobStatus"], job["events"]) == ("finished", {"merged": 10}), last.log()
    (merged,) = [path.read_text() for path in site.stored(child["PandaID"])]
    assert sorted(json.loads(line)["startEvent"] for line in merged.splitlines()) == list(range(1, 21, 2))


def test_the_outputs_of_a_merge_are_not_missed_by_the_jobs_before_it(site: Site, rundir: Path, payload: Submit) -> None:
    jobid = payload(ALL + "open('own.txt', 'w').write('x')\n", outFiles="own.txt")
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE)
    job = site.wait_for(jobid)
    assert job["jobStatus"] == "finished", pilot.log()
    assert [path.read_text() for path in site.stored(jobid)] == ["x"]


def test_a_long_path_of_the_job_is_no_obstacle(site: Site, tmp_path: Path, payload: Submit) -> None:
    jobid = payload(ALL)
    pilot = pilots.run(site.url, QUEUE, tmp_path / ("x" * 120) / "run", *ONCE)
    assert site.wait_for(jobid)["events"] == {"done": 5}, pilot.log()


def test_the_socket_and_the_outputs_cross_the_border_of_a_container(
    server: RunningServer, rundir: Path, tmp_path: Path
) -> None:
    site = add_site(server.url, tmp_path / "site", container_type="singularity:pilot")
    with sandbox() as box:
        (jobid,) = site.submit(
            {
                "transformation": "sh",
                "jobPars": f"-c {shlex.quote(f'{sys.executable} -c {shlex.quote(ALL)}')} --containerImage={box.image}",
                "events": {"number": 4},
            }
        )
        pilot = pilots.run(site.url, QUEUE, rundir, *ONCE, env=box.environ)
    job = site.wait_for(jobid)
    assert (job["jobStatus"], job["events"]) == ("finished", {"done": 4}), pilot.log()
    assert len(archives(site, jobid)) == 4
