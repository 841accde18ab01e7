"""A pilot of an ordinary user: what tests run by root start as somebody else."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from tests import pilots
from tests.components import missing

# "nobody", on every system that tests run on.
_UID = 65534


@dataclass(frozen=True)
class User:
    """A copy of the pilot that this user may read, run by the system's Python: root's own is closed to others.

    folder: where the copy is, and `run`, which is the user's.
    """

    folder: Path
    uid: int = _UID

    @property
    def rundir(self) -> Path:
        """Where its pilots are started."""
        return self.folder / "run"

    def start(
        self, url: str, queue: str, *options: str, env: Mapping[str, str] | None = None, settings: str = ""
    ) -> pilots.Pilot:
        """Start a pilot; the caller ends it."""
        # setpriv becomes the pilot: the pid is the pilot's own.
        become = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", "/usr/bin/python3"]
        command = [*become, str(self.folder / "pilot.py"), "-q", queue, "--url", url, "-a", str(self.rundir), *options]
        if "-j" not in options:
            command += ["-j", "user"]
        if settings:
            config = self.folder / "pilot.cfg"
            config.write_text(settings, encoding="utf-8")
            command += ["--config", str(config)]
        own = {**pilots.environment(env), "PYTHONPATH": str(self.folder / "lib")}
        with (self.rundir / "stdout").open("wb") as output:
            process = subprocess.Popen(
                command, env=own, cwd=self.rundir, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        return pilots.Pilot(process, self.rundir)

    def run(self, url: str, queue: str, *options: str, env: Mapping[str, str] | None = None, settings: str = "") -> str:
        """Run a pilot to its end; its log."""
        pilot = self.start(url, queue, *options, env=env, settings=settings)
        try:
            pilot.wait()
        finally:
            if pilot.process.poll() is None:
                pilot.process.kill()
                pilot.process.wait()
        return pilot.log()


@contextmanager
def ordinary_user() -> Iterator[User]:
    """One for the time of a block. Skips where tests are not run by root, who alone can become another."""
    if os.geteuid() != 0:
        missing("only root can become another user: this is", "run the tests as root")
    with tempfile.TemporaryDirectory(prefix="pilotkit-user-", dir="/tmp") as place:
        user = User(Path(place))
        user.folder.chmod(0o755)
        for name in ("pilot", "pilot.py", "default.cfg"):
            source = pilots.ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, user.folder / name)
        for name in ("requests", "urllib3", "idna", "certifi", "charset_normalizer"):
            shutil.copytree(Path(requests.__file__).parent.parent / name, user.folder / "lib" / name)
        user.rundir.mkdir()
        os.chown(user.rundir, user.uid, user.uid)
        yield user
