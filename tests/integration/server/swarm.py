"""Many pilots in one process that may be killed at any moment: what each was told is in a journal before it goes on.

    python -m tests.integration.server.swarm PORT QUEUE CLIENTS JOURNAL

Each takes a job, runs it for a moment, finishes it and takes the next, as existing pilots do: a new connection for each
request, and each request again until it is answered. The process ends when its standard input does.

A line of the journal is a JSON list: [what, ...]. What was claimed: ["claimed", job, attempt, claim, request]; a state
that was reported and accepted: ["told", job, attempt, state]; the order to stop: ["stop", job, attempt]; an answer that
must never be given: ["wrong", text].
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
import uuid
from typing import Any

from tests.asking import post

#: s between two tries of a request, and that a payload runs at most.
_PAUSE = 0.05
_RUNNING = 0.2
#: s an answer may take.
_PATIENCE = 20
#: s until a pilot that got no job asks again.
_NO_JOB = 2.0


class Swarm:
    """The pilots of a process."""

    def __init__(self, port: int, queue: str, journal: str) -> None:
        self._port = port
        self._queue = queue
        self._journal = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def _note(self, *what: object) -> None:
        """One write, which a kill leaves whole or undone; the machine itself does not crash here."""
        os.write(self._journal, json.dumps(what).encode() + b"\n")

    async def pilot(self) -> None:
        """One job after the other."""
        while True:
            request = uuid.uuid4().hex
            asked = {"siteName": self._queue, "prodSourceLabel": "user", "request_id": request}
            answer = await self._insist("getJob", asked)
            if answer["StatusCode"] == 0:
                await self._job(answer, request)
            elif answer["StatusCode"] == 20:
                await asyncio.sleep(_NO_JOB * random.random())
            else:
                self._note("wrong", f"getJob: {answer}")

    async def _job(self, definition: dict[str, Any], request: str) -> None:
        job, attempt, claim = definition["PandaID"], definition["attemptNr"], definition["claim_id"]
        self._note("claimed", job, attempt, claim, request)
        outputs = {name: {"guid": str(uuid.uuid4()), "fsize": 1, "adler32": "00000001"}
                   for name in definition["outFiles"].split(",")}  # fmt: skip
        for state, more in (("starting", {}), ("running", {}), ("running", {}), ("finished", {"xml": outputs})):
            values = {name: json.dumps(value) for name, value in more.items()}
            said = {"jobId": str(job), "state": state, "attemptNr": attempt, "claim_id": claim, **values}
            answer = await self._insist("updateJob", said)
            command = answer.get("command")
            if command == "tobekilled":
                self._note("stop", job, attempt)
                return
            if answer["StatusCode"] != 0 or command not in ("NULL", "alreadydone"):
                self._note("wrong", f"updateJob {said}: {answer}")
            self._note("told", job, attempt, state)
            await asyncio.sleep(_RUNNING * random.random())

    async def _insist(self, method: str, values: dict[str, object]) -> dict[str, Any]:
        """Ask until there is an answer, and not the one that says to try again."""
        while True:
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                body = json.dumps(values).encode()
                status, content = await asyncio.wait_for(post(self._port, f"/server/panda/{method}", body), _PATIENCE)
                if status == 200:
                    answer: dict[str, Any] = json.loads(content)
                    return answer
                if status != 503:
                    self._note("wrong", f"{method} {values}: {status} {content!r}")
            await asyncio.sleep(_PAUSE * random.random())


async def _main(port: int, queue: str, clients: int, journal: str) -> None:
    swarm = Swarm(port, queue, journal)
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    pilots = [asyncio.create_task(swarm.pilot()) for _ in range(clients)]
    await asyncio.wait([ended, *pilots], return_when=asyncio.FIRST_COMPLETED)
    for pilot in pilots:  # one that has ended has failed: that is shown
        if pilot.done():
            pilot.result()
        pilot.cancel()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]))
