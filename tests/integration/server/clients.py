"""Small clients for the server's integration tests."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import requests

QUEUE = "TEST_QUEUE"
#: s anything may take here; far more than it needs.
PATIENCE = 30


class Client:
    """A kept-alive connection to a server, with the calls tests need."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url
        self.session = requests.Session()
        if token:
            self.session.headers["Authorization"] = f"Bearer {token}"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def v1(self, path: str, body: object = None, **query: object) -> dict[str, Any]:
        url = f"{self.url}/api/v1/{path}"
        if body is None:
            answer = self.session.get(url, params=query, timeout=PATIENCE)  # type: ignore[arg-type]
        else:
            answer = self.session.post(url, json=body, timeout=PATIENCE)
        if answer.status_code == 503:  # "try again": as good as no answer
            answer.raise_for_status()
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]

    def data(self, path: str, body: object = None, **query: object) -> Any:
        answer = self.v1(path, body, **query)
        assert answer["success"], answer["message"]
        return answer["data"]

    def panda(self, method: str, body: dict[str, object], **headers: str) -> dict[str, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.session.post(f"{self.url}/server/panda/{method}", json=body, headers=named, timeout=PATIENCE)
        if answer.status_code == 503:  # "try again": as good as no answer
            answer.raise_for_status()
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]

    def add_queue(self, **description: object) -> None:
        self.data("queue/add", {"queues": {QUEUE: description}})

    def submit(self, *jobs: dict[str, object]) -> list[int]:
        made = self.data("job/submit_jobs", {"jobs": [{"queue": QUEUE, "command": "true", **job} for job in jobs]})
        return [job["PandaID"] for job in made]

    def get_job(self, **headers: str) -> dict[str, Any]:
        return self.panda("getJob", {"siteName": QUEUE, "prodSourceLabel": "user"}, **headers)

    def update(self, job: int, state: str, **values: object) -> dict[str, Any]:
        return self.panda("updateJob", {"jobId": str(job), "state": state, **values})

    def finish(self, definition: dict[str, Any]) -> dict[str, Any]:
        """Report success with all outputs."""
        names = definition["outFiles"].split(",")
        described = {name: {"guid": str(uuid.uuid4()), "fsize": 1, "adler32": "00000001"} for name in names}
        return self.update(definition["PandaID"], "finished", xml=json.dumps(described))

    def job(self, job: int) -> dict[str, Any]:
        return self.data("job/get_details", job_id=job)  # type: ignore[no-any-return]

    def status(self, job: int) -> str:
        return str(self.job(job)["jobStatus"])

    def wait_for(self, job: int, *states: str) -> dict[str, Any]:
        wait_until(lambda: self.status(job) in states, f"job {job} to be {' or '.join(states)}")
        return self.job(job)


def wait_until(there: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Wait for something other processes do and nobody here is told of."""
    until = time.monotonic() + patience
    while not there():
        assert time.monotonic() < until, f"waited in vain for {what}"
        threading.Event().wait(0.01)


def run_together(tasks: Sequence[Callable[[], object]]) -> None:
    """Run functions in threads, all at the same moment, and raise what they raised."""
    failures: list[BaseException] = []
    start = threading.Barrier(len(tasks))

    def run(task: Callable[[], object]) -> None:
        start.wait()
        try:
            task()
        except BaseException as error:  # shown below, in the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
