"""Under an ARC computing element: the pilot leaves its outputs where it was started, and ARC uploads them.

The queue says so with `copytools: {"mv": {"output_list": true}}`. ARC reads `output.list` (which file goes where), and
its control tower `OutputFiles.xml` (what is known of each file).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pilot.api.data import StageOutClient
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import FileHandlingFailure, PilotException
from pilot.copytool.mv import create_output_list
from pilot.info.filespec import FileSpec
from pilot.info.infoservice import InfoService
from pilot.info.queuedata import QueueData
from pilot.util.filehandling import write_atomically

_OUTPUT_FILES = "OutputFiles.xml"


def uploads(queue: QueueData) -> bool:
    """Whether ARC takes the outputs of this queue's jobs to storage."""
    options = queue.copytools.get("mv")
    return isinstance(options, dict) and str(options.get("output_list", "")).lower() in ("true", "yes", "1")


def destinations(
    client: StageOutClient, files: Sequence[FileSpec], activities: Sequence[str]
) -> dict[str, tuple[str, str]]:
    """(endpoint, URL) for each file by LFN: the preferred storage, and its first protocol that is not a local path.

    Raises PilotException: NOSTORAGE, NOSTORAGEPROTOCOL, NONDETERMINISTICDDM.
    """
    found = {}
    for spec in files:
        ways = [way for ways in client.ways(spec, activities) for way in ways]
        if not ways:
            storages = ", ".join(client.endpoints(spec, activities))
            text = f"storage {storages} has no protocol for {activities[0]}, so that ARC could not upload {spec.lfn}"
            raise PilotException(text, code=ErrorCodes.NOSTORAGEPROTOCOL)
        best = next((way for way in ways if not way.surl.startswith(("file:", "/"))), ways[0])
        found[spec.lfn] = (best.endpoint, best.surl)
    return found


def hand_over(
    files: Sequence[FileSpec], places: Mapping[str, tuple[str, str]], rundir: Path, infosys: InfoService
) -> None:
    """List files that lie in `rundir` now, and note where they will be. Raises PilotException."""
    for spec in files:
        spec.ddmendpoint, spec.surl = places[spec.lfn]
        spec.turl = spec.surl
    storages = {spec.ddmendpoint: infosys.storage(spec.ddmendpoint) for spec in files}
    create_output_list(files, str(rundir), storages)


def describe(files: Sequence[FileSpec], rundir: Path) -> None:
    """Write OutputFiles.xml about the files that are handed over. Raises FileHandlingFailure."""
    # Queues without ARC do not need it.
    from xml.etree import ElementTree

    root = ElementTree.Element("outfiles")
    now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    for spec in files:
        # What was left in the directory by a stage-out that failed is not handed over.
        if spec.status != "transferred" or Path(spec.surl).parent == rundir:
            continue
        entry = ElementTree.SubElement(root, "file")
        sums = {"ad32" if kind == "adler32" else kind: value for kind, value in spec.checksum.items()}
        facts = {"surl": spec.surl, "lfn": spec.lfn, "dataset": spec.dataset, "date": now, "guid": spec.guid}
        for name, value in {**sums, **facts, "size": str(spec.filesize)}.items():
            ElementTree.SubElement(entry, name).text = value
    path = rundir / _OUTPUT_FILES
    try:
        write_atomically(path, b'<?xml version="1.0" ?>\n' + ElementTree.tostring(root) + b"\n")
    except OSError as exc:
        raise FileHandlingFailure(f"{path} cannot be written: {exc.strerror}") from exc
