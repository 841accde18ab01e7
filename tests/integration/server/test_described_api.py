"""Requests that schemathesis makes from /openapi.json: what is described is what there is, and nothing breaks (D8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.integration.server.clients import Client
from tests.integration.server.test_bad_requests import quiet_daemon
from tests.rows import Rows, says_no
from tests.servers import RunningServer, running_server

#: Requests for each method, of right and of wrong form: in a few seconds, and in `make soak`.
FEW, MANY = 20, 300
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def target(
    make_database: Callable[[str], dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A server with some jobs, whose daemon changes nothing by itself."""
    data = tmp_path_factory.mktemp("described")
    environment = {"PILOTKIT_DAEMON_CONFIG": str(quiet_daemon(data)), **make_database("described")}
    with running_server(data, environment=environment) as server, Client(server.url) as client:
        client.add_queue()
        client.submit({"outputs": ["a"]}, {"outputs": ["b"]})
        client.get_job()
        yield server


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", [FEW, pytest.param(MANY, marks=pytest.mark.soak)])
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
def test_the_api_is_as_described_and_a_refused_request_changes_no_row(
    target: RunningServer, mode: GenerationMode, number: int
) -> None:
    description = requests.get(f"{target.url}/openapi.json", timeout=30).json()
    schema = schemathesis.openapi.from_dict(description)
    url = target.environment.get("PILOTKIT_DATABASE", f"sqlite:///{target.data}/pilotkit.db")
    answered = 0
    with requests.Session() as session, Rows(url) as rows:
        for found in schema.get_all_operations():
            operation = found.ok()

            @settings(
                max_examples=number,
                deadline=None,
                database=None,
                derandomize=number == FEW,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def check(case: Case) -> None:
                nonlocal answered
                answer = case.call(base_url=target.url, session=session, timeout=30)
                case.validate_response(answer, checks=CHECKS)
                changed = rows.changes()
                if says_no(answer.status_code, answer.text):
                    assert not changed, (case.as_curl_command(), changed)
                answered += 1

            with suppress(Unsatisfiable):  # what has no arguments cannot be given wrong ones
                check()
    assert answered > len(description["paths"]) * number / 3
