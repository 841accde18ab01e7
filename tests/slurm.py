"""A real Slurm for tests: one node on loopback, its daemons in a folder of their own, for the time of a block."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.pilots import wait_until

# The Debian packages that these tests need; .ci/suite.py installs them where it may.
PACKAGES = ("slurm-wlm", "munge")
# s for the daemons to come up and for a job to start, on a machine that is busy.
_PATIENCE = 60
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


@dataclass(frozen=True)
class Slurm:
    """environment: what its commands need to find it."""

    environment: Mapping[str, str]

    def submit(self, script: Path, *options: str) -> int:
        """Submit a script; the batch job's number."""
        command = ["sbatch", "--parsable", *options, str(script)]
        return int(self._run(*command))

    def wait_for(self, number: int, state: str) -> None:
        """Wait until a batch job is in a state."""
        wait_until(
            lambda: f"JobState={state}" in self._run("scontrol", "show", "job", str(number)),
            f"batch job {number} is {state}",
            _PATIENCE,
        )

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            command, env=dict(self.environment), capture_output=True, text=True, check=True, timeout=30
        )
        return done.stdout


def require_slurm() -> None:
    """Skip where Slurm cannot be run, and fail where it is not installed and CI=true promises that it is."""
    missing = [name for name in _PROGRAMS if shutil.which(name, path=_PATH) is None]
    text = f"{', '.join(missing)} not installed (Debian: apt-get install {' '.join(PACKAGES)})"
    if missing and os.environ.get("CI") == "true":
        pytest.fail(text)
    if missing:
        pytest.skip(text)
    if os.geteuid() != 0:
        pytest.skip("Slurm's daemons are started as root")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _configuration(base: Path, host: str) -> str:
    return f"""
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={base}/munge.socket
CredType=cred/munge
SlurmctldPort={_free_port()}
SlurmdPort={_free_port()}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd.pid
SlurmctldLogFile={base}/slurmctld.log
SlurmdLogFile={base}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=1,sched_interval=1
MpiDefault=none
ReturnToService=2
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=1 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def running_slurm() -> Iterator[Slurm]:
    """Munge, controller and node daemon; all are ended with the block."""
    # A path of its own: sockets have short names, and munge wants every folder above to be safe.
    with tempfile.TemporaryDirectory(prefix="pilotkit-slurm-", dir="/var/tmp") as folder:
        base = Path(folder)
        for name in ("state", "spool"):
            (base / name).mkdir()
        (base / "munge.key").write_bytes(os.urandom(1024))
        (base / "munge.key").chmod(0o400)
        base.chmod(0o711)
        (base / "slurm.conf").write_text(_configuration(base, socket.gethostname().partition(".")[0]))
        (base / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        files = [f"--{name}={base}/munge.{name.partition('-')[0]}" for name in ("key-file", "pid-file", "seed-file")]
        files = [*files, f"--log-file={base}/munged.log", f"--socket={base}/munge.socket"]
        environment = {"PATH": _PATH, "SLURM_CONF": str(base / "slurm.conf"), "HOME": str(base)}
        commands = (
            ["munged", "-F", "--force", "--num-threads=1", *files],
            ["slurmctld", "-D", "-f", str(base / "slurm.conf")],
            ["slurmd", "-D", "-f", str(base / "slurm.conf")],
        )
        daemons: list[subprocess.Popen[bytes]] = []
        try:
            for command in commands:
                with (base / f"{command[0]}.out").open("wb") as said:
                    daemons.append(
                        subprocess.Popen(
                            command, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=base
                        )
                    )
                if command[0] == "munged":
                    wait_until((base / "munge.socket").exists, "munged listens", _PATIENCE)
            _wait_until_idle(base, environment, daemons)
            yield Slurm(environment)
        finally:
            for daemon in reversed(daemons):
                daemon.terminate()
                try:
                    daemon.wait(_PATIENCE)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()


def _wait_until_idle(base: Path, environment: Mapping[str, str], daemons: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        done = subprocess.run(["sinfo", "-h"], env=dict(environment), capture_output=True, text=True, check=False)
        if " idle " in done.stdout:
            return
        dead = [daemon.args for daemon in daemons if daemon.poll() is not None]
        if dead or time.monotonic() > deadline:
            logs = "\n".join(
                f"--- {path.name}\n{path.read_text(errors='replace')}" for path in base.glob("*.[lo]*[gt]")
            )
            raise AssertionError(f"Slurm does not come up ({dead} ended): {done.stderr}\n{logs}")
        time.sleep(0.1)
