"""What both scripts do: read a request, move its files with a client, write the result."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from pilot import __version__
from pilot.api.auto import TOOLS_OF_ANY_NODE
from pilot.api.data import StageInClient, StageOutClient, Tools
from pilot.api.staging import StagingClient
from pilot.common.exception import PilotException
from pilot.scripts.request import Request, Result, read_request, write_text
from pilot.util import config
from pilot.util.guarded import Launcher, become_subreaper
from pilot.util.logs import BlottingFormatter

FAILED, BAD_REQUEST = 1, 2


def main(client: type[StageInClient] | type[StageOutClient], argv: Sequence[str] | None = None) -> int:
    """Run one script; returns its exit code: 0 all files were moved, 1 a transfer failed, 2 the request is wrong."""
    reads = client is StageInClient
    args = _parser(reads).parse_args(argv)
    level = logging.DEBUG if args.debug else logging.WARNING if args.quiet else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(BlottingFormatter("%(asctime)s | %(levelname)-8s | %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    cancel = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: cancel.set())
    become_subreaper()
    try:
        request = read_request(args.files, args.queuedata, args.storagedata, "input" if reads else "output")
        made = _client(client, args, request, cancel)
    except (PilotException, config.SettingsError) as exc:
        logging.error("%s", getattr(exc, "diag", exc))
        return BAD_REQUEST
    result = _move(made, args, request)
    try:
        write_text(args.result, json.dumps(result.as_json(), indent=1) + "\n")
    except OSError as exc:
        logging.error("the result cannot be written to %s: %s", args.result, exc.strerror)
        return FAILED
    return FAILED if result.error else 0


def _parser(reads: bool) -> argparse.ArgumentParser:
    name, way = ("stagein", "in from") if reads else ("stageout", "out to")
    parser = argparse.ArgumentParser(
        prog=f"python -m pilot.scripts.{name}",
        description=f"Bring files {way} storage, verified, as a pilot does.",
        epilog="docs/copytools.md describes the request and the result. Exit code: 0 all files were moved, "
        "1 a transfer failed, 2 the request is wrong.",
    )
    add = parser.add_argument
    add("files", help='the request: a JSON file with {"files": [{"lfn": ..., "surl": ...}, ...]}, or - for stdin')
    add("--result", default="-", help="where the result goes, as JSON (default: stdout)")
    add("--workdir", default=".", help="directory of the files on this node (default: the current one)")
    add("--queuedata", default="", help="JSON file with the queue's description, instead of the request's `queue`")
    add("--storagedata", default="", help="JSON file with descriptions of storages, instead of `storages`")
    add("--copytools", default="", help="copytools in their order, by commas (default: the queue's, else all)")
    add("--activity", default="", help="activities by which storages and copytools are chosen, by commas")
    if reads:
        add("--input-dir", default="", help="take all files from this directory")
        add("--use-vp", action="store_true", help="for a job of virtual placement")
    else:
        add("--output-dir", default="", help="put all files into this directory")
        add("--attempts", type=int, default=1, help="how often the places are gone through (1)")
        add("--may-replace", action="store_true", help="files at the destination may be overwritten")
    add("--config", default="", help="configuration file over default.cfg")
    add("--capath", default="", help="directory with CA certificates")
    add("-d", "--debug", action="store_true", help="debug log")
    add("--quiet", action="store_true", help="log only what went wrong")
    add("--version", action="version", version=f"pilotkit {__version__}")
    return parser


def _client(
    client: type[StageInClient] | type[StageOutClient],
    args: argparse.Namespace,
    request: Request,
    cancel: threading.Event,
) -> StagingClient:
    settings = config.read(args.config)
    return client(
        request.infosys,
        acopytools=args.copytools.split(",") if args.copytools else [] if request.described else TOOLS_OF_ANY_NODE,
        settings=settings.file,
        catalogue=settings.rucio,
        workdir=Path(args.workdir).absolute(),
        tools=Tools(Launcher(), dict(os.environ), args.capath, request.key_pair if request.keys else None),
        cancel=cancel,
        may_replace=getattr(args, "may_replace", False),
    )


def _move(client: StagingClient, args: argparse.Namespace, request: Request) -> Result:
    activities = args.activity.split(",") if args.activity else None
    error = None
    try:
        if isinstance(client, StageInClient):
            client.transfer(request.files, activities, input_dir=args.input_dir, use_vp=args.use_vp)
        elif isinstance(client, StageOutClient):
            client.transfer(request.files, activities, output_dir=args.output_dir, attempts=args.attempts)
    except PilotException as exc:
        logging.error("%s", exc.diag)
        error = exc
    return Result(request.files, client.attempts, error)
