"""Generic experiment: when a payload runs in a container, in which image, and how its command is written."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Union

from pilot.info.jobdata import JobData
from pilot.info.queuedata import QueueData
from pilot.util.container import Bind, Container, containerise_executable

# What the wrapper is called with by name: see there.
Argument = Union[JobData, QueueData, Container, Path, str, Sequence[Bind], None]


def do_use_container(**kwargs: Argument) -> bool:
    """Whether a payload runs in a container.

    job: its definition; queuedata: of the queue; default_image: of the settings. It does when the job names an image;
    one that names none runs in the queue's, or the settings', where the queue lets the pilot run containers.
    """
    return bool(get_image(**kwargs))


def get_image(**kwargs: Argument) -> str:
    """The image in which a payload runs, empty for none. The arguments are those of do_use_container.

    --containerImage in the job's parameters wins over containerImage in its containerOptions, and that over its
    container_name; default_image=PATH in the queue's catchall over the settings.
    """
    job, queue, default = kwargs.get("job"), kwargs.get("queuedata"), kwargs.get("default_image")
    named = ""
    if isinstance(job, JobData):
        named = job.imagename or job.containeroptions.get("containerImage", "") or job.imagename_jobdef
    if named:
        return named
    if not isinstance(queue, QueueData) or "pilot" not in queue.container_type:
        return ""
    return queue.catchall_value("default_image") or str(default or "")


def wrapper(executable: str, **kwargs: Argument) -> str:
    """The command that runs `executable`, a command as a shell would take it, in a container.

    container: how it is run, which makes the command a list; binds: what is seen in it; workdir: where it runs, as seen
    from inside. Without a container the command stays as it is. No shell sees the result: it is split into words again.
    """
    container, binds, workdir = kwargs.get("container"), kwargs.get("binds"), kwargs.get("workdir")
    if not isinstance(container, Container):
        return executable
    seen = [bind for bind in binds if isinstance(bind, Bind)] if isinstance(binds, (list, tuple)) else []
    return shlex.join(containerise_executable(executable, container, seen, str(workdir or "/")))


def create_stagein_container_command(workdir: str, cmd: str, container: Container | None = None) -> str:
    """Write a stage-in command into stagein.sh in `workdir`; return the command that runs it, in a container if there
    is one to run it in. Raises OSError.
    """
    script = Path(workdir, "stagein.sh")
    script.write_text(f"{cmd}\n", encoding="utf-8")
    return wrapper(
        shlex.join(["/bin/sh", str(script)]),
        container=container,
        binds=(Bind(Path(workdir), writable=True),),
        workdir=workdir,
    )
