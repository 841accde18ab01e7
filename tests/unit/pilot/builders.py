"""What many tests need: the project's settings, the facts recorded of an existing pilot, jobs and queues."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pilot.arguments import parse
from pilot.common.exception import CommunicationFailure
from pilot.control.context import Context
from pilot.control.jobrun import JobRun
from pilot.control.keeper import Keeper
from pilot.control.rules.slot import Deadline
from pilot.control.slot import Slot
from pilot.control.updates import Identity
from pilot.copytool.common import Transfer
from pilot.info.infoservice import InfoService, local
from pilot.info.jobdata import JobData
from pilot.util import config
from pilot.util.config import FileSettings
from pilot.util.guarded import Launcher
from pilot.util.https import Credentials, Json
from pilot.util.plugins import Plugins
from pilot.util.recorder import Recorder
from pilot.util.watch import Limits
from pilot.util.workernode import collect

# What is known of an existing pilot's traffic: names and types of all it sends, and definitions it was given.
GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "golden" / "existing_pilot.json").read_text(encoding="utf-8")
)

SETTINGS = config.read()

IDENTITY = Identity(
    site="SITE_QUEUE",
    node="slot1@node",
    scheduler="scheduler-1",
    gtag="http://gtag/1",
    versiontag="PR",
    batch_id="",
    cpu_model="AMD EPYC",
)

LOG = logging.getLogger("pilot.test")


def definition(**changes: Json) -> dict[str, Json]:
    """The recorded definition of a job with one output and a log, changed here and there; None takes a field out."""
    job: dict[str, Json] = {**GOLDEN["definitions"]["success"], **changes}
    return {name: value for name, value in job.items() if value is not None}


def with_inputs(count: int = 2, **changes: Json) -> dict[str, Json]:
    """A definition with input files in0.root, in1.root ... of the scope mc, each with its own size and checksum."""
    numbers = range(count)
    inputs: dict[str, Json] = {
        "inFiles": ",".join(f"in{n}.root" for n in numbers),
        "scopeIn": ",".join("mc" for _ in numbers),
        "GUID": ",".join(f"guid-{n}" for n in numbers),
        "fsize": ",".join(str(100 + n) for n in numbers),
        "checksum": ",".join(f"ad:0000000{n}" for n in numbers),
        "ddmEndPointIn": ",".join("SITE_DISK" for _ in numbers),
        "realDatasetsIn": ",".join(f"mc.ds{n}" for n in numbers),
    }
    return definition(**{**inputs, **changes})


def job_run(workdir: Path, **changes: Json) -> JobRun:
    """A job that was taken under the claim c1, with a heartbeat every half an hour."""
    return JobRun(JobData(definition(**changes)), workdir, local(), 1800.0, claim="c1")


def storage(root: Path, **changes: Json) -> dict[str, Json]:
    """The description of a storage that is a directory, which is made unless something is there."""
    if not root.exists():
        root.mkdir(parents=True)
    protocols: list[Json] = [{"endpoint": "file://localhost", "flavour": "local", "id": 1, "path": str(root)}]
    described: dict[str, Json] = {
        "state": "ACTIVE",
        "is_deterministic": True,
        "arprotocols": dict.fromkeys(("pr", "pw", "pl", "read_lan", "write_lan"), protocols),
    }
    return {**described, **changes}


def infosys(queue: dict[str, Json], storages: dict[str, Json]) -> InfoService:
    """The recorded queue with changes, and storages."""
    return InfoService.build({**GOLDEN["queue"], **queue}, storages)


def context(tmp_path: Path, *argv: str, environ: Mapping[str, str] = MappingProxyType({}), **changes: Any) -> Context:
    """What the controllers of a pilot share, made as the workflow makes it, in an empty run directory."""
    workdir = tmp_path / "pilotkit-1"
    workdir.mkdir(parents=True)
    made = Context(
        args=parse(["-q", "SITE_QUEUE", *argv]),
        settings=SETTINGS,
        environ=environ,
        rundir=tmp_path,
        workdir=workdir,
        node=collect(environ),
        identity=IDENTITY,
        infosys=infosys({}, {"SITE_DISK": storage(tmp_path / "store")}),
        plugins=Plugins("generic"),
        launcher=Launcher(),
        base_urls=("http://server:25080/trf",),
        started=time.time(),
        slot=Slot(
            time.time(), [Deadline(time.time() + parse(["-q", "SITE_QUEUE", *argv]).lifetime, "lifetime")], environ
        ),
        stopping=threading.Event(),
        fetch=no_fetch,
        keeper=Keeper(Credentials(), environ, SETTINGS.token, LOG),
        log=LOG,
        recorder=Recorder(None),
    )
    return replace(made, **changes)


def no_fetch(address: str) -> bytes:
    """The download of a pilot whose server is gone."""
    raise CommunicationFailure(f"{address} does not answer")


def file_settings(**changes: Any) -> FileSettings:
    """The project's settings for files, changed here and there."""
    return replace(SETTINGS.file, **changes)


def transfer(workdir: Path, **changes: Any) -> Transfer:
    """What a copytool is given beside the files. It stalls after 20 seconds unless a test says otherwise.

    It is that of a second attempt, which may replace what it finds.
    """
    made = Transfer(
        workdir, "adler32", lambda: False, LOG, {}, Limits(20.0, 60.0, 1e6), Launcher(), dict(os.environ), "", True
    )  # fmt: skip
    return replace(made, **changes)


@contextmanager
def deep_tree(root: Path, name: str, levels: int) -> Iterator[None]:
    """A directory with so many others of one name in each other, and a file of 100 kB in the last.

    It is removed by a tool that can: pytest itself would fail on it, in this run and in later ones.
    """
    here = os.getcwd()
    root.mkdir()
    try:
        os.chdir(root)
        for _ in range(levels):
            os.mkdir(name)
            os.chdir(name)
        Path("f").write_bytes(b"x" * 100_000)
        os.chdir(here)
        yield
    finally:
        os.chdir(here)
        subprocess.run(["rm", "-rf", str(root)], check=True)


def is_asleep(pid: int) -> bool:
    """Whether a process is the program `sleep`, and waits for its time."""
    try:
        name, state = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")[::2]
    except OSError:
        return False
    return name == "sleep" and state.split()[0] == "S"
