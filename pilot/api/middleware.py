"""Stage-in and stage-out inside a middleware container: the scripts of pilot.scripts, run where the tools are.

A queue asks for it with `<runtime>:middleware` in its container_type. The pilot writes a request, the script in the
container answers with a result, and both pilot and log know of the files what they would know without the container.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from pilot.api.attempts import Attempt
from pilot.api.staging import StagingClient
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import ConversionFailure, FileHandlingFailure, PilotException
from pilot.copytool.errors import Kind, TransferError
from pilot.copytool.runner import OUTPUT_LIMIT, SAMPLE, STOP_GRACE, Stop, look
from pilot.info.filespec import FileSpec, parse_checksum
from pilot.info.queuedata import QueueData
from pilot.scripts.request import request_json
from pilot.util.config import ContainerSettings, FileSettings, RucioSettings
from pilot.util.container import Bind, Container, check_image, container_environment, container_error, find_runtime
from pilot.util.credentials import STORAGE_VARIABLES
from pilot.util.filehandling import tail_bytes
from pilot.util.https import Json, parse_json
from pilot.util.processes import sample_tree
from pilot.util.watch import Limits, Watch

# Who a queue's container_type means by this.
WHO = "middleware"
# Where the pilot's own package is seen in the container.
_INSIDE = Path("/pilotkit")
_PACKAGE = Path(__file__).resolve().parents[1]
# The script watches its transfers itself; the pilot steps in when it fails to, so much later (s).
_LATER = 60.0
# So much of what the script says goes into the pilot's log (bytes), and no result is longer.
_LOG_TAIL, _RESULT_LIMIT = 64 * 1024, 256 * 2**20
# Variables of the node that transfer tools in the container need: where certificates are, and how patient to be.
_VARIABLES = frozenset({*STORAGE_VARIABLES, "X509_CERT_DIR", "X509_VOMS_DIR", "LANG", "SITE_NAME"})
_PREFIXES = ("XRD_", "RUCIO_", "AWS_", "STORAGE_EMULATOR_", "GFAL_")


@dataclass(frozen=True)
class Middleware:
    """container: what the scripts run in; python: the Python in it, with requests."""

    container: Container
    python: str


def middleware_of(queue: QueueData, settings: ContainerSettings, environ: Mapping[str, str]) -> Middleware | None:
    """The container in which a queue wants transfers to run; None when it wants none.

    Raises PilotException: NOTIMPLEMENTED, SINGULARITYNOTINSTALLED, APPTAINERNOTINSTALLED, IMAGENOTFOUND.
    """
    runtime = queue.container_type.get(WHO)
    if runtime is None:
        return None
    image = queue.catchall_value("middleware_image") or settings.middleware_image
    where = f"middleware container of queue {queue.name}: middleware_image in its catchall, or in [Container]"
    check_image(image, where)
    try:
        options = shlex.split(queue.container_options)
    except ValueError as exc:
        text = f"queue {queue.name}: container_options {queue.container_options!r} cannot be understood: {exc}"
        raise PilotException(text, code=ErrorCodes.BADQUEUECONFIGURATION) from exc
    return Middleware(Container(find_runtime(runtime, environ), image, tuple(options)), settings.middleware_python)


def transfer_inside(
    middleware: Middleware,
    client: StagingClient,
    files: Sequence[FileSpec],
    activities: Sequence[str],
    *,
    folder: str = "",
    attempts: int = 1,
    use_vp: bool = False,
) -> None:
    """Move files as client.transfer does, inside the container; files and the client's attempts tell what came of it.

    folder: take them from, or put them into, this directory instead of storage. use_vp: as StageInClient has it.
    Raises PilotException.
    """
    try:
        exchange = Path(tempfile.mkdtemp(prefix=".middleware-", dir=client.workdir))
    except OSError as exc:
        raise FileHandlingFailure(f"no directory for the middleware container: {exc.strerror}") from exc
    try:
        _write_request(exchange, client, files)
        options = ["--activity", ",".join(activities), "--config", str(exchange / "settings.cfg")]
        if folder:
            options += ["--input-dir" if client.reads else "--output-dir", folder]
        if use_vp:
            options += ["--use-vp"]
        if not client.reads:
            options += ["--attempts", str(attempts), *(["--may-replace"] if client.may_replace else [])]
        script = "stagein" if client.reads else "stageout"
        request, result = exchange / "request.json", exchange / "result.json"
        words = [
            middleware.python, "-m", f"pilot.scripts.{script}", str(request), "--result", str(result),
            "--workdir", str(client.workdir), *options,
        ]  # fmt: skip
        ending = _run(middleware, client, words, exchange, folder)
        said = tail_bytes(exchange / "log", _LOG_TAIL).decode("utf-8", "replace")
        for line in said.splitlines():
            client.logger.info("in the container: %s", "".join(c if c.isprintable() else "?" for c in line))
        if not result.is_file():
            raise _failure(middleware, said, ending)
        attempts_made, error = _take_result(files, result)
        client.adopt(files, attempts_made)
        if error is not None:
            raise error
    finally:
        shutil.rmtree(exchange, ignore_errors=True)


def _write_request(exchange: Path, client: StagingClient, files: Sequence[FileSpec]) -> None:
    queue = client.infosys.queuedata
    named = {name for table_ in queue.astorages for name in queue.activity_list("astorages", (table_,))}
    named |= {spec.ddmendpoint for spec in files} | {one.ddmendpoint for spec in files for one in spec.replicas}
    # The experiment's other storages, thousands perhaps, are none of this job's business.
    storages = {name: raw for name, raw in client.infosys.raw_storages.items() if name in named}
    request = request_json(files, client.infosys.raw_queue, storages)
    try:
        (exchange / "request.json").write_text(json.dumps(request), encoding="utf-8")
        (exchange / "settings.cfg").write_text(_settings_text(client), encoding="utf-8")
    except OSError as exc:
        raise FileHandlingFailure(f"the request for the middleware container: {exc.strerror}") from exc


def _settings_text(client: StagingClient) -> str:
    """The settings in force, as a configuration file. The traces are the pilot's, which knows the job."""
    sections: dict[str, FileSettings | RucioSettings] = {
        "File": client.settings,
        "Rucio": replace(client.catalogue, traces=False, trace_file=""),
    }
    return "".join(
        f"[{name}]\n" + "".join(f"{item.name} = {getattr(settings, item.name)}\n" for item in fields(settings))
        for name, settings in sections.items()
    )


def _run(middleware: Middleware, client: StagingClient, words: Sequence[str], exchange: Path, folder: str) -> str:
    """Run the script; return how it ended. Raises PilotException when it was stopped and has no result."""
    environ = client.tools.environ
    inside = {n: v for n, v in environ.items() if v and (n in _VARIABLES or n.startswith(_PREFIXES))}
    inside.update({"PYTHONPATH": str(_INSIDE), "TMPDIR": str(exchange), "HOME": str(exchange)})
    # What is on a node in PATH is not what is in the container.
    binds = [*_binds(client.workdir, folder, inside), *_own_binds()]
    command = middleware.container.command(words, binds, client.workdir)
    limits = Limits(2 * client.settings.transfer_stall + _LATER, float("inf"), 1.0)
    with (exchange / "log").open("wb") as output:
        guarded = client.tools.launcher.start(
            command, cwd=client.workdir, env=container_environment(environ, inside), stdout=output, stderr=output
        )
        watch, stop = Watch(limits, 0, time.monotonic()), None
        transfer = client.transfer_arguments("")
        while not guarded.is_ending(SAMPLE):
            sample = sample_tree(guarded.guard_pid)
            stop = look(transfer, watch, sample.rchar + sample.wchar)
            if stop is None and os.fstat(output.fileno()).st_size > OUTPUT_LIMIT:
                stop = Stop("the script writes messages without end")
            if stop is not None:
                guarded.stop(STOP_GRACE)
                break
        outcome = guarded.wait()
    # One that was stopped may have had the time to write what it has.
    if stop is not None and not (exchange / "result.json").exists():
        kind = Kind.CANCELLED if stop.cancelled else Kind.STALLED
        raise TransferError(f"the middleware container was stopped: {stop.text}", kind, read=client.reads)
    return f"signal {outcome.signal}" if outcome.exit_code is None else f"exit code {outcome.exit_code}"


def _binds(workdir: Path, folder: str, inside: Mapping[str, str]) -> list[Bind]:
    """The job's directory, and what variables lead to: credentials and certificates."""
    found = [Bind(workdir, writable=True)]
    if folder and Path(folder).is_dir():
        found.append(Bind(Path(folder), writable=True))
    leads_to = ("X509_USER_PROXY", "X509_USER_CERT", "X509_USER_KEY", "X509_CERT_DIR", "X509_VOMS_DIR",
                "BEARER_TOKEN_FILE", "RUCIO_CONFIG")  # fmt: skip
    paths = {Path(inside[name]) for name in leads_to if inside.get(name)}
    return [*found, *(Bind(path) for path in sorted(paths) if path.exists() and workdir not in path.parents)]


def _own_binds() -> list[Bind]:
    """The pilot's package and its settings, without what lies beside it on the node."""
    settings = _PACKAGE.parent / "default.cfg"
    found = [Bind(_PACKAGE, _INSIDE / "pilot")]
    return [*found, Bind(settings, _INSIDE / "default.cfg")] if settings.is_file() else found


def _failure(middleware: Middleware, said: str, ending: str) -> PilotException:
    """What kept the script from writing a result. said: the last words of runtime and script."""
    no_python = rf"stat {re.escape(middleware.python)}: no such file|executable file not found|No module named"
    if re.search(no_python, said):
        text = f"the middleware container has no {middleware.python} of 3.9 or later with requests"
        return PilotException(f"{text} ({ending}: {said[-160:].strip()})", code=ErrorCodes.MIDDLEWAREIMPORTFAILURE)
    return container_error(said, ending)


def _take_result(files: Sequence[FileSpec], path: Path) -> tuple[list[Attempt], PilotException | None]:
    """Write a result into the files; return its attempts, and the error that it tells of. Raises ConversionFailure."""
    try:
        with path.open("rb") as stream:
            result = parse_json(stream.read(_RESULT_LIMIT))
        if not isinstance(result, dict):
            raise ValueError("no object")
        _note_files(files, result)
        return [_attempt(row) for row in _list(result, "attempts")], _error(result.get("error"))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ConversionFailure(f"the result of the middleware container cannot be read: {exc}") from exc


def _error(told: Json) -> PilotException | None:
    return PilotException(str(told["text"]), code=int(str(told["code"]))) if isinstance(told, dict) else None


def _list(result: Mapping[str, Json], name: str) -> list[dict[str, Json]]:
    listed = result[name]
    if not isinstance(listed, list):
        raise TypeError(f"{name} is no list")
    return [item for item in listed if isinstance(item, dict)]


def _note_files(files: Sequence[FileSpec], result: Mapping[str, Json]) -> None:
    told = {item["lfn"]: item for item in _list(result, "files")}
    for spec in files:
        item = told[spec.lfn]
        for name in ("status", "surl", "turl", "ddmendpoint"):
            setattr(spec, name, str(item[name]))
        spec.filesize = int(str(item["filesize"]))
        checksum = item["checksum"]
        if isinstance(checksum, dict):
            spec.checksum = {
                k: v for n, c in checksum.items() for k, v in parse_checksum(f"{n}:{c}", "checksum").items()
            }


def _attempt(row: Mapping[str, Json]) -> Attempt:
    empty = Attempt("", "", 0, "", "", "", "", 0, 0.0)
    return replace(empty, **{name: type(value)(row[name]) for name, value in asdict(empty).items()})
