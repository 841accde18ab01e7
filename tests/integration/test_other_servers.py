"""The pilot on either wire, compared with what an existing pilot was recorded to send and what such servers take."""

from __future__ import annotations

import json
from pathlib import Path

from tests import pilots
from tests.faults import Request, network
from tests.site import QUEUE, Site

ONCE = ("-v", "1")
GOLDEN = Path(__file__).resolve().parent.parent / "golden"


def legacy_only(request: Request) -> object:
    """A server that does not know /api/v1 answers such calls with 404."""
    return 404 if request.path.startswith("/api/") else None


def recorded(call: str) -> dict[str, str]:
    """Names and types of the fields that an existing pilot was seen to send with a call."""
    facts: dict[str, dict[str, str]] = json.loads((GOLDEN / "existing_pilot.json").read_text(encoding="utf-8"))[
        "requests"
    ]
    return facts[call]


def test_on_a_legacy_server_our_requests_carry_the_fields_of_an_existing_pilot(site: Site, rundir: Path) -> None:
    worker = {"HARVESTER_ID": "harvester", "HARVESTER_WORKER_ID": "42"}
    (good, bad) = site.submit({"command": "echo a > legacy.txt", "outputs": ["legacy.txt"]}, {"command": "exit 1"})
    with network(site.url, legacy_only) as net:
        pilot = pilots.run(net.url, QUEUE, rundir, *ONCE, env=worker)
    assert pilot.process.returncode == 0, pilot.log()
    assert site.wait_for(good)["jobStatus"] == "finished"
    assert site.wait_for(bad)["pilotErrorCode"] == 1305
    for call, state in (
        ("updateWorkerPilotStatus", ""),
        ("getJob", ""),
        ("updateJob", "starting"),
        ("updateJob", "running"),
        ("updateJob", "finished"),
        ("updateJob", "failed"),
    ):
        theirs = recorded(f"{call} {state}".strip())
        ours = next(request for request in net.calls(call) if request.state == state)
        assert not set(theirs) - set(ours.body), f"{call} {state} lacks {set(theirs) - set(ours.body)}"
        # Times are sent as servers store them, not as seconds since 1970.
        kinds = {name: kind for name, kind in theirs.items() if name not in ("startTime", "endTime")}
        assert {name: type(ours.body[name]).__name__ for name in kinds} == kinds
        assert ours.packed, "legacy servers want gzip"
        assert "content-encoding" not in ours.headers
        assert ours.headers["content-type"] == "application/json"
    report = json.loads(str(next(r for r in net.calls("updateJob") if r.state == "finished").body["xml"]))
    assert set(report["legacy.txt"]) == {"guid", "fsize", "adler32", "surl", "endpoint"}


def test_on_a_legacy_server_nothing_is_sent_that_such_servers_refuse(site: Site, rundir: Path) -> None:
    """Arguments of getJob and updateJob of legacy servers (wire.md, sections 4 and 5), kept as data of the tests."""
    known = json.loads((GOLDEN / "legacy_arguments.json").read_text(encoding="utf-8"))

    (jobid,) = site.submit({"command": "true", "countryGroup": "de", "workingGroup": "x"})
    with network(site.url, legacy_only) as net:
        # A server that is not ours does not announce itself.
        net.hide = frozenset({"x-pilotkit"})
        pilots.run(net.url, QUEUE, rundir, *ONCE, "--country-group", "de", "--working-group", "x", "--job-type", "user")
    site.wait_for(jobid, "finished")
    for call in ("getJob", "updateJob"):
        assert net.calls(call)
        for request in net.calls(call):
            assert set(request.body) <= set(known[call]), set(request.body) - set(known[call])


def test_on_a_v1_server_only_arguments_it_knows_are_sent_with_the_types_it_wants(site: Site, rundir: Path) -> None:
    typed = {"command": "echo x > typed.txt; sleep 1.5", "outputs": ["typed.txt"], "countryGroup": "de"}
    (jobid,) = site.submit(typed)
    with network(site.url) as net:
        pilots.run(net.url, QUEUE, rundir, *ONCE, "--country-group", "de", "--job-type", "user")
    assert site.wait_for(jobid)["jobStatus"] == "finished"
    # Our own server refuses unknown and mistyped arguments on v1, as servers since release 1.0 do.
    assert not net.calls("getJob")
    final = next(r for r in net.calls("update_job") if r.state == "finished").body
    assert (final["job_id"], type(final["trans_exit_code"])) == (jobid, int)
    assert "timestamp" not in final
    assert json.loads(str(final["job_output_report"]))["typed.txt"]["fsize"] == 2


def test_which_api_a_server_has_is_asked_once(site: Site, rundir: Path) -> None:
    site.submit(*({"command": "true"} for _ in range(3)))
    with network(site.url) as net:
        pilots.run(net.url, QUEUE, rundir, *ONCE)
    assert len(net.calls("is_alive")) == 1
    assert len(net.calls("acquire_jobs")) == 4
