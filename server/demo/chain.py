"""What the demo submits: a queue, a storage, and two steps of jobs that run server/demo/payloads."""

from __future__ import annotations

import shlex
import sys
import tarfile
from pathlib import Path
from typing import Final

from server.cli.client import Json, Row

QUEUE: Final = "DEMO"
STORAGE: Final = "DEMO_DISK"
SCOPE: Final = "demo"
FIT_OUTPUTS: Final = ("zmass.root", "zmass.json", "zmass.png")

PAYLOADS: Final = Path(__file__).resolve().parent / "payloads"
# Activities a pilot or a server may ask about (wire.md, section 1), all with the same answer here.
QUEUE_ACTIVITIES: Final = ("pr", "pw", "pl", "read_lan", "write_lan", "default")
STORAGE_ACTIVITIES: Final = ("pr", "pw", "pl", "read_lan", "write_lan", "read_wan", "write_wan", "delete", "default")


def queue_description() -> dict[str, Json]:
    """{name: description} of the demo's panda queue, as schedconfig has it."""
    copytools: Json = {activity: ["mv"] for activity in QUEUE_ACTIVITIES}
    endpoints: Json = {activity: [STORAGE] for activity in QUEUE_ACTIVITIES}
    return {
        QUEUE: {
            "status": "online",
            "state": "ACTIVE",
            "corecount": 1,
            "maxrss": 2000,  # MB
            "maxwdir": 2000,  # MB
            "timefloor": 5,  # minutes in which a pilot asks for another job: enough for all of the demo
            "catchall": "mv_final_destination",  # existing pilots: mv writes to the storage, not beside the job
            "copytools": {"mv": {"setup": ""}},
            "acopytools": copytools,
            "astorages": endpoints,
        }
    }


def storage_description(folder: Path) -> dict[str, Json]:
    """{name: description} of a storage endpoint in a local folder, with the deterministic layout scope/xx/yy/LFN."""
    offers: Json = {
        activity: [{"endpoint": "file://localhost", "flavour": "local", "id": 1, "path": f"{folder}/"}]
        for activity in STORAGE_ACTIVITIES
    }
    return {
        STORAGE: {
            "id": 1,
            "name": STORAGE,
            "state": "ACTIVE",
            "site": QUEUE,
            "type": "SCRATCHDISK",
            "token": "",
            "is_deterministic": True,
            "arprotocols": offers,
            "rprotocols": {},
            "resource": {"endpoint": "file://localhost/", "bucket_id": 1, "id": 1},
        }
    }


def make_sandbox(path: Path) -> None:
    """Pack the payload scripts into a tar.gz file."""
    with tarfile.open(path, "w:gz") as tar:
        for script in sorted(PAYLOADS.glob("*.py")):
            tar.add(script, arcname=f"payloads/{script.name}")


def job_list(sandbox: str, events: int, count: int) -> list[Row]:
    """Both steps, as `pilotkit submit` takes them: `count` jobs of so many events each, and one that fits them all.

    The inputs of the last job are outputs of the others: it waits in `assigned` until they are there.
    """
    python = shlex.quote(sys.executable)  # this interpreter has numpy, uproot, iminuit and matplotlib
    common: Row = {"queue": QUEUE, "user": "demo", "scope": SCOPE, "sandbox": sandbox, "memory": 1000, "walltime": 300}
    lfns = [f"demo.zmumu._{number:06d}.root" for number in range(1, count + 1)]
    steps: list[Row] = []
    for number, lfn in enumerate(lfns, 1):
        command = f"{python} -m payloads.generate --events {events} --seed {number} events.root"
        output: Json = [{"local": "events.root", "lfn": lfn}]
        steps.append({**common, "name": f"generate-{number}", "command": command, "outputs": output})
    command = f"{python} -m payloads.fit %IN --name zmass"
    steps.append({**common, "name": "fit", "command": command, "inputs": [*lfns], "outputs": [*FIT_OUTPUTS]})
    return steps
