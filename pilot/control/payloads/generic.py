"""The generic executor: prepares a payload's command, directory and environment, and starts it under a guard."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.control.context import Context
from pilot.control.jobrun import JobRun
from pilot.control.payloads.container import PayloadContainer
from pilot.control.payloads.proxy import provide_proxy
from pilot.control.slot import SLOT_FILE, SLOT_VARIABLE, publish
from pilot.resource.named import setup_commands
from pilot.util.credentials import SECRET_VARIABLES
from pilot.util.guarded import GuardedProcess
from pilot.util.ownership import HOME_VARIABLE
from pilot.util.parallel import Left, leave_when
from pilot.util.payloadgroup import PayloadGroup


class Executor:
    """Runs one job's payload."""

    def __init__(self, context: Context, run: JobRun) -> None:
        self._context = context
        self._job = run
        self.container: PayloadContainer | None = None
        self._group: PayloadGroup | None = None

    def start(self) -> GuardedProcess:
        """Start the payload in the job's directory; its output goes to payload.stdout and payload.stderr there.

        Raises PilotException: the transformation cannot be had (TRFDOWNLOADFAILURE, TRANSFORMNOTFOUND), the container
        cannot be had, the payload's proxy cannot be had, or the command cannot be started.
        """
        run, context, settings = self._job, self._context, self._context.settings.payload
        self._refuse_special_jobs()
        if PayloadContainer.is_wanted(context, run):
            self.container = PayloadContainer(context, run)
        command = "; ".join([*setup_commands(context.args.hpc_resource, run.data), self.get_payload_command()])
        job, proxy = job_variables(run, context.args.queue), provide_proxy(context, run)
        context.log.info("job %s: payload command: %s", run.jobid, command)
        try:
            publish(run.workdir, context.slot, context.slot.plan(context.settings.pilot))
            if self.container is not None:
                named = passed_on(context.environ, context.settings.container.environment)
                words = self.container.prepare(command, {**named, **job, **proxy})
            stdout = (run.workdir / settings.stdout).open("wb")
            stderr = (run.workdir / settings.stderr).open("wb")
        except OSError as exc:
            raise PilotException(
                f"a file for the payload cannot be written: {exc}", code=ErrorCodes.FILEHANDLINGFAILURE
            ) from exc
        run.brought = frozenset(os.listdir(run.workdir))
        self._group = PayloadGroup.make() if settings.control_group else None
        with stdout, stderr:
            if self.container is not None:
                guarded = self.container.launch(words, stdout, stderr, self._group)
            else:
                env = {**payload_environment(context.environ, run, context.args.queue), **proxy}
                guarded = context.launcher.start(
                    [shell(), "-c", command], cwd=run.workdir, env=env, stdout=stdout, stderr=stderr, group=self._group
                )
        self._look_at_group(guarded)
        return guarded

    def attend(self, guarded: GuardedProcess) -> None:
        """While the payload runs: what there is to do for it. May return before its end, and has nothing to do here."""

    def conclude(self) -> PilotException | None:
        """After the payload's end: what was wrong beyond its exit code."""
        return None

    def close(self) -> None:
        """After the payload's end: remove what only its container has needed, and its control group."""
        if self.container is not None:
            self.container.close()
        for directory in self._group.end() if self._group is not None else []:
            self._context.log.warning("job %s: control group %s could not be removed", self._job.jobid, directory)

    def _look_at_group(self, guarded: GuardedProcess) -> None:
        """Say whether the payload has a control group of its own; its memory counts there from the first moment on."""
        if self._group is None:
            return
        if guarded.is_grouped:
            self._job.oom.own = self._group.memory
            where = ", ".join(str(directory) for directory in self._group.directories)
            self._context.log.debug("job %s: control group of its own: %s", self._job.jobid, where)
        else:
            text = "job %s: its control group has not taken it (%s): the guard alone ends what it leaves"
            self._context.log.warning(text, self._job.jobid, self._group.directories[0])

    def get_payload_command(self) -> str:
        """The command for the shell, as the experiment plugin makes it. Raises PilotException."""
        context, job = self._context, self._job
        if self.container is not None and "://" not in job.data.transformation:
            # A command of the image: only the container can tell whether it is there.
            return str(context.plugins.hook("common", "get_payload_command")(job.data, job.data.transformation))
        prepare = context.plugins.hook("setup", "prepare_transformation")

        def called_as() -> object:
            return prepare(job.data.transformation, job.workdir, context.base_urls, context.fetch)

        try:
            called = leave_when(job.cancel_payload, called_as, "transformation")
        except Left:
            text = f"{job.data.transformation} was still on its way when the job was ended"
            raise PilotException(text, code=ErrorCodes.TRFDOWNLOADFAILURE) from None
        return str(context.plugins.hook("common", "get_payload_command")(job.data, called))

    def _refuse_special_jobs(self) -> None:
        """Jobs of kinds that are still to come would not do what they are for as plain jobs, and end as if they had."""
        data = self._job.data
        kinds = {
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
    return {**env, **job_variables(run, queue), HOME_VARIABLE: str(run.workdir.parent)}


def job_variables(run: JobRun, queue: str) -> dict[str, str]:
    """What payloads look for in their environment, in a container and outside of one."""
    return {
        "PandaID": run.jobid,
        "PANDAID": run.jobid,
        "PanDA_TaskID": run.data.taskid,
        "PanDA_AttemptNr": str(run.data.attemptnr),
        "PANDA_RESOURCE": queue,
        "PWD": str(run.workdir),
        "ATHENA_PROC_NUMBER": str(run.data.corecount),
        SLOT_VARIABLE: str(run.workdir / SLOT_FILE),
        **run.variables,
    }


def passed_on(environ: Mapping[str, str], names: str) -> dict[str, str]:
    """The variables of the pilot's environment that a payload in a container finds too; names: separated by commas."""
    wanted = [name.strip() for name in names.split(",")]
    return {
        name: environ[name]
        for name in wanted
        if name in environ and name.isidentifier() and name not in SECRET_VARIABLES
    }
