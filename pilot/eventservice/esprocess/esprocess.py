"""A payload of the event service that is run by something else than the pilot's own controllers."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.eventservice.esprocess.eshook import ESHook
from pilot.eventservice.esprocess.esmessage import CHANNEL_VARIABLE, MessageServer
from pilot.util.guarded import GuardedProcess, Launcher, Outcome


class ESProcess:
    """Runs the payload of a hook in a directory, under a guard, and feeds it with the hook's event ranges."""

    def __init__(self, hook: ESHook, workdir: Path, launcher: Launcher, log: logging.Logger | None = None) -> None:
        self._hook = hook
        self._workdir = workdir
        self._launcher = launcher
        self._log = log or logging.getLogger(__name__)
        self._server: MessageServer | None = None
        self._process: GuardedProcess | None = None

    def start(self) -> GuardedProcess:
        """Start the payload; it finds the socket's path in PILOT_EVENTRANGECHANNEL.

        Raises PilotException: there is no payload, its files cannot be written, or it cannot be executed.
        """
        payload = self._hook.get_payload()
        executable, env = payload.get("executable"), payload.get("env") or {}
        command = ["/bin/sh", "-c", executable] if isinstance(executable, str) else executable
        if not isinstance(command, list) or not command or not isinstance(env, dict):
            raise PilotException("the hook has no payload with an executable", code=ErrorCodes.SETUPFAILURE)
        hook = self._hook
        server = MessageServer(self._workdir, hook.get_event_ranges, hook.handle_out_message, self._log)
        try:
            channel = server.start()
            stdout = (self._workdir / str(payload.get("output_file") or "payload.stdout")).open("wb")
            stderr = (self._workdir / str(payload.get("error_file") or "payload.stderr")).open("wb")
        except OSError as exc:
            server.close()
            text = f"a file for the payload cannot be made: {exc}"
            raise PilotException(text, code=ErrorCodes.FILEHANDLINGFAILURE) from exc
        try:
            with stdout, stderr:
                variables = {"PATH": os.defpath, **env, CHANNEL_VARIABLE: channel}
                self._process = self._launcher.start(
                    command, cwd=self._workdir, env=variables, stdout=stdout, stderr=stderr
                )
        except PilotException:
            server.close()
            raise
        self._server = server
        return self._process

    def stop(self, grace: float) -> None:
        """End the payload: TERM, and KILL after `grace` seconds."""
        if self._process is not None:
            self._process.stop(grace)

    def wait(self) -> Outcome:
        """Wait for the payload's end, until the hook has all that it has said. Raises PilotException before a start."""
        if self._process is None or self._server is None:
            raise PilotException("the payload was not started", code=ErrorCodes.SETUPFAILURE)
        try:
            return self._process.wait()
        finally:
            self._server.close()
