"""Images that are addresses: fetched from their registry into a file before the payload's container is started.

A step of its own has its own time limit and its own error, and the payload's container never sees the registry's
password.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.control.context import Context
from pilot.control.jobrun import JobRun
from pilot.util.container import fetch_error, runtime_environment
from pilot.util.filehandling import remove_tree, tail_bytes
from pilot.util.https import is_loopback

_ADDRESS = re.compile(r"(docker|oras|library|shub|https?)://\S+\Z")
# How often a fetch is looked at whether it has to end (s).
_LOOK = 0.2
# Time for a fetch to clean up after itself (s).
_GRACE = 2.0
# So much of what a fetch says is looked through (bytes).
_OUTPUT_TAIL = 65536


def check_prefix(image: str, prefixes: str) -> None:
    """Raises PilotException(QUEUENOTSETUPFORCONTAINERS) when an image is none of those that the site allows.

    prefixes: of the settings, separated by commas; empty allows all.
    """
    allowed = [prefix.strip() for prefix in prefixes.split(",") if prefix.strip()]
    # A path must not climb out of what it begins with.
    name = image if is_address(image) else os.path.normpath(image)
    if allowed and (".." in name.split("/") or not name.startswith(tuple(allowed))):
        text = f"image {image} is none of those that this site allows (image_prefixes: {', '.join(allowed)})"
        raise PilotException(text, code=ErrorCodes.QUEUENOTSETUPFORCONTAINERS)


def is_address(image: str) -> bool:
    """Whether an image is to be fetched first."""
    return "://" in image


def fetch_image(context: Context, run: JobRun, runtime: str, image: str) -> Path:
    """The file of an image that is an address; it is fetched unless an earlier job has had it fetched.

    Plain http is for this node only. Raises PilotException: IMAGENOTFOUND, NOLOCALSPACE, SINGULARITYGENERALFAILURE
    (registry, network, time limit, or the job was ended meanwhile).
    """
    if not _ADDRESS.match(image):
        text = f"image {image!r} is no address that a container runtime knows (docker://, oras://, library:// ...)"
        raise PilotException(text, code=ErrorCodes.IMAGENOTFOUND)
    if image.startswith("http://") and not is_loopback(image):
        text = f"image {image} would be fetched without TLS, so that anybody on the way could change it: use https"
        raise PilotException(text, code=ErrorCodes.IMAGENOTFOUND)
    settings = context.settings.container
    cache = Path(settings.image_cache or context.workdir / "images")
    path = cache / f"{hashlib.sha256(image.encode()).hexdigest()[:32]}.sif"
    if path.is_file():
        context.log.info("job %s: image %s is there already: %s", run.jobid, image, path)
        return path
    try:
        cache.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix="fetch-", dir=cache))
    except OSError as exc:
        text = f"no place for image {image} in {cache}: {exc.strerror}"
        raise PilotException(text, code=ErrorCodes.SINGULARITYGENERALFAILURE) from exc
    try:
        _fetch(context, run, _command(runtime, image, scratch / "image.sif"), image, scratch)
        # Whoever looks for the image finds all of it, or nothing.
        os.replace(scratch / "image.sif", path)
    except OSError as exc:
        text = f"image {image} cannot be kept in {cache}: {exc.strerror}"
        raise PilotException(text, code=ErrorCodes.SINGULARITYGENERALFAILURE) from exc
    finally:
        remove_tree(scratch)
    return path


def _command(runtime: str, image: str, path: Path) -> list[str]:
    command = [runtime, "--silent", "pull", "--disable-cache"]
    # Plain http stays on the node.
    if is_loopback(f"http://{urlsplit(image).netloc}"):
        command.append("--no-https")
    return [*command, str(path), image]


def _fetch(context: Context, run: JobRun, command: Sequence[str], image: str, scratch: Path) -> None:
    variables = runtime_environment(context.environ, fetches=True)
    variables.update(APPTAINER_TMPDIR=str(scratch), SINGULARITY_TMPDIR=str(scratch))
    if not Path(variables.get("HOME", "/"), ".apptainer").is_dir():
        # It would make one there. One that is there may know how to log in to the registry.
        variables.setdefault("APPTAINER_CONFIGDIR", str(scratch))
    limit = context.settings.container.image_limit
    context.log.info("job %s: fetching image: %s", run.jobid, " ".join(command))
    started = time.monotonic()
    with (scratch / "log").open("wb") as log:
        guarded = context.launcher.start(command, cwd=scratch, env=variables, stdout=log, stderr=log)
    stopped = ""
    # Neither the end of a process nor an event can be waited for together with the other.
    while not stopped and not guarded.is_ending(_LOOK):
        if run.cancel_payload.is_set():
            stopped = "the job was ended"
        elif time.monotonic() - started > limit:
            stopped = f"it takes longer than {limit:.0f} s (image_limit)"
    if stopped:
        guarded.stop(_GRACE)
    outcome = guarded.wait()
    said = tail_bytes(scratch / "log", _OUTPUT_TAIL).decode("utf-8", "replace")
    if stopped:
        text = f"image {image} was not fetched: {stopped}"
        raise PilotException(text, code=ErrorCodes.SINGULARITYGENERALFAILURE)
    if outcome.exit_code != 0:
        raise fetch_error(image, said, outcome.ending)
    context.log.info("job %s: image fetched in %.1f s", run.jobid, time.monotonic() - started)
