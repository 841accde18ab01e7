"""Canary secrets: no payload finds them (promise S3), and they come out of no sink of the pilot (promise S4)."""

from __future__ import annotations

import base64
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from tests import pilots
from tests.integration.payload.conftest import Submit, settings
from tests.servers import RunningServer
from tests.site import QUEUE, Site, add_site
from tests.users import User, ordinary_user
from tests.x509 import X509, make_x509

ONCE = ("-v", "1")

# What a payload can do to find a secret, with the rights that it has: it looks for the word that all canaries begin
# with, and for a private key, in all that it can open. It tells places, since a value would be masked on its way.
_LOOK = r"""
import glob, os, re, sys
word = ("c4na" + "7y-" + sys.argv[1]).encode()
key = b"PRIVATE " + b"KEY"
found = set()

def look(kind, name, data):
    if word in data or key in data:
        found.add(f"{kind} {name}")

def read(kind, path, limit=2**20):
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return
    try:
        look(kind, path, os.read(descriptor, limit))
    except OSError:
        pass
    finally:
        os.close(descriptor)

look("environment", "own", repr(dict(os.environ)).encode())
look("arguments", "own", repr(sys.argv).encode())
for process in glob.glob("/proc/[0-9]*"):
    if process == f"/proc/{os.getpid()}":
        continue
    for name in ("environ", "cmdline", "mountinfo", "maps"):
        read(name, f"{process}/{name}")
    for name in glob.glob(f"{process}/fd/*"):
        read("open-file", name)
    if "mem" in sys.argv[2:]:
        try:
            command = open(f"{process}/cmdline").read()
            os.close(os.open(f"{process}/mem", os.O_RDONLY))
            if "pilot.py" in command:
                found.add(f"memory {process}")
        except OSError:
            pass
for name in glob.glob("/proc/self/fd/*"):
    read("open-file", name)
read("mounts", "/proc/self/mountinfo")
folder = os.getcwd()
for above in range(4):
    for path in glob.glob(f"{folder}/*") + glob.glob(f"{folder}/.*"):
        if os.path.isfile(path):
            read("directory", path)
        elif above < 3:
            for below, _, names in os.walk(path):
                for name in names:
                    read("directory", os.path.join(below, name))
    folder = os.path.dirname(folder)
    if folder.endswith("/run"):
        break
with open("found.txt", "w") as out:
    out.write("looked\n" + "".join(f"{one}\n" for one in sorted(found)))
"""


@dataclass(frozen=True)
class Canaries:
    """Secrets of every kind that a pilot has, each with a word in it that is nowhere else.

    They lie outside of the directory in which the pilot is started.
    """

    folder: Path
    x509: X509

    @property
    def word(self) -> str:
        """What all of them begin with."""
        return f"c4na7y-{self.folder.name}"

    @property
    def values(self) -> list[str]:
        """Those that are texts."""
        return [f"{self.word}-{name}-{name * 4}+/=" for name in ("token", "bearer", "aws")]

    @property
    def key(self) -> str:
        """A line of the private key."""
        return self.x509.user_key.read_text().splitlines()[3]

    def environ(self) -> dict[str, str]:
        """The environment of a pilot that has them."""
        token, bearer, aws = self.values
        (self.folder / "token").write_text(token)
        proxy = self.folder / "proxy.pem"
        proxy.write_bytes(self.x509.user_cert.read_bytes() + self.x509.user_key.read_bytes())
        proxy.chmod(0o600)
        return {
            "PANDA_AUTH_TOKEN": str(self.folder / "token"),
            "PANDA_AUTH_ORIGIN": "vo.pilot",
            "BEARER_TOKEN": bearer,
            "AWS_ACCESS_KEY_ID": f"{self.word}-id-4711",
            "AWS_SECRET_ACCESS_KEY": aws,
            "X509_USER_PROXY": str(proxy),
        }


@pytest.fixture(scope="module")
def x509(tmp_path_factory: pytest.TempPathFactory) -> X509:
    return make_x509(tmp_path_factory.mktemp("x509"))


@pytest.fixture
def canaries(x509: X509) -> Iterator[Canaries]:
    with tempfile.TemporaryDirectory(prefix="pilotkit-home-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Canaries(Path(folder), x509)


def everything_in(log: Path) -> bytes:
    """The names and contents of all files in a log tarball."""
    with tarfile.open(log) as archive:
        return b"\n".join(
            member.name.encode("utf-8", "replace") + b"\n" + archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive.getmembers()
            if member.isfile()
        )


# ---- S3


def test_a_payload_without_a_container_finds_no_credential_where_it_may_look(
    site: Site, rundir: Path, submit: Submit, canaries: Canaries
) -> None:
    jobid = submit(f"import sys; sys.argv = ['look', {canaries.folder.name!r}]\n{_LOOK}", outFiles="")
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE, env=canaries.environ())
    job = site.wait_for(jobid)
    assert job["jobStatus"] == "finished", pilot.log()
    with tarfile.open(site.stored(jobid, "log")[0]) as archive:
        (found,) = [one for one in archive.getmembers() if one.name.endswith("/found.txt")]
        assert archive.extractfile(found).read() == b"looked\n"  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    with ordinary_user() as made:
        yield made


@pytest.fixture(scope="module")
def their_site(server: RunningServer, user: User) -> Site:
    """The same server, with a storage that everybody may write to."""
    site = add_site(server.url, user.folder, timefloor=60)
    site.storage.chmod(0o777)
    return site


def test_an_ordinary_users_payload_can_read_neither_environment_nor_memory_nor_files_of_its_pilot(
    their_site: Site, user: User, canaries: Canaries
) -> None:
    script = user.folder / "look.py"
    script.write_text(f"import sys; sys.argv = ['look', {canaries.folder.name!r}, 'mem']\n{_LOOK}")
    script.chmod(0o644)
    (jobid,) = their_site.submit({"transformation": "/usr/bin/python3", "jobPars": str(script)})
    env = canaries.environ()
    for path in canaries.folder.iterdir():
        os.chown(path, user.uid, user.uid)
    log = user.run(their_site.url, QUEUE, *ONCE, env=env)
    job = their_site.wait_for(jobid)
    assert job["jobStatus"] == "finished", log
    with tarfile.open(their_site.stored(jobid, "log")[0]) as archive:
        (found,) = [one for one in archive.getmembers() if one.name.endswith("/found.txt")]
        assert archive.extractfile(found).read() == b"looked\n"  # type: ignore[union-attr]


def test_an_ordinary_users_log_arrives_from_a_directory_that_its_payload_has_locked(
    their_site: Site, user: User
) -> None:
    (jobid,) = their_site.submit({"command": "mkdir a; echo x > a/b; chmod 0 a; chmod 0 .; exit 4"})
    log = user.run(their_site.url, QUEUE, *ONCE)
    job = their_site.wait_for(jobid)
    assert (job["jobStatus"], job["transExitCode"]) == ("failed", 4), log
    packed = everything_in(their_site.stored(jobid, "log")[0])
    assert b"payload ended with exit code 4" in packed and b"a: it cannot be read: Permission denied\n" in packed
    assert not list(user.rundir.glob("pilotkit-[0-9]*"))


# ---- S4


def encoded(value: str) -> list[str]:
    """A secret as it may come along."""
    shifted = [base64.b64encode(b"Basic:"[:n] + value.encode()).decode() for n in (0, 1, 2, 6)]
    return [value, quote(value, safe=""), json.dumps(value)[1:-1], *shifted]


def shown_in(data: bytes, canaries: Canaries) -> list[str]:
    """The secrets that are in some text, in any form."""
    forms = [form for value in [*canaries.values, canaries.key] for form in encoded(value)]
    # The middle of a form is nobody else's, whatever stands before and after it.
    return [form for form in forms if form[12:-6].encode() in data]


_SPILL = """
    import json, os, sys, time
    forms = json.load(open({forms!r}))
    for form in forms:
        print("said:", form)
        print("said:", form, file=sys.stderr)
    with open("border.bin", "wb") as out:
        for form in forms:
            out.seek(2**20 * (1 + forms.index(form)) - len(form) // 2)
            out.write(form.encode())
    json.dump({{"exitCode": 5, "exitMsg": "it was " + forms[0]}}, open("jobReport.json", "w"))
    json.dump({{forms[1]: forms}}, open("userJobMetadata.json", "w"))
    time.sleep(1.5)
    print("last words:", forms[0], "and", forms[3], file=sys.stderr)
    sys.exit(7)
"""


def test_secrets_that_a_payload_spills_come_out_of_no_sink(
    site: Site, rundir: Path, submit: Submit, canaries: Canaries, tmp_path: Path
) -> None:
    env = canaries.environ()
    forms = tmp_path / "forms.json"
    forms.write_text(json.dumps([form for value in [*canaries.values, canaries.key] for form in encoded(value)]))
    assert shown_in(forms.read_bytes(), canaries)
    jobid = submit(_SPILL.format(forms=str(forms)))
    short = settings(Pilot__heartbeat=1, Pilot__heartbeat_min=1)
    pilot = pilots.run(site.url, QUEUE, rundir, *ONCE, "-d", "--cleanup=False", env=env, settings=short)
    job = site.wait_for(jobid)
    assert (job["jobStatus"], job["transExitCode"], job["exeErrorCode"]) == ("failed", 7, 5), pilot.log()
    # Everything that the server was told: errors, report, metrics, the ends of log, stderr and stdout.
    told = json.dumps(job, default=str)
    assert "last words: ***" in told and "said: ***" in told and "it was ***" in told
    assert shown_in(told.encode(), canaries) == []
    assert shown_in(pilot.log().encode(), canaries) == []
    log = everything_in(site.stored(jobid, "log")[0])
    assert b"said: *****" in log and b"userJobMetadata" in log
    assert shown_in(log, canaries) == []
    # What the pilot leaves on the disk: its log, the flight recorder, the spool. The job's own directory is the
    # payload's.
    left = [path for path in rundir.rglob("*") if path.is_file() and "PanDA_Pilot-" not in str(path)]
    assert {"flight.rec", "pilotlog.txt"} <= {path.name for path in left}
    for path in left:
        assert shown_in(path.read_bytes(), canaries) == [], path


def test_a_jobs_own_secrets_stay_out_of_its_report_and_words_that_contain_them_stay(tmp_path: Path) -> None:
    definition = {
        "PandaID": 5, "jobsetID": 1, "taskID": 1, "attemptNr": 1, "prodSourceLabel": "user",
        "transformation": "sh", "jobPars": "-c 'echo my hunter22 is not hunter22s but pw=hunter22; exit 3'",
        "secrets": json.dumps({"PASSWORD": "hunter22", "KIND": "test"}), "logFile": "5.log.tgz", "scopeLog": "user",
    }  # fmt: skip
    _, update, log = pilots.run_file(definition, tmp_path / "run", "--cleanup=False", "-d")
    assert update["stdout"] == "my ******** is not hunter22s but pw=********\n", log
    said = (tmp_path / "run" / "heartbeat.json").read_text() + log
    assert "hunter22 " not in said and "=hunter22" not in said and "hunter22s" in said
