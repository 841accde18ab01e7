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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from pilot.api.attempts import Attempt
from pilot.api.staging import StagingClient
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import ConversionFailure, FileHandlingFailure, PilotException
from pilot.copytool.errors import Kind, TransferError
from pilot.copytool.runner import OUTPUT_LIMIT, SAMPLE, STOP_GRACE, Stop, look
from pilot.info.filespec import FileSpec, parse_checksum
from pilot.info.objectstore import all_key_names
from pilot.info.queuedata import QueueData
from pilot.scripts.request import Keys, request_json
from pilot.util.config import ContainerSettings, FileSettings, RucioSettings
from pilot.util.container import (
    Bind,
    Container,
    Runtime,
    check_image,
    container_environment,
    container_error,
    find_runtime,
    parse_bind,
    runtime_environment,
    site_wishes,
)
from pilot.util.credentials import SECRET_VARIABLES, STORAGE_VARIABLES, bucket_variables
from pilot.util.filehandling import tail_bytes, write_secret
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
# Those that name files.
_LEADING = (
    "X509_USER_PROXY", "X509_USER_CERT", "X509_USER_KEY", "X509_CERT_DIR", "X509_VOMS_DIR", "BEARER_TOKEN_FILE",
    "RUCIO_CONFIG", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
)  # fmt: skip
# Copytools that may need keys which the dispatcher has.
_WITH_KEYS = frozenset({"s3", "objectstore"})


@dataclass(frozen=True)
class Middleware:
    """container: what the scripts run in; python: the Python in it, with requests.

    binds: places of the node that the site wants to be seen in it; refused: options of the site that are not taken.
    """

    container: Container
    python: str
    binds: tuple[Bind, ...] = ()
    refused: tuple[str, ...] = ()


def middleware_of(
    queue: QueueData, settings: ContainerSettings, environ: Mapping[str, str], known: Runtime | None = None
) -> Middleware | None:
    """The container in which a queue wants transfers to run; None when it wants none.

    known: what is known of the node's runtime. Raises PilotException: NOTIMPLEMENTED, SINGULARITYNOTINSTALLED,
    APPTAINERNOTINSTALLED, IMAGENOTFOUND, BADQUEUECONFIGURATION.
    """
    wanted = queue.container_type.get(WHO)
    if wanted is None:
        return None
    image = queue.catchall_value("middleware_image") or settings.middleware_image
    where = f"middleware container of queue {queue.name}: middleware_image in its catchall, or in [Container]"
    check_image(image, where)
    path = find_runtime(wanted, environ, settings.runtime)
    runtime = known if known is not None and known.path == path else Runtime(path)
    bindmounts = queue.catchall_value("bindmounts")
    binds, options, refused = site_wishes(queue.container_options, settings.bind, bindmounts)
    container = Container(path, image, (*runtime.needs, *options))
    return Middleware(container, settings.middleware_python, tuple(parse_bind(one) for one in binds), tuple(refused))


def transfer_inside(
    middleware: Middleware,
    client: StagingClient,
    files: Sequence[FileSpec],
    activities: Sequence[str],
    *,
    scratch: Path,
    folder: str = "",
    attempts: int = 1,
    use_vp: bool = False,
) -> None:
    """Move files as client.transfer does, inside the container; files and the client's attempts tell what came of it.

    scratch: a directory out of the payload's sight: keys are in what pilot and script tell each other there, and
    payloads of the event service run meanwhile. folder: take the files from, or put them into, this directory instead
    of storage. use_vp: as StageInClient has it. Raises PilotException.
    """
    try:
        exchange = Path(tempfile.mkdtemp(prefix="middleware-", dir=scratch))
    except OSError as exc:
        raise FileHandlingFailure(f"no directory for the middleware container: {exc.strerror}") from exc
    try:
        tools = client.copytools(activities)
        if middleware.refused:
            client.logger.warning("container_options of the queue: %s not taken", " ".join(middleware.refused))
        _write_request(exchange, client, files, tools)
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
        ending = _run(middleware, client, words, exchange, folder, tools)
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


def _write_request(exchange: Path, client: StagingClient, files: Sequence[FileSpec], tools: Sequence[str]) -> None:
    queue = client.infosys.queuedata
    named = {name for table_ in queue.astorages for name in queue.activity_list("astorages", (table_,))}
    named |= {spec.ddmendpoint for spec in files} | {one.ddmendpoint for spec in files for one in spec.replicas}
    # The experiment's other storages, thousands perhaps, are none of this job's business.
    storages = {name: raw for name, raw in client.infosys.raw_storages.items() if name in named}
    keys = _keys(client, storages) if _WITH_KEYS & set(tools) else {}
    request = request_json(files, client.infosys.raw_queue, storages, keys)
    try:
        write_secret(exchange / "request.json", json.dumps(request).encode())
        (exchange / "settings.cfg").write_text(_settings_text(client), encoding="utf-8")
    except OSError as exc:
        raise FileHandlingFailure(f"the request for the middleware container: {exc.strerror}") from exc


def _keys(client: StagingClient, storages: Iterable[str]) -> Keys:
    """The keys of object stores that the dispatcher gives for these storages: the container cannot ask it."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    ask = client.tools.key_pair
    if ask is None:
        return found
    for storage in filter(None, map(client.infosys.known_storage, storages)):
        for names in all_key_names(storage):
            try:
                found[names.public, names.private] = ask(names.public, names.private)
            except PilotException as exc:
                # What needs them will say so; another place may do without.
                client.logger.warning("the dispatcher does not give key %s: %s", names.public, exc.diag)
    return found


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


def _run(
    middleware: Middleware,
    client: StagingClient,
    words: Sequence[str],
    exchange: Path,
    folder: str,
    tools: Sequence[str],
) -> str:
    """Run the script; return how it ended. Raises PilotException when it was stopped and has no result."""
    environ, image = client.tools.environ, middleware.container.image
    inside = _variables(environ, tools)
    inside.update({"PYTHONPATH": str(_INSIDE), "TMPDIR": str(exchange), "HOME": str(exchange)})
    own = [Bind(exchange, writable=True), *_binds(client, folder, inside), *_own_binds()]
    seen = {bind.inside or bind.outside for bind in own}
    binds = [*(bind for bind in middleware.binds if (bind.inside or bind.outside) not in seen), *own]
    # Python looks for modules where it starts (-m): in the job's directory they could be the payload's.
    command = middleware.container.command(words, binds, exchange)
    around = runtime_environment(environ, exchange, fetches="://" in image)
    client.logger.info("middleware container: %s", shlex.join(command))
    limits = Limits(2 * client.settings.transfer_stall + _LATER, float("inf"), 1.0)
    with (exchange / "log").open("wb") as output:
        guarded = client.tools.launcher.start(
            command, cwd=client.workdir, env=container_environment(around, inside), stdout=output, stderr=output
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
    return outcome.ending


def _variables(environ: Mapping[str, str], tools: Sequence[str]) -> dict[str, str]:
    """What of the node's environment gets into the container: not its PATH, and no key but for the tools in use.

    In there each tool is given its own alone (StagingClient.transfer_arguments).
    """
    keys = {name for tool in tools for name in bucket_variables(environ, tool)}
    free = {name for name in environ if name.startswith(_PREFIXES) and name not in SECRET_VARIABLES}
    return {name: environ[name] for name in _VARIABLES | keys | free if environ.get(name)}


def _binds(client: StagingClient, folder: str, inside: Mapping[str, str]) -> list[Bind]:
    """The job's directory, and what variables and the queue's options lead to: credentials and certificates."""
    found = [Bind(client.workdir, writable=True)]
    if folder and Path(folder).is_dir():
        found.append(Bind(Path(folder), writable=True))
    options = client.infosys.queuedata.copytools.values()
    named = [inside.get(name, "") for name in _LEADING]
    named += [str(one.get("secrets") or "") for one in options if isinstance(one, dict)]
    paths = {Path(path) for path in named if path.startswith("/")}
    outside = (path for path in sorted(paths) if path.exists() and client.workdir not in path.parents)
    return [*found, *(Bind(path) for path in outside)]


def _own_binds() -> list[Bind]:
    """The pilot's package and its settings, without what lies beside it on the node."""
    settings = _PACKAGE.parent / "default.cfg"
    found = [Bind(_PACKAGE, _INSIDE / "pilot")]
    return [*found, Bind(settings, _INSIDE / "default.cfg")] if settings.is_file() else found


def _failure(middleware: Middleware, said: str, ending: str) -> PilotException:
    """What kept the script from writing a result. said: the last words of runtime and script."""
    no_python = (
        rf"stat {re.escape(middleware.python)}: no such file|executable file not found|No module named|has no module"
    )
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
