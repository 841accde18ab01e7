"""Generated requests to the legacy API: never a 5xx, and what is refused has changed no row (promise D8)."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from server.routes import panda, state
from server.routes.registry import Argument, Kind, Method
from tests.rows import Rows, says_no
from tests.unit.server.databases import EmptyDatabase
from tests.unit.server.dispatcher import QUEUE
from tests.unit.server.test_routes import client_of, submit

#: Requests on each database: in a few seconds, and in `make soak`.
FEW, MANY = 2_500, 25_000

#: Words that mean something here, so that requests get as far as they can: jobs and queues there are, states, numbers.
MEANT = st.sampled_from(
    [
        *("1", "2", "3", "1 2 99", "1,2", QUEUE, "user", "managed", "running", "finished", "failed", "holding"),
        *("starting", "transferring", "NULL", "None", "0", "-1", "True", "1.5", "2026-11-21 10:00:00", "[]", "{}"),
        *('[{"jobId": 1, "state": "running"}]', '[{"eventRangeID": "1-2-3-4-5", "eventStatus": "finished"}]'),
        *("1e400", "9" * 30, "x" * 2000, "../../etc/passwd", "'; DROP TABLE jobs; --", "a\x00b", "ü😀\u202e"),
    ]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40) | MEANT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NUMBERS = st.integers(-(2**70), 2**70) | st.integers(0, 5) | st.floats()


#: What is a good value of an argument that decides how far a request gets.
GOOD = {
    "jobId": st.sampled_from(["1", "2", 1, 2]),
    "pandaID": st.sampled_from(["1", 2]),
    "ids": st.sampled_from(["1", "1 2", "1,2"]),
    "state": st.sampled_from(["running", "finished", "failed", "starting", "holding"]),
    "siteName": st.just(QUEUE),
    "attemptNr": st.just(1),
    "jobList": st.just([{"jobId": 1, "state": "running"}]),
}


@st.composite
def value_of(draw: st.DrawFn, argument: Argument) -> Any:
    """What an argument may be given: mostly what it should be."""
    if not draw(st.integers(0, 7)):
        return draw(ANYTHING)
    return draw(GOOD.get(argument.name, NUMBERS if argument.kind in (Kind.INTEGER, Kind.NUMBER) else MEANT))


@st.composite
def requests_of(draw: st.DrawFn, methods: list[Method]) -> tuple[str, str, dict[str, Any]]:
    """(method, encoding, arguments): with what is needed, mostly, and some of the rest."""
    method = draw(st.sampled_from(methods))
    needed = [argument for argument in method.arguments.values() if argument.required and draw(st.integers(0, 19))]
    others = [argument for argument in method.arguments.values() if not argument.required]
    chosen = needed + (draw(st.lists(st.sampled_from(others), max_size=3)) if others else [])
    values = {argument.name: draw(value_of(argument)) for argument in chosen}
    if not draw(st.integers(0, 19)):
        values[draw(st.text(max_size=10))] = draw(ANYTHING)
    return method.path, draw(st.sampled_from(["json", "gzip", "form", "query"])), values


def send(client: FlaskClient, path: str, encoding: str, values: dict[str, Any]) -> TestResponse:
    url = f"/server/panda/{path}"
    headers = {"Accept": "application/json"}
    if encoding in ("json", "gzip"):
        body = json.dumps(values).encode()
        data = gzip.compress(body, 1) if encoding == "gzip" else body
        return client.post(url, data=data, content_type="application/json", headers=headers)
    flat = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    text = urlencode({name: value.encode(errors="replace") for name, value in flat.items()})
    if encoding == "query":
        return client.get(f"{url}?{text}", headers=headers)
    return client.post(url, data=text, content_type="application/x-www-form-urlencoded", headers=headers)


@pytest.fixture
def client(tmp_path: Path, empty_database: EmptyDatabase) -> Iterator[FlaskClient]:
    """An open server with a queue and a job in each of some states."""
    for made in client_of(tmp_path, empty_database, body_limit=100_000):
        made.post("/api/v1/queue/add", json={"queues": {QUEUE: {"astorages": {"default": ["DISK"]}}}})
        for _ in range(3):
            submit(made, outputs=["a"])
        for job in ("1", "2"):
            made.post("/server/panda/getJob", json={"siteName": QUEUE, "prodSourceLabel": "user"})
            made.post("/server/panda/updateJob", json={"jobId": job, "state": "running"})
        yield made


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("number", [FEW, pytest.param(MANY, marks=pytest.mark.soak)])
def test_generated_requests_break_nothing_and_a_refused_one_changes_no_row(client: FlaskClient, number: int) -> None:
    methods = sorted(panda.registry, key=lambda method: method.path)
    methods += [
        method for method in methods if "Job" in method.path
    ] * 3  # what pilots ask for most, and rows change by
    url = str(state.of(client.application).context.database.url.render_as_string(hide_password=False))
    refused = taken = moved = 0
    with Rows(url) as rows:

        @settings(
            max_examples=number,
            deadline=None,
            database=None,
            derandomize=number == FEW,  # can be repeated; `make soak` looks elsewhere
            suppress_health_check=list(HealthCheck),
        )
        @given(requests_of(methods))
        def check(request: tuple[str, str, dict[str, Any]]) -> None:
            nonlocal refused, taken, moved
            answer = send(client, *request)
            assert answer.status_code < 500, answer.text
            assert "Traceback" not in answer.text
            changed = rows.changes()
            if says_no(answer.status_code, answer.text):
                refused += 1
                assert not changed, (answer.text[:300], changed)
            else:
                taken += 1
                moved += bool(changed)

        check()
    # Requests of all kinds are needed to say anything.
    assert refused > number / 10 and taken > number / 20 and moved > 5, (refused, taken, moved)
