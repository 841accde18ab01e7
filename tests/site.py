"""A site for tests: a queue and a storage on a real server, and the operator's calls."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from tests.pilots import wait_until

QUEUE, DISK = "TEST_QUEUE", "TEST_DISK"
OVER = ("finished", "failed", "cancelled", "closed")


@dataclass(frozen=True)
class Site:
    """url: the server's; storage: folder of the storage endpoint; token: the operator's, for a server with tokens."""

    url: str
    storage: Path
    token: str = ""

    def call(self, method: str, body: dict[str, object] | None = None, **query: object) -> object:
        """One v1 call, as the command line makes it; the data of its answer. Fails when the server refuses."""
        answer = self.ask(method, body, **query)
        assert answer["success"], answer["message"]
        return answer["data"]

    def ask(self, method: str, body: dict[str, object] | None = None, **query: object) -> dict[str, object]:
        """The same, with the whole envelope."""
        url = f"{self.url}/api/v1/{method}" + (f"?{urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as answer:
            envelope: dict[str, object] = json.load(answer)
        return envelope

    def submit(self, *jobs: dict[str, object]) -> list[int]:
        """Submit jobs to the queue; their PandaIDs."""
        made = self.call("job/submit_jobs", {"jobs": [{"queue": QUEUE, **job} for job in jobs]})
        assert isinstance(made, list)
        return [int(job["PandaID"]) for job in made]

    def job(self, jobid: int) -> dict[str, object]:
        """All about one job."""
        details = self.call("job/get_details", job_id=jobid)
        assert isinstance(details, dict)
        return details

    def status(self, jobid: int) -> str:
        """Its state."""
        return str(self.job(jobid)["jobStatus"])

    def wait_for(self, jobid: int, *states: str, timeout: float = 30.0) -> dict[str, object]:
        """Wait until a job is in one of the states (default: over) and return all about it."""
        wanted = states or OVER
        wait_until(lambda: self.status(jobid) in wanted, f"job {jobid} in {wanted}", timeout)
        return self.job(jobid)

    def files(self, jobid: int, kind: str) -> list[dict[str, object]]:
        """The files of one type: input, output, log."""
        listed = self.job(jobid)["files"]
        assert isinstance(listed, list)
        return [entry for entry in listed if entry["type"] == kind]

    def stored(self, jobid: int, kind: str = "output") -> list[Path]:
        """Where the files of a job lie on disk."""
        return [Path(str(entry["surl"]).replace("file://localhost", "")) for entry in self.files(jobid, kind)]


def add_site(url: str, folder: Path, token: str = "", **settings: object) -> Site:
    """Make queue and storage on a server. settings: for the queue's description. token: see Site."""
    storage = folder / "storage"
    storage.mkdir(parents=True, exist_ok=True)
    site = Site(url, storage, token)
    protocols = [{"endpoint": "file://localhost", "flavour": "local", "id": 1, "path": f"{storage}/"}]
    site.call(
        "storage/add",
        {"storages": {DISK: {"state": "ACTIVE", "is_deterministic": True, "arprotocols": {"default": protocols}}}},
    )
    queue = {
        "state": "ACTIVE",
        "status": "online",
        "copytools": {"mv": {"setup": ""}},
        "acopytools": {"default": ["mv"]},
        "astorages": {"default": [DISK]},
        **settings,
    }
    site.call("queue/add", {"queues": {QUEUE: queue}})
    return site
