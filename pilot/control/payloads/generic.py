"""The generic executor: prepares a payload's command, directory and environment, and starts it under a guard."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.control.context import Context
from pilot.control.jobrun import JobRun
from pilot.control.payloads.proxy import provide_proxy
from pilot.util.credentials import SECRET_VARIABLES
from pilot.util.guarded import GuardedProcess
from pilot.util.parallel import Left, leave_when


class Executor:
    """Runs one job's payload."""

    def __init__(self, context: Context, run: JobRun) -> None:
        self._context = context
        self._job = run

    def start(self) -> GuardedProcess:
        """Start the payload in the job's directory; its output goes to payload.stdout and payload.stderr there.

        Raises PilotException: the transformation cannot be had (TRFDOWNLOADFAILURE, TRANSFORMNOTFOUND), containers are
        asked for (NOTIMPLEMENTED), the payload's proxy cannot be had, or the command cannot be started.
        """
        run, settings = self._job, self._context.settings.payload
        self._refuse_containers()
        self._refuse_special_jobs()
        command = self.get_payload_command()
        env = payload_environment(self._context.environ, run, self._context.args.queue)
        env.update(provide_proxy(self._context, run))
        self._context.log.info("job %s: payload command: %s", run.jobid, command)
        try:
            stdout = (run.workdir / settings.stdout).open("wb")
            stderr = (run.workdir / settings.stderr).open("wb")
        except OSError as exc:
            raise PilotException(
                f"no file for the payload's output: {exc}", code=ErrorCodes.FILEHANDLINGFAILURE
            ) from exc
        run.brought = frozenset(os.listdir(run.workdir))
        with stdout, stderr:
            return self._context.launcher.start(
                [shell(), "-c", command], cwd=run.workdir, env=env, stdout=stdout, stderr=stderr
            )

    def get_payload_command(self) -> str:
        """The command for the shell, as the experiment plugin makes it. Raises PilotException."""
        context, job = self._context, self._job
        prepare = context.plugins.hook("setup", "prepare_transformation")

        def called_as() -> object:
            return prepare(job.data.transformation, job.workdir, context.base_urls, context.fetch)

        try:
            called = leave_when(job.cancel_payload, called_as, "transformation")
        except Left:
            text = f"{job.data.transformation} was still on its way when the job was ended"
            raise PilotException(text, code=ErrorCodes.TRFDOWNLOADFAILURE) from None
        return str(context.plugins.hook("common", "get_payload_command")(job.data, called))

    def _refuse_containers(self) -> None:
        """Running a payload outside the container that it asks for would be running something else."""
        job = self._job
        image = job.data.imagename or job.data.imagename_jobdef
        if image:
            text = f"the job asks for container {image}, and this release runs payloads without containers only"
            raise PilotException(text, code=ErrorCodes.NOTIMPLEMENTED)
        if job.infosys.queuedata.container_type.get("pilot"):
            runtime = job.infosys.queuedata.container_type["pilot"]
            text = f"the queue asks for {runtime} containers, and this release runs payloads without containers only"
            raise PilotException(text, code=ErrorCodes.NOTIMPLEMENTED)

    def _refuse_special_jobs(self) -> None:
        """Jobs of kinds that are still to come would not do what they are for as plain jobs, and end as if they had."""
        data = self._job.data
        kinds = {
            "eventService": data.is_eventservice or data.is_eventservicemerge,
            "isHPO": data.is_hpo,
            "writeToFile": data.writetofile,
        }
        asked = [name for name, wanted in kinds.items() if wanted]
        if asked:
            text = f"the job asks for {' and '.join(asked)}, which this release does not have"
            raise PilotException(text, code=ErrorCodes.NOTIMPLEMENTED)


def shell() -> str:
    """bash where there is one, since job parameters of the field are written for it; else sh."""
    return shutil.which("bash", path="/bin:/usr/bin:/usr/local/bin") or "/bin/sh"


def payload_environment(environ: Mapping[str, str], run: JobRun, queue: str) -> dict[str, str]:
    """The pilot's environment without its credentials, and with what payloads look for."""
    env = {
        name: value
        for name, value in environ.items()
        if name not in SECRET_VARIABLES and not name.startswith("PILOTKIT_")
    }
    env.setdefault("PATH", os.defpath)
    env.update(
        {
            "PandaID": run.jobid,
            "PANDAID": run.jobid,
            "PanDA_TaskID": run.data.taskid,
            "PanDA_AttemptNr": str(run.data.attemptnr),
            "PANDA_RESOURCE": queue,
            "PILOT_HOME": str(run.workdir.parent),
            "PWD": str(run.workdir),
            "ATHENA_PROC_NUMBER": str(run.data.corecount),
        }
    )
    return env
