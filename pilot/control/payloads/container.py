"""A payload's container: what is seen in it, the command that starts it, and whether the payload ever began.

The first thing that runs in a container is a script of the pilot's. It makes a mark: it writes to a pipe that it found
open, and closes it. Without the mark nothing of the payload has run, and the failure is the site's (promise U4).
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.control.context import Context
from pilot.control.jobrun import JobRun
from pilot.control.payloads.images import check_prefix, fetch_image, is_address
from pilot.info.filespec import REMOTE_IO, FileSpec
from pilot.util.container import (
    Bind,
    Container,
    Runtime,
    container_error,
    find_runtime,
    parse_bind,
    runtime_environment,
    site_wishes,
)
from pilot.util.credentials import SECRET_VARIABLES
from pilot.util.filehandling import remove_tree, write_atomically
from pilot.util.guard import MARK
from pilot.util.guarded import GuardedProcess, Outcome
from pilot.util.payloadgroup import PayloadGroup

# Runs the payload in the container; it stays in the log tarball, so that a user can do the same at home. Commands
# around the payload have a script each, with their own name in the place of "container".
SCRIPT = "container_script.sh"
# By whom a queue says that containers are run.
_PILOT = "pilot"
_SCRIPT = """#!/bin/sh
# Written by the pilot: this is what ran in the container, after the mark that it has started.
{{ echo started >&{mark}; }} 2>/dev/null
exec {mark}>&-
{exports}
shell=/bin/sh
for better in /bin/bash /usr/bin/bash; do
    if [ -x "$better" ]; then shell=$better; fi
done
exec "$shell" -c {command}
"""


class PayloadContainer:
    """The container of one payload, or of one command around it."""

    def __init__(self, context: Context, run: JobRun, label: str = "", links: Sequence[Bind] = ()) -> None:
        """Find runtime and image. label: of a command around the payload, empty for the payload itself. links: what
        links in the job's directory led to before anything of the job had run (linked_files).

        Raises PilotException when the job cannot have what it, or its queue, asks for.
        """
        self._context = context
        self._job = run
        queue, settings = run.infosys.queuedata, context.settings.container
        name = queue.container_type.get(_PILOT) or settings.type
        self.image = str(context.plugins.hook("container", "get_image")(**_question(context, run)))
        if not name:
            text = f"the job asks for image {self.image}, and the queue's container_type lets nobody run containers"
            raise PilotException(f"{text} (singularity:pilot does)", code=ErrorCodes.QUEUENOTSETUPFORCONTAINERS)
        path = find_runtime(name, context.environ, settings.runtime)
        known = context.runtime
        self.runtime = known if known is not None and known.path == path else Runtime(path)
        check_prefix(self.image, settings.image_prefixes)
        self.workdir = Path(settings.workdir)
        # What a runtime unpacks lies beside the job's directory: it is no file of the job's.
        self._scratch = context.workdir / f"container-{run.jobid}{label and '-'}{label}"
        self._label = label
        self._links = links
        self.script = SCRIPT.replace("container", label) if label else SCRIPT
        self._mark = -1
        self._timed_out = False

    @staticmethod
    def is_wanted(context: Context, run: JobRun) -> bool:
        """Whether a job's payload runs in a container at all."""
        use = context.plugins.hook("container", "do_use_container")
        return bool(use(**_question(context, run)))

    def prepare(self, command: str, env: Mapping[str, str]) -> list[str]:
        """Write the script that runs `command` with the environment `env`, and return the command of the container.

        An image that is an address is fetched. Raises PilotException, OSError.
        """
        run, context = self._job, self._context
        run.inside.mkdir(exist_ok=True)
        self._scratch.mkdir(exist_ok=True)
        image = self.image
        if is_address(image):
            image = str(fetch_image(context, run, self.runtime.path, image))
        exports = "\n".join(f"export {name}={shlex.quote(self._inside(value))}" for name, value in env.items())
        script = _SCRIPT.format(mark=MARK, exports=exports, command=shlex.quote(command))
        # What has run before may have left a link there.
        write_atomically(run.workdir / self.script, script.encode("utf-8", "surrogateescape"))
        binds, options = self._site()
        container = Container(self.runtime.path, image, tuple(options))
        inside = shlex.join(["/bin/sh", str(self.workdir / self.script)])
        wrap = context.plugins.hook("container", "wrapper")
        wrapped = str(wrap(inside, container=container, binds=binds, workdir=self.workdir, job=run.data))
        context.log.info("job %s: container command: %s", run.jobid, wrapped)
        context.recorder.decision("container", job=run.jobid, image=self.image, command=wrapped)
        return shlex.split(wrapped)

    def launch(
        self, command: list[str], stdout: IO[bytes], stderr: IO[bytes], group: PayloadGroup | None = None
    ) -> GuardedProcess:
        """Start the runtime with a pipe for the mark, in a control group if one is given. Raises as Launcher.start."""
        self._mark, write_end = os.pipe()
        try:
            return self._context.launcher.start(
                command,
                cwd=self._scratch,
                env=self.environment(),
                stdout=stdout,
                stderr=stderr,
                mark=write_end,
                group=group,
            )
        except PilotException:
            os.close(self._mark)
            raise
        finally:
            os.close(write_end)

    def environment(self) -> dict[str, str]:
        """The runtime's own environment: nothing that leads to the pilot's credentials."""
        variables = runtime_environment(self._context.environ, self._scratch)
        for name in [name for name in variables if name.endswith(("_BIND", "_BINDPATH"))]:
            variables[name] = ",".join(one for one in variables[name].split(",") if self._may_be_seen(one))
        return variables

    def await_payload(self, guarded: GuardedProcess) -> bool:
        """Wait for the mark; return whether it came. A runtime that takes too long is ended."""
        started, limit = time.monotonic(), self._context.settings.container.start_limit
        try:
            marked = guarded.has_marked(self._mark, limit)
        finally:
            os.close(self._mark)
        if marked:
            took = time.monotonic() - started
            self._context.log.info("job %s: the container runs, after %.3f s", self._job.jobid, took)
            self._context.recorder.decision("contained", job=self._job.jobid, seconds=round(took, 3))
        elif marked is None:
            self._timed_out = True
            guarded.kill()
        return bool(marked)

    def failure(self, outcome: Outcome, stderr: str) -> PilotException:
        """Why the payload never began. stderr: what the runtime has said."""
        if self._timed_out:
            limit = self._context.settings.container.start_limit
            text = f"the container had not started after {limit:.0f} s (start_limit) and was ended"
            return PilotException(f"{text}; {self.image}", code=ErrorCodes.SINGULARITYGENERALFAILURE)
        error = container_error(stderr, outcome.ending)
        return PilotException(f"{error.diag}; image {self.image}", code=error.code)

    def close(self) -> None:
        """Remove what the runtime has left."""
        problem = remove_tree(self._scratch)
        if problem:
            self._context.log.warning("job %s: %s could not be removed: %s", self._job.jobid, self._scratch, problem)

    def _inside(self, value: str) -> str:
        """A variable's value as it is right in the container."""
        outside = str(self._job.workdir)
        is_path = value == outside or value.startswith(f"{outside}/")
        return f"{self.workdir}{value[len(outside) :]}" if is_path else value

    def _site(self) -> tuple[list[Bind], list[str]]:
        """Binds and options: the job's directory, what settings and queue add, and what this node needs."""
        run, settings, log = self._job, self._context.settings.container, self._context.log
        queue = run.infosys.queuedata
        bindmounts = queue.catchall_value("bindmounts")
        wanted, options, refused = site_wishes(queue.container_options, settings.bind, bindmounts)
        if refused:
            log.warning("job %s: container_options of the queue: %s not taken", run.jobid, " ".join(refused))
        binds = [Bind(run.workdir, self.workdir, writable=True)]
        binds += [parse_bind(one) for one in wanted if self._may_be_seen(one)]
        inputs = [*self._links, *read_files(run.data.indata)]
        binds += [one for one in inputs if self._may_be_seen(str(one.outside))]
        own = ["--workdir", str(run.inside), *self.runtime.needs]
        gpu = gpu_option() if wants_gpu(run) else ""
        if wants_gpu(run) and not gpu:
            log.warning("job %s: a GPU is asked for, and this node shows none", run.jobid)
        return binds, [*own, *options, *([gpu] if gpu and gpu not in options else [])]

    def _may_be_seen(self, bind: str) -> bool:
        """Whether a bind shows nothing of the pilot's credentials; one that would is left out, and the log says so."""
        outside = Path(bind.partition(":")[0].strip()).resolve()
        for place in self._credentials():
            if outside == place or outside in place.parents:
                text = "job %s: %s is not seen in the container: the pilot's credentials lie in it (%s)"
                self._context.log.warning(text, self._job.jobid, outside, place)
                return False
        return True

    def _credentials(self) -> list[Path]:
        named = [value for name, value in self._context.environ.items() if name in SECRET_VARIABLES]
        usual = [f"/tmp/x509up_u{os.geteuid()}"]
        places = [Path(path) for path in (*named, *usual) if path.startswith("/") and os.path.exists(path)]
        return [path.resolve() for path in (*places, *self._context.keeper.places())]


def _question(context: Context, run: JobRun) -> dict[str, object]:
    """What the hooks are asked with."""
    queue = run.infosys.queuedata
    return {"job": run.data, "queuedata": queue, "default_image": context.settings.container.default_image}


def linked_files(workdir: Path, inside: Path) -> list[Bind]:
    """What links in the job's directory lead to outside of it, where the links look for it in the container.

    Inputs may be links: into a storage that is a directory of the node, or to a file that several jobs share. It must
    be asked before anything of the job runs: a link that the job itself makes may lead anywhere on the node.
    """
    found: dict[Path, Bind] = {}
    root = workdir.resolve()
    with os.scandir(workdir) as entries:
        for entry in entries:
            if not entry.is_symlink():
                continue
            target = Path(os.path.realpath(entry.path))
            if target.exists() and root not in target.parents:
                seen = Path(os.path.normpath(inside / os.readlink(entry.path)))
                found[seen] = Bind(target, seen)
    return list(found.values())


def read_files(indata: Sequence[FileSpec]) -> list[Bind]:
    """Files of the node that the payload reads where they lie (direct access to storage that is mounted)."""
    urls = [urlsplit(spec.turl) for spec in indata if spec.status == REMOTE_IO]
    paths = {Path(unquote(url.path)) for url in urls if url.scheme == "file"}
    return [Bind(path) for path in sorted(paths) if path.exists()]


def wants_gpu(run: JobRun) -> bool:
    """Whether queue or job is for GPUs: resource type, "gpu" in catchall, or an architecture with a GPU (after &)."""
    queue = run.infosys.queuedata
    return queue.resource_type.lower() == "gpu" or bool(queue.catchall_value("gpu")) or "&" in run.data.platform


def gpu_option(devices: Path = Path("/dev")) -> str:
    """The runtime's option for the GPUs that this node has; empty for none."""
    if (devices / "nvidiactl").exists():
        return "--nv"
    return "--rocm" if (devices / "kfd").exists() else ""
