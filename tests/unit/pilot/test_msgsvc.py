"""What messages of a broker may say, and what of it reaches the dispatcher."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, strategies

from pilot.control.dispatcher import JobAnswer
from pilot.control.msgsvc import BadMessage, MessageService, Order, read_order
from pilot.util.https import Json, RequestFailed
from pilot.util.stomp import StompError
from pilot.workflow.wires import check
from tests.unit.pilot.builders import SETTINGS, context


def said(**words: object) -> bytes:
    return json.dumps(words).encode()


@pytest.mark.parametrize(
    ("body", "order"),
    [
        (said(msg_type="get_job"), Order("get_job")),
        (said(msg_type="get_job", taskid=7, more=[1]), Order("get_job", conditions={"taskID": "7"})),
        (
            said(msg_type="get_job", taskid=None, resource_type="SCORE"),
            Order("get_job", conditions={"resourceType": "SCORE"}),
        ),
        (said(msg_type="kill_job", jobid="12"), Order("kill_job", jobid="12")),
        (said(msg_type="kill_task", taskid=9), Order("kill_task", taskid="9")),
        (said(msg_type="finish_task", taskid=9), Order("finish_task", taskid="9")),
    ],
)
def test_orders_that_are_known_are_read(body: bytes, order: Order) -> None:
    assert read_order(body) == order


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"1",
        b"[" * 100000,
        b" " * 70000,
        said(),
        said(msg_type="dance"),
        said(msg_type=["get_job"]),
        said(msg_type="kill_job", taskid=1),
        said(msg_type="kill_task", jobid=1),
        said(msg_type="finish_task", taskid=""),
        said(msg_type="kill_job", jobid="1;rm -rf ~"),
        said(msg_type="kill_job", jobid="$(id)"),
        said(msg_type="kill_job", jobid=-1),
        said(msg_type="kill_job", jobid=True),
        said(msg_type="kill_job", jobid=1.0),
        said(msg_type="kill_job", jobid=[1]),
        said(msg_type="kill_job", jobid="1" * 20),
        said(msg_type="get_job", taskid="٣"),
        said(msg_type="get_job", resource_type="A\nB"),
        said(msg_type="get_job", resource_type="A" * 65),
        said(msg_type="get_job", resource_type=["SCORE"]),
    ],
)
def test_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(BadMessage):
        read_order(body)


@given(strategies.binary(max_size=60) | strategies.recursive(
    strategies.none() | strategies.integers() | strategies.text(max_size=5),
    lambda inner: strategies.dictionaries(strategies.sampled_from(["msg_type", "taskid", "jobid"]), inner),
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_no_message_makes_anything_but_an_order_or_the_one_error(body: bytes) -> None:
    try:
        order = read_order(body)
    except BadMessage:
        return
    assert order.kind in ("get_job", "kill_job", "kill_task", "finish_task")


class Never:
    """A dispatcher that must not be asked."""

    def get_job(self, request: dict[str, Json]) -> JobAnswer:
        raise AssertionError(request)


def test_without_a_broker_waiting_is_a_failure_and_no_job_is_asked_for(tmp_path: Path) -> None:
    settings = replace(SETTINGS, broker=replace(SETTINGS.broker, patience=0.01))

    def no_brokers() -> list[object]:
        raise StompError("nobody there")

    service = MessageService(context(tmp_path, settings=settings), Never(), no_brokers, "/queue/a", "/topic/b")  # type: ignore[arg-type]
    with pytest.raises(RequestFailed, match="no message broker") as raised:
        service.get_job({})
    assert raised.value.temporary
    service.stop()
    assert service.get_job({}).reason == "the pilot is told to stop"


def test_a_file_job_has_nothing_to_wait_for(tmp_path: Path) -> None:
    shared = context(tmp_path, "--subscribe-to-msgsvc", "--job", "x.json")
    with pytest.raises(ValueError, match="nothing to wait for"):
        check(shared.args, SETTINGS)
