"""Faults of jobs' definitions, and orders of people. What our own server would refuse is changed on its way."""

from __future__ import annotations

import json

from pilot.common.errorcodes import ErrorCodes as C
from tests.faults import Request, network
from tests.injected.fault import BY_DEFINITION, BY_KILL_FILE, BY_SERVER, BY_STAGEIN, BY_START, Before, Fault, Scene
from tests.pilots import Pilot

# Heartbeats, and looks for a kill file, several times a second.
HASTY = "[Pilot]\nheartbeat = 1\nheartbeat_min = 1\nkill_file_check = 0.2\n"


def definition_with(**changes: object) -> Before:
    """The definition is changed between server and pilot. A {} in a text becomes the name of the log."""

    def corrupted(scene: Scene) -> None:
        def corrupt(status: int, body: bytes, request: Request) -> bytes:
            if request.call != "acquire_jobs" or b'"PandaID"' not in body:
                return body
            envelope = json.loads(body)
            definition = envelope["data"]["jobs"][0]
            log = definition["logFile"]
            definition.update({k: v.format(log) if isinstance(v, str) else v for k, v in changes.items()})
            return json.dumps(envelope).encode()

        net = scene.stack.enter_context(network(scene.site.url))
        net.change = corrupt
        scene.url = net.url

    return corrupted


def refused(
    name: str, how: str, code: int, blame: str, *said: str, shell: int = 0, log: bool = True, **changes: object
) -> Fault:
    """A definition that the pilot refuses."""
    return Fault(name, how, code, blame, BY_DEFINITION, said, before=definition_with(**changes), shell=shell, log=log)


def _kill_order(scene: Scene, pilot: Pilot) -> None:
    scene.site.call("job/kill", {"job_ids": [scene.jobid]})


def _softkill(scene: Scene) -> None:
    """The server's answer to the first heartbeat."""

    def ordering(status: int, body: bytes, request: Request) -> bytes:
        if request.call != "update_job" or request.state != "running":
            return body
        envelope = json.loads(body)
        envelope["data"]["command"] = "softkill"
        return json.dumps(envelope).encode()

    net = scene.stack.enter_context(network(scene.site.url))
    net.change = ordering
    scene.url = net.url


def _kill_file(scene: Scene, pilot: Pilot) -> None:
    (scene.rundir / "pilot_kill_payload").touch()


FAULTS = (
    refused("a field of the definition has the wrong type", "coreCount `many`", C.CONVERSIONFAILURE, "server",
            "coreCount", coreCount="many", shell=1),
    refused("a field of the definition is missing", "a definition without transformation", C.NOTDEFINED, "pilot",
            "transformation", transformation=None, shell=1),
    refused("lists of the definition differ in length", "three endpoints for an output and a log", C.NOTSAMELENGTH,
            "server", "ddmEndPointOut", outFiles="a.txt,{}", ddmEndPointOut="A,B,C", shell=1, log=False),
    refused("a name in the definition leads out of the directory", "scopeOut ../../..", C.CONVERSIONFAILURE, "server",
            "scopeOut", outFiles="a.txt,{}", scopeOut="../../..", shell=1),
    refused("an output's name has characters that no storage takes", "outFiles `$(id).txt`", C.BADOUTPUTFILENAME,
            "user", "outFiles", outFiles="$(id).txt,{}"),
    refused("an output's name is too long", "300 characters", C.LFNTOOLONG, "user", "outFiles",
            outFiles="x" * 300 + ",{}"),
    refused("the parameters lay something over the queue that is no JSON", "--overwriteQueueData={{ cut off",
            C.CONVERSIONFAILURE, "server", "overwriteQueueData", jobPars='--overwriteQueueData={{"maxwdir":', shell=1),
    refused("the parameters lay something wrong over the queue", "maxwdir `many` in --overwriteQueueData",
            C.QUEUEDATANOTOK, "site", "maxwdir", jobPars='--overwriteQueueData={{"maxwdir":"many"}}', shell=72),
    Fault("the transformation is no command of the node", "no-such-command-anywhere", C.TRANSFORMNOTFOUND, "user",
          BY_START, ("no-such-command-anywhere",), job={"transformation": "no-such-command-anywhere"}),
    Fault("the transformation may not be fetched from there", "an address that is below no base URL",
          C.TRFDOWNLOADFAILURE, "server", BY_START, ("base URL",), before=definition_with(
              transformation="http://127.0.0.1:1/evil/run.sh"), shell=1),
    Fault("the inputs are too large together", "20 MB of input, maxinputsize 10", C.SIZETOOLARGE, "user", BY_STAGEIN,
          ("the input files have 20000000 bytes, the queue allows 10485760",),
          job={"inputs": [{"lfn": "big.root", "scope": "mc", "endpoint": "TEST_DISK", "fsize": 20_000_000,
                           "checksum": "ad:00000001", "guid": "6cca2449-024a-46eb-9bc1-e98a1cefaaf8"}]},
          queue={"maxinputsize": 10}),
    Fault("the job is killed on request", "`pilotkit kill` while it runs", C.PANDAKILL, "user", BY_SERVER,
          ("the server ordered it (tobekilled)",), "exec sleep 60", settings=HASTY, during=_kill_order),
    Fault("the job is to end softly", "`softkill` in the answer to a heartbeat", C.PANDAKILL, "user", BY_SERVER,
          ("the server ordered it (softkill)",), "exec sleep 60", settings=HASTY, before=_softkill),
    Fault("a kill file is made", "`touch pilot_kill_payload` in the run directory", C.KILLPAYLOAD, "user", BY_KILL_FILE,
          ("pilot_kill_payload is there",), "exec sleep 60", settings=HASTY, during=_kill_file),
)  # fmt: skip
