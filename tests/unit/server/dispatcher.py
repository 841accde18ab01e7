"""A dispatcher without HTTP for unit tests: the real database in a folder, and a clock that the test moves."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from server.db.database import Database
from server.db.information import ConfigValue
from server.logic import (
    adder,
    cachefiles,
    configuration,
    details,
    dispatch,
    fields,
    kills,
    queues,
    submission,
    updates,
    watcher,
)
from server.logic.context import ANYBODY, Context, Identity
from server.logic.dispatch import NoJob
from server.logic.matching import JobRequest
from server.logic.updates import UpdateAnswer
from server.settings import Settings
from tests.unit.server.databases import EmptyDatabase

QUEUE = "TEST_QUEUE"
START = 1_800_000_000.0


@dataclass
class Clock:
    """Seconds since 1970, as the test wants them."""

    now: float = START

    def __call__(self) -> float:
        return self.now


@dataclass
class HeardBell:
    """A bell that remembers what was rung."""

    rung: list[str] = field(default_factory=list)

    def ring(self, script: str) -> None:
        self.rung.append(script)

    def close(self) -> None:
        """Nothing is held."""


@dataclass
class Dispatcher:
    """The calls of pilots, users and daemon, without HTTP between."""

    context: Context
    clock: Clock
    bell: HeardBell

    def submit(self, *jobs: dict[str, object], identity: Identity = ANYBODY) -> list[int]:
        made = submission.submit_jobs(
            self.context, [{"queue": QUEUE, "command": "true", **job} for job in jobs], identity
        )
        return [int(str(job["PandaID"])) for job in made]

    def ask(self, **request: object) -> list[dict[str, object]] | NoJob:
        wanted = JobRequest(**{"queue": QUEUE, "label": "user", **request})  # type: ignore[arg-type]
        return dispatch.acquire_jobs(self.context, wanted, ANYBODY, "http://server")

    def get_job(self, **request: object) -> dict[str, object]:
        found = self.ask(**request)
        assert not isinstance(found, NoJob), found
        return found[0]

    def no_job(self, **request: object) -> NoJob:
        found = self.ask(**request)
        assert isinstance(found, NoJob), found
        return found

    def report(self, job_id: int, status: str, identity: Identity = ANYBODY, **values: object) -> UpdateAnswer:
        return updates.update_job(self.context, fields.collect(job_id, status, values, fields.LEGACY), identity)

    def finish(self, job_id: int, **values: object) -> UpdateAnswer:
        """Report success with a good description of every output, and let the adder look."""
        names = [f["lfn"] for f in self.files(job_id) if f["type"] in ("output", "log")]
        answer = self.report(job_id, "finished", xml=json.dumps({str(name): good_file() for name in names}), **values)
        self.add()
        return answer

    def fail(self, job_id: int, code: int = 1305, **values: object) -> UpdateAnswer:
        answer = self.report(job_id, "failed", pilotErrorCode=code, **values)
        self.add()
        return answer

    def add(self) -> None:
        while adder.add_outputs(self.context):
            pass

    def watch(self) -> None:
        watcher.watch_jobs(self.context)

    def configure(self, key: str, value: object, component: str = "watcher") -> None:
        """Set a parameter of the configuration table."""
        wanted = ConfigValue("pandaserver", component, key, "", str(value), "", None)
        configuration.set_value(self.context, wanted)

    def kill(self, *job_ids: int, identity: Identity = ANYBODY) -> list[kills.KillResult]:
        return kills.kill_jobs(self.context, job_ids, identity)

    def job(self, job_id: int) -> dict[str, object]:
        return details.job_details(self.context, job_id, ANYBODY)

    def status(self, job_id: int) -> str:
        return str(self.job(job_id)["jobStatus"])

    def files(self, job_id: int) -> list[dict[str, object]]:
        found = self.job(job_id)["files"]
        assert isinstance(found, list)
        return found

    def states(self, job_id: int) -> list[tuple[int, str]]:
        """The history as (attempt, state)."""
        history = self.job(job_id)["history"]
        assert isinstance(history, list)
        return [(change["attemptNr"], change["status"]) for change in history]


def for_pilots(dispatcher: Dispatcher, queue: str) -> dict[str, object]:
    """A queue's description as pilots fetch it."""
    found = json.loads(cachefiles.cache_file(dispatcher.context, f"schedconfig/{queue}.all.json"))
    assert isinstance(found, dict)
    return found


def good_file() -> dict[str, object]:
    """What a pilot says of a file that is there."""
    return {
        "guid": str(uuid.uuid4()).upper(),
        "fsize": 6,
        "adler32": "084b021f",
        "surl": "file:///x",
        "endpoint": "DISK",
    }


@contextmanager
def dispatcher_in(folder: Path, empty: EmptyDatabase, **settings: object) -> Iterator[Dispatcher]:
    """A dispatcher with one queue, on a database that has its tables and nothing in them."""
    chosen = Settings(data=str(folder), database=empty.put_into(folder), **settings)  # type: ignore[arg-type]
    database = Database(chosen.database_url())
    clock, bell = Clock(), HeardBell()
    context = Context(chosen, database, bell, clock, dice=lambda: 1.0)  # age comes first when a test wants it
    queues.add_queues(context, {QUEUE: {"astorages": {"default": ["DISK"]}}})
    try:
        yield Dispatcher(context, clock, bell)
    finally:
        database.close()
