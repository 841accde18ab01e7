"""Files that a payload finds in its directory because its job asks for them: the user's secrets, and lists of names."""

from __future__ import annotations

import json
from contextlib import suppress

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.control.jobrun import JobRun
from pilot.info.filespec import REMOTE_IO
from pilot.util.blot import Secrets
from pilot.util.filehandling import write_atomically, write_secret

# The documented name. It is for the payload alone: it never goes into the log tarball, and is gone before that is made.
SECRETS = "panda_secrets.json"


def write_secrets(run: JobRun, known: Secrets) -> None:
    """Write the job's secrets, for its owner alone; they are known as secrets from now on, whoever says them.

    Raises PilotException, which shows none of them.
    """
    if not run.data.secrets:
        return
    known.add(*(value if isinstance(value, str) else json.dumps(value) for value in run.data.secrets.values()))
    try:
        write_secret(run.workdir / SECRETS, json.dumps(run.data.secrets).encode())
    except OSError as exc:
        text = f"{SECRETS} cannot be written: {exc.strerror}"
        raise PilotException(text, code=ErrorCodes.FILEHANDLINGFAILURE) from None


def remove_secrets(run: JobRun) -> None:
    """Remove them; a payload may have done so, or have locked its directory, from which no log can be made then."""
    if run.data.secrets:
        with suppress(OSError):
            (run.workdir / SECRETS).unlink()


def write_lists(run: JobRun) -> None:
    """Write each file that writeToFile names, a name a line: the TURL of an input that is read where it lies.

    Raises PilotException.
    """
    turls = {spec.lfn: spec.turl for spec in run.data.indata if spec.status == REMOTE_IO and spec.turl}
    for name, members in run.data.lists.items():
        path = run.workdir / name
        if path.exists():
            text = f"field writeToFile: {name} is in the job's directory already"
            raise PilotException(text, code=ErrorCodes.FILEEXISTS)
        try:
            write_atomically(path, "".join(f"{turls.get(one, one)}\n" for one in members).encode())
        except OSError as exc:
            text = f"field writeToFile: {name} cannot be written: {exc.strerror}"
            raise PilotException(text, code=ErrorCodes.FILEHANDLINGFAILURE) from exc
