"""Faults of the dispatcher and of the network to it."""

from __future__ import annotations

import json

from pilot.common.errorcodes import ErrorCodes as C
from tests.faults import Request, network
from tests.injected.fault import BY_SERVER, Before, Fault, Scene
from tests.injected.site import leaves
from tests.injected.user import HASTY, definition_with

_IMPATIENT = (
    "[Pilot]\nretry_delay = 0.05\nretry_delay_max = 0.1\nfinal_update_patience = 1\ngetjob_delay_min = 0.1\n"
    "getjob_delay_max = 0.2\nrequest_attempts = 2\n"
)


def answers(method: str, fate: object = None, body: bytes | None = None) -> Before:
    """A network on which one method's requests are refused with a code, or its answers are replaced."""

    def prepared(scene: Scene) -> None:
        net = scene.stack.enter_context(network(scene.site.url, lambda one: fate if one.call == method else None))

        def change(status: int, given: bytes, request: Request) -> bytes:
            return body if body is not None and request.call == method else given

        net.change = change
        scene.url = net.url

    return prepared


def _nobody(scene: Scene) -> None:
    scene.url = "http://127.0.0.1:9"


FAULTS = (
    leaves("the server is not there", "a port that nobody listens on", C.QUEUEDATA, "server", "connection refused",
           shell=71, before=_nobody, settings=_IMPATIENT),
    leaves("the server has a fault of its own", "500 to every getJob", C.COMMUNICATIONFAILURE, "server", "500",
           "request(s) in a row failed", shell=79, before=answers("acquire_jobs", 500), settings=_IMPATIENT,
           options=("-x", "2")),
    leaves("the server answers what is no JSON", "<html> to every getJob", C.COMMUNICATIONFAILURE, "server", "JSON",
           shell=79, before=answers("acquire_jobs", body=b"<html>proxy error</html>"), settings=_IMPATIENT,
           options=("-x", "2")),
    leaves("the server answers something else", "a list to every getJob", C.COMMUNICATIONFAILURE, "server",
           "request(s) in a row failed", shell=79, before=answers("acquire_jobs", body=b"[1, 2]"), settings=_IMPATIENT,
           options=("-x", "2")),
    leaves("the server does not let the pilot in", "403 to getJob", C.COMMUNICATIONFAILURE, "server", "403", shell=79,
           before=answers("acquire_jobs", 403), settings=_IMPATIENT),
    leaves("the server has no job", "an empty queue", C.NOJOBSINPANDA, "server", "1 empty answer(s) in a row",
           shell=82),
    leaves("the server sends a job without a number", "PandaID `../1`", C.COMMUNICATIONFAILURE, "server", "PandaID",
           shell=79, settings=_IMPATIENT, options=("-x", "1"), before=answers("acquire_jobs", body=json.dumps({
               "success": True, "message": "", "data": {"StatusCode": 0, "jobs": [{"PandaID": "../1"}]}}).encode())),
    Fault("the job is another pilot's", "updates with a claim that is not the server's", C.PANDAKILL, "user", BY_SERVER,
          ("the server ordered it (tobekilled)",), "exec sleep 60", settings=HASTY, told=False,
          before=definition_with(claim_id="claim-of-another")),
    Fault("the outcome cannot be told", "503 to every update of the job; it is kept in the spool",
          C.COMMUNICATIONFAILURE, "server", "", ("not every outcome was taken by the server",), settings=_IMPATIENT,
          before=answers("update_job", 503), told=False, shell=79),
)  # fmt: skip
