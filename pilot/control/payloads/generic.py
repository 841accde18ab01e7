"""The generic executor: prepares a payload's command, directory and environment, and starts it under a guard."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.control.context import Context
from pilot.control.jobrun import JobRun
from pilot.control.payloads.commands import Command, Described, Errand, Started, open_output
from pilot.control.payloads.container import PayloadContainer, linked_files
from pilot.control.payloads.files import remove_secrets, write_lists, write_secrets
from pilot.control.payloads.proxy import provide_proxy
from pilot.control.slot import SLOT_FILE, SLOT_VARIABLE, publish
from pilot.resource.named import setup_commands
from pilot.util.container import Bind
from pilot.util.credentials import SECRET_VARIABLES
from pilot.util.filehandling import remove_tree
from pilot.util.ownership import HOME_VARIABLE
from pilot.util.parallel import Left, leave_when
from pilot.util.payloadgroup import PayloadGroup

# Tells the commands of an HPO job which of its points this is, counted from 0.
ROUND_VARIABLE = "PILOT_EXEC_ITERATION_COUNT"


class Executor:
    """Starts one job's payload, and the commands around it, in the job's directory."""

    def __init__(self, context: Context, run: JobRun) -> None:
        self._context = context
        self._job = run
        self._proxy: Mapping[str, str] = {}
        self._started: list[Started] = []
        self._links: Sequence[Bind] = ()

    def prepare(self) -> None:
        """Make what payload and commands find in the job's directory, before the first of them is started.

        Raises PilotException: a kind of job that this release does not have, or a proxy or file that cannot be made.
        """
        run, context = self._job, self._context
        self._refuse_special_jobs()
        self._proxy = provide_proxy(context, run)
        try:
            publish(run.workdir, context.slot, context.slot.plan(context.settings.pilot))
        except OSError as exc:
            raise _not_written(exc) from exc
        write_secrets(run, context.secrets)
        write_lists(run)
        run.brought = frozenset(os.listdir(run.workdir))
        self._links = linked_files(run.workdir, Path(context.settings.container.workdir))

    def start(self, prelude: str = "") -> Started:
        """Start the payload; its output goes to payload.stdout and payload.stderr.

        prelude: commands for the same shell before it. Raises PilotException: the transformation cannot be had
        (TRFDOWNLOADFAILURE, TRANSFORMNOTFOUND), the container cannot be had, or the command cannot be started.
        """
        contained = PayloadContainer.is_wanted(self._context, self._job)
        before = "".join(f"{one}; " for one in setup_commands(self._context.args.hpc_resource, self._job.data))
        command = before + prelude + self.get_payload_command(contained=contained)
        self._context.log.info("job %s: payload command: %s", self._job.jobid, command)
        return self._launch(command, "", contained=contained)

    def errand(self) -> Errand | None:
        """What there is to do for the payload while it runs."""
        return None

    def conclude(self) -> PilotException | None:
        """After the payload's end: what was wrong beyond its exit code."""
        return None

    def launch(self, command: Command) -> Started:
        """Start a command around the payload; what it says is added to <label>_stdout.txt and <label>_stderr.txt.

        The job's own run where its payload runs, the experiment's on the node. Raises PilotException.
        """
        self._context.log.info("job %s: %s command: %s", self._job.jobid, command.label, command.text)
        return self._launch(
            command.text, command.label, contained=self._is_contained(command.is_utility), stdout=command.stdout
        )

    def command_of(self, described: Described) -> str:
        """What the shell runs for a described command; one that is a URL is downloaded. Raises PilotException."""
        called = self._called(described.command, contained=self._is_contained(described.is_utility))
        return f"{called} {described.args}".strip()

    def done(self, started: Started) -> None:
        """After a command's end, once it is known what that means: remove its control group."""
        group, started.group = started.group, None
        for directory in group.end() if group is not None else []:
            self._context.log.warning("job %s: control group %s could not be removed", self._job.jobid, directory)

    def close(self) -> None:
        """After the last end: remove groups, what only containers have needed, and the user's secrets."""
        for started in reversed(self._started):
            self.done(started)
            if started.container is not None:
                started.container.close()
        if self._job.inside.is_dir():
            self._remove_inside()
        remove_secrets(self._job)

    def _remove_inside(self) -> None:
        """Remove HOME and /tmp of the job's containers, which its commands have shared."""
        inside = self._job.inside
        problem = remove_tree(inside)
        if problem:
            self._context.log.warning("job %s: %s could not be removed: %s", self._job.jobid, inside, problem)
        if not self._context.args.cleanup:
            # Who runs the command of the log again needs the directory.
            with suppress(OSError):
                inside.mkdir()

    def get_payload_command(self, *, contained: bool = False) -> str:
        """The command for the shell, as the experiment plugin makes it. Raises PilotException."""
        job = self._job.data
        # With a command of its own for the container, the transformation is only for the commands around the payload.
        called = job.transformation if job.containeroptions.get("containerExec") else None
        called = called or self._called(job.transformation, contained=contained)
        return str(self._context.plugins.hook("common", "get_payload_command")(job, called))

    def _is_contained(self, is_utility: bool) -> bool:
        """Whether a command around the payload runs in its image, too: not in one that is for the payload alone."""
        own = bool(self._job.data.containeroptions.get("containerExec"))
        return not (is_utility or own) and PayloadContainer.is_wanted(self._context, self._job)

    def _called(self, command: str, *, contained: bool) -> str:
        context, job = self._context, self._job
        if contained and "://" not in command:
            # A command of the image: only the container can tell whether it is there.
            return command
        prepare = context.plugins.hook("setup", "prepare_transformation")
        try:
            return str(
                leave_when(
                    job.cancel_payload,
                    lambda: prepare(command, job.workdir, context.base_urls, context.fetch),
                    "transformation",
                )
            )
        except Left:
            text = f"{command} was still on its way when the job was ended"
            raise PilotException(text, code=ErrorCodes.TRFDOWNLOADFAILURE) from None

    def _launch(self, text: str, label: str, *, contained: bool, stdout: str = "") -> Started:
        """label: empty for the payload. Raises PilotException."""
        run, context, settings = self._job, self._context, self._context.settings.payload
        container = PayloadContainer(context, run, label, self._links) if contained else None
        names = (
            (stdout or f"{label}_stdout.txt", f"{label}_stderr.txt") if label else (settings.stdout, settings.stderr)
        )
        job = job_variables(run, context.args.queue)
        try:
            if container is not None:
                named = passed_on(context.environ, context.settings.container.environment)
                words = container.prepare(text, {**named, **job, **self._proxy})
            out = open_output(run.workdir / names[0], append=bool(label))
        except OSError as exc:
            raise _not_written(exc) from exc
        # What patterns in the list of outputs match is what the command makes, and none of this.
        run.brought |= {*names, *([container.script] if container is not None else [])}
        with out:
            try:
                err = open_output(run.workdir / names[1], append=bool(label))
            except OSError as exc:
                raise _not_written(exc) from exc
            group = PayloadGroup.make() if settings.control_group else None
            started = Started(container, run.workdir / names[1], group)
            # From here on something is there to be removed, even if the command does not start.
            self._started.append(started)
            with err:
                if container is not None:
                    started.guarded = container.launch(words, out, err, group)
                else:
                    env = {**payload_environment(context.environ, run, context.args.queue), **self._proxy}
                    started.guarded = context.launcher.start(
                        [shell(), "-c", text], cwd=run.workdir, env=env, stdout=out, stderr=err, group=group
                    )
        self._look_at_group(started)
        return started

    def _look_at_group(self, started: Started) -> None:
        """Say whether a command has a control group of its own."""
        if started.group is None:
            return
        if started.guarded.is_grouped:
            where = ", ".join(str(directory) for directory in started.group.directories)
            self._context.log.debug("job %s: control group of its own: %s", self._job.jobid, where)
        else:
            text = "job %s: its control group has not taken it (%s): the guard alone ends what it leaves"
            self._context.log.warning(text, self._job.jobid, started.group.directories[0])

    def _refuse_special_jobs(self) -> None:
        """Jobs of kinds that are still to come would not do what they are for as plain jobs, and end as if they had."""
        data = self._job.data
        if data.is_eventservice and data.is_hpo:
            text = "the job asks for eventService and isHPO at once, which nobody knows how to do"
            raise PilotException(text, code=ErrorCodes.NOTIMPLEMENTED)


def _not_written(exc: OSError) -> PilotException:
    return PilotException(f"a file for the payload cannot be written: {exc}", code=ErrorCodes.FILEHANDLINGFAILURE)


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
        **({ROUND_VARIABLE: str(run.round)} if run.data.is_hpo else {}),
    }


def passed_on(environ: Mapping[str, str], names: str) -> dict[str, str]:
    """The variables of the pilot's environment that a payload in a container finds too; names: separated by commas."""
    wanted = [name.strip() for name in names.split(",")]
    return {
        name: environ[name]
        for name in wanted
        if name in environ and name.isidentifier() and name not in SECRET_VARIABLES
    }
