"""Jobs and kill orders from a real broker: whole jobs, with the dispatcher that hands them out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests import pilots
from tests.activemq import PASSWORD, USER, ActiveMQ, running_activemq
from tests.faults import network
from tests.integration.payload.conftest import Submit, settings
from tests.pilots import Pilot
from tests.site import QUEUE, Site

JOBS, COMMANDS = f"/queue/panda.jobs.{QUEUE}", f"/topic/panda.commands.{QUEUE}"
WORK = json.dumps({"msg_type": "get_job"})
DEAD_LETTERS = "/queue/ActiveMQ.DLQ"
SLEEPER = "import time; time.sleep(60)"


@pytest.fixture(scope="module")
def broker() -> Iterator[ActiveMQ]:
    with running_activemq() as made:
        yield made


def configuration(broker: ActiveMQ, rundir: Path, **more: object) -> str:
    rundir.mkdir(parents=True, exist_ok=True)
    passcode = rundir.parent / "passcode"
    passcode.write_text(f"{PASSWORD}\n")
    values = {
        "host_port_list": f"127.0.0.1:9,{broker.address}",
        "use_ssl": False,
        "username": USER,
        "passcode_file": passcode,
        "heartbeat": 1,
        "retry_delay": 0.1,
        **more,
    }
    return settings(**{f"Message_broker__{name}": value for name, value in values.items()})


Start = Callable[..., AbstractContextManager[Pilot]]


@pytest.fixture
def start(site: Site, rundir: Path, broker: ActiveMQ) -> Start:
    """Starts a pilot that waits for messages. A second one has a directory of its own."""

    def started(*options: str, url: str = "", name: str = "run", **more: object) -> AbstractContextManager[Pilot]:
        folder = rundir.parent / name
        text = configuration(broker, folder, **more)
        # Without a time floor a pilot leaves after its job, instead of waiting for another message.
        env = {"PILOTKIT_QUEUEDATA": '{"timefloor": 0}'}
        return pilots.running(url or site.url, QUEUE, folder, "--subscribe-to-msgsvc", *options, settings=text, env=env)

    return started


def waiting(pilot: Pilot) -> None:
    pilots.wait_until(lambda: f"waiting for a message on {JOBS}" in pilot.log(), "the pilot waits for a message")


def test_a_pilot_asks_for_a_job_when_there_is_a_message_and_not_before(
    site: Site, broker: ActiveMQ, submit: Submit, start: Start
) -> None:
    with network(site.url) as net, start("-v", "1", url=net.url, patience=60) as pilot:
        jobid = submit("print('work')")
        waiting(pilot)
        assert not net.calls("acquire_jobs") and site.status(jobid) == "activated"
        broker.send(JOBS, WORK)
        assert site.wait_for(jobid)["jobStatus"] == "finished"
        assert pilot.wait() == 0, pilot.log()
        (asked,) = net.calls("acquire_jobs")
    assert asked.body["via_topic"] is True
    assert broker.drain(JOBS, 1, timeout=0.5) == [], "the message was confirmed"
    assert PASSWORD not in pilot.log()


def test_a_message_goes_to_another_pilot_when_the_first_update_was_never_taken(
    site: Site, broker: ActiveMQ, submit: Submit, start: Start
) -> None:
    submit("print('work')")
    with network(site.url) as net, start("-v", "1", url=net.url) as pilot:
        net.rule = lambda request: 503 if request.call == "update_job" else None
        waiting(pilot)
        broker.send(JOBS, WORK)
        pilots.wait_until(lambda: net.calls("update_job"), "an update is tried")
    (back,) = broker.drain(JOBS, 1)
    assert back.headers["redelivered"] == "true" and back.body == WORK.encode()


def test_while_a_job_runs_other_messages_are_left_to_other_pilots(
    site: Site, broker: ActiveMQ, submit: Submit, start: Start
) -> None:
    first, second = submit(SLEEPER), submit("print('work')")
    with start("-v", "1", patience=60) as busy:
        waiting(busy)
        broker.send(JOBS, WORK)
        site.wait_for(first, "running")
        pilots.wait_until(lambda: "update 'running' is delivered" in busy.log(), "the message is confirmed")
        broker.send(JOBS, WORK)
        with start("-v", "1", name="other", patience=60) as other:
            assert site.wait_for(second)["jobStatus"] == "finished"
            assert other.wait() == 0
        broker.send(COMMANDS, json.dumps({"msg_type": "kill_job", "jobid": first}))
        assert busy.wait() == 0
    assert site.wait_for(first)["pilotErrorCode"] == 1144


def test_a_message_without_a_job_goes_back_once_and_is_then_stale(site: Site, broker: ActiveMQ, start: Start) -> None:
    broker.send(JOBS, WORK)
    with network(site.url) as net, start("-v", "2", url=net.url) as pilot:
        pilot.wait()
        assert len(net.calls("acquire_jobs")) == 2, pilot.log()
    assert broker.drain(JOBS, 1, timeout=0.5) == []


@pytest.mark.parametrize(
    ("order", "ends"),
    [
        ({"msg_type": "kill_task", "taskid": 77}, True),
        ({"msg_type": "finish_task", "taskid": "77"}, True),
        ({"msg_type": "kill_task", "taskid": 78}, False),
        ({"msg_type": "kill_task"}, False),
        ({"msg_type": "get_job"}, False),
        ({"msg_type": "kill_job", "jobid": "77; rm -rf ~"}, False),
        (["no object"], False),
    ],
    ids=str,
)
def test_orders_end_the_jobs_they_name_and_no_others(
    site: Site, broker: ActiveMQ, submit: Submit, start: Start, order: object, ends: bool
) -> None:
    jobid = submit(SLEEPER, taskID=77)
    with start("-v", "1", patience=60) as pilot:
        waiting(pilot)
        broker.send(JOBS, json.dumps({"msg_type": "get_job", "taskid": 77}))
        site.wait_for(jobid, "running")
        broker.send(COMMANDS, json.dumps(order))
        if not ends:
            known = isinstance(order, dict) and order.get("taskid") == 78
            if not known:
                pilots.wait_until(lambda: "is not obeyed: " in pilot.log(), "the order is refused")
            assert site.status(jobid) == "running"
            broker.send(COMMANDS, json.dumps({"msg_type": "kill_task", "taskid": 77}))
        assert pilot.wait() == 0
    job = site.wait_for(jobid, "failed")
    assert job["pilotErrorCode"] == 1144 and "a message broker's order: " in str(job["pilotErrorDiag"])


def test_bad_messages_become_dead_letters_and_the_next_good_one_is_taken(
    site: Site, broker: ActiveMQ, submit: Submit, start: Start
) -> None:
    jobid = submit("print('work')")
    bad = [
        b"\xff\xfe",
        "[" * 5000,
        json.dumps({"msg_type": "kill_task", "taskid": 1}),
        '{"msg_type": "get_job", "taskid": 1.5}',
    ]
    with start("-v", "1", patience=60) as pilot:
        waiting(pilot)
        for body in bad:
            broker.send(JOBS, body, persistent="true")
        broker.send(JOBS, WORK)
        assert site.wait_for(jobid)["jobStatus"] == "finished"
        assert pilot.wait() == 0
    assert pilot.log().count("is refused: ") == len(bad)
    assert len(broker.drain(DEAD_LETTERS, len(bad))) == len(bad)


def test_a_broker_that_went_and_came_back_is_found_again(site: Site, submit: Submit, rundir: Path) -> None:
    with running_activemq() as broker:
        text = configuration(broker, rundir, patience=60)
        with pilots.running(site.url, QUEUE, rundir, "-v", "1", "--subscribe-to-msgsvc", settings=text) as pilot:
            waiting(pilot)
            broker.stop()
            pilots.wait_until(lambda: "connecting again in" in pilot.log(), "the loss is noticed")
            broker.start()
            jobid = submit("print('work')")
            broker.send(JOBS, WORK)
            assert site.wait_for(jobid)["jobStatus"] == "finished"
            pilot.signal(15)
            pilot.wait()
    assert "Traceback" not in pilot.log()


def test_a_job_survives_its_broker(site: Site, submit: Submit, rundir: Path) -> None:
    jobid = submit("import os, time\nwhile not os.path.exists('go'): time.sleep(0.05)")
    with running_activemq() as broker:
        text = configuration(broker, rundir, patience=10)
        options = ("-v", "1", "-x", "1", "--subscribe-to-msgsvc")
        with pilots.running(site.url, QUEUE, rundir, *options, settings=text) as pilot:
            waiting(pilot)
            broker.send(JOBS, WORK)
            site.wait_for(jobid, "running")
            broker.stop()
            (pilot.workdir(jobid) / "go").touch()
            assert site.wait_for(jobid)["jobStatus"] == "finished"
            pilot.wait()
    assert "no message broker: " in pilot.log()


def test_a_pilot_that_waits_for_a_message_ends_at_once_on_a_signal(site: Site, start: Start) -> None:
    with start() as pilot:
        waiting(pilot)
        pilot.signal(15)
        pilot.wait(20)
    assert "the pilot is told to stop" in pilot.log()


def test_a_broker_is_named_and_secured_or_the_pilot_does_not_start(site: Site, rundir: Path) -> None:
    for name, text, words in (
        ("none", "", "no broker is named"),
        ("plain", "[Message_broker]\nuse_ssl = False\nhost_port_list = 192.0.2.1:1\n", "is not secured"),
        ("port", "[Message_broker]\nhost_port_list = h:x\n", "does not look like HOST:PORT"),
        ("file", "[Message_broker]\nhost_port_list = h:1\npasscode_file = /none\n", "cannot be read"),
    ):
        pilot = pilots.run(site.url, QUEUE, rundir / name, "--subscribe-to-msgsvc", settings=text)
        assert pilot.wait() == 2 and words in pilot.log()
