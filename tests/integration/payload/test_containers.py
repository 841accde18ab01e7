"""Payloads in containers: real pilots, a real server, and Apptainer."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from pilot.common.errorcodes import ErrorCodes
from tests import pilots
from tests.containers import Container, put_busybox, sandbox
from tests.registry import Registry, running_registry
from tests.servers import RunningServer
from tests.site import QUEUE, Site, add_site
from tests.users import User

C = ErrorCodes
CONTAINERS = {"container_type": "singularity:pilot;docker:wrapper"}


@pytest.fixture(scope="module")
def box() -> Iterator[Container]:
    """Apptainer and an image, which is a directory."""
    with sandbox() as made:
        yield made


@pytest.fixture(scope="module")
def site(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site whose queue lets the pilot run containers."""
    return add_site(server.url, tmp_path_factory.mktemp("site"), timefloor=60, **CONTAINERS)


@dataclass
class Player:
    """Plays jobs at a site, each with a pilot of its own."""

    site: Site
    box: Container
    rundir: Path

    def submit(self, script: str, image: str | Path | None = "", **job: object) -> int:
        """A job that runs a shell script in an image: that of the tests, unless another or None is given."""
        parameters = f"-c {shlex.quote(script)}"
        if image is not None:
            parameters += f" --containerImage={image or self.box.image}"
        (jobid,) = self.site.submit({"transformation": "sh", "jobPars": parameters, **job})
        return jobid

    def environ(self, queue: dict[str, object] | None = None, env: dict[str, str] | None = None) -> dict[str, str]:
        """queue: settings laid over the queue's own."""
        more = {"PILOTKIT_QUEUEDATA": json.dumps(queue)} if queue else {}
        return {**self.box.environ, **more, **(env or {})}

    def play(
        self,
        script: str,
        image: str | Path | None = "",
        *,
        queue: dict[str, object] | None = None,
        env: dict[str, str] | None = None,
        settings: str = "",
        **job: object,
    ) -> tuple[dict[str, object], str]:
        """Submit, run, and return what the server knows of the job, and the pilot's log."""
        jobid = self.submit(script, image, **job)
        pilot = pilots.run(
            self.site.url, QUEUE, self.rundir, "-v", "1", env=self.environ(queue, env), settings=settings
        )
        return self.site.wait_for(jobid), pilot.log()

    def log_tarball(self, job: dict[str, object]) -> dict[str, str]:
        """The files in a job's log tarball, by name."""
        (path,) = self.site.stored(int(str(job["PandaID"])), "log")
        with tarfile.open(path) as archive:
            return {
                Path(member.name).name: archive.extractfile(member).read().decode("utf-8", "replace")  # type: ignore[union-attr]
                for member in archive.getmembers()
                if member.isfile()
            }


@pytest.fixture
def player(site: Site, box: Container, rundir: Path) -> Player:
    return Player(site, box, rundir)


def ended(job: dict[str, object]) -> tuple[object, object, object]:
    return job["jobStatus"], job["pilotErrorCode"] or 0, job["transExitCode"] or 0


# ---- payloads that run


def test_what_a_job_links_to_is_not_seen_by_its_next_container(player: Player, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("c4na7y-of-the-pilot")
    links = f"ln -s {secret} file; ln -s {tmp_path} folder; ln -s / .container; touch $HOME/mine"
    look = "cat file folder/token; ls -A $HOME /tmp"
    job, log = player.play(
        look,
        preprocess=json.dumps({"command": "sh", "args": f"-c {shlex.quote(links)}"}),
        postprocess=json.dumps({"command": "sh", "args": f"-c {shlex.quote(look)}"}),
        env={"PANDA_AUTH_TOKEN": str(secret), "PANDA_AUTH_ORIGIN": "vo.pilot"},
    )
    assert ended(job) == ("finished", 0, 0), log
    files = player.log_tarball(job)
    for label in ("payload.", "postprocess_"):
        said = next(text for name, text in files.items() if name.startswith(f"{label}stdout"))
        wrong = next(text for name, text in files.items() if name.startswith(f"{label}stderr"))
        assert "mine" in said, "its commands share HOME"
        assert "c4na7y" not in said and wrong.count("No such file") == 2
    commands = [line for line in log.splitlines() if "container command: " in line]
    assert len(commands) == 3 and not [
        line for line in commands if any(f" -B {path}:" in line for path in (tmp_path, secret, "/"))
    ]
    assert not list(player.rundir.rglob("container-files-*"))


@pytest.mark.parametrize("handler", ["", "trap 'echo was told' USR1; "])
def test_the_soft_signal_reaches_who_handles_it_in_a_container_and_harms_nobody_else(
    player: Player, handler: str
) -> None:
    soft = "$(grep -o '\"soft\": [0-9]*' pilot_slot.json | cut -c9-)"
    wait = f"while [ $(date +%s) -le $(({soft} + 1)) ]; do sleep 0.2; done"
    jobid = player.submit(f"{handler}{wait}; echo went on")
    pilot = pilots.run(player.site.url, QUEUE, player.rundir, "-v", "1", "-l", "40", env=player.environ())
    job = player.site.wait_for(jobid)
    assert ended(job) == ("finished", 0, 0), pilot.log()
    assert "SIGUSR1 sent to" in pilot.log()
    said = player.log_tarball(job)["payload.stdout"].split("\n")
    assert "went on" in said and ("was told" in said) == bool(handler)


def test_a_payload_in_a_container_has_its_own_world_and_its_outputs_come_out(player: Player) -> None:
    look = "; ".join(
        (
            "echo $PandaID $PWD $$ $(pwd) > seen.txt",
            "ls -A $HOME /tmp >> seen.txt",
            "touch $HOME/mine /tmp/mine",
            "cat /proc/*/cmdline | tr '\\0' ' ' >> seen.txt",
            "env > environment",
        )
    )
    job, log = player.play(look, outputs=["seen.txt"], env={"OUTSIDE": "visible"})
    assert ended(job) == ("finished", 0, 0), log
    jobid = int(str(job["PandaID"]))
    (output,) = player.site.stored(jobid)
    seen = output.read_text()
    words = seen.split()
    assert words[:2] == [str(jobid), "/srv/workDir"] and words[3] == "/srv/workDir" and int(words[2]) < 1000
    assert "pilot.py" not in seen and "/root" not in words, "only what runs in the container is seen there"
    files = player.log_tarball(job)
    assert "OUTSIDE" not in files["environment"] and "PILOTKIT" not in files["environment"]
    assert f"PandaID={jobid}\n" in files["environment"]
    assert "exec 9>&-" in files["container_script.sh"] and "mine" not in files
    assert f"exec -C --cleanenv --no-privs --pwd /srv/workDir -B {player.rundir}" in files["pilotlog.txt"]
    assert "container=apptainer-1." in log and "the container runs, after" in log


def test_the_line_in_the_log_is_a_command_that_can_be_run_again(player: Player) -> None:
    jobid = player.submit("echo hello $PandaID; exit 3")
    pilot = pilots.run(player.site.url, QUEUE, player.rundir, "-v", "1", "--cleanup=False", env=player.environ())
    (line,) = (line for line in pilot.log().splitlines() if "container command: " in line)
    workdir = player.rundir
    command = line.partition("container command: ")[2]
    again = subprocess.run(
        ["/bin/sh", "-c", command], env=player.environ(), cwd=workdir, capture_output=True, check=False
    )
    assert (again.returncode, again.stdout) == (3, f"hello {jobid}\n".encode()), again.stderr


@pytest.mark.parametrize(
    ("script", "code", "exit_code"),
    [
        ("exit 3", C.PAYLOADEXECUTIONFAILURE, 3),
        ("exit 255", C.PAYLOADEXECUTIONFAILURE, 255),
        ("kill -11 $$", C.PAYLOADSIGSEGV, 139),
        ("kill -9 $$", C.PAYLOADEXECUTIONFAILURE, 137),
        ("echo 'FATAL:   could not open image /x: no such file' >&2; exit 255", C.PAYLOADEXECUTIONFAILURE, 255),
        ("no-such-command", C.PAYLOADEXECUTIONFAILURE, 127),
        ("rm -rf /srv/workDir/* /srv/workDir/.container; exit 5", C.PAYLOADEXECUTIONFAILURE, 5),
    ],
)  # fmt: skip
def test_a_payload_that_fails_in_its_container_is_the_payloads_failure(
    player: Player, script: str, code: int, exit_code: int
) -> None:
    job, log = player.play(script)
    assert ended(job) == ("failed", code, exit_code), log


def test_daemons_of_a_payload_do_not_outlive_its_container(player: Player) -> None:
    long = f"3600.{os.getpid()}"  # other runs of the tests on this machine sleep for other times
    stay = f"for n in 1 2 3; do (setsid sleep {long} >/dev/null 2>&1 &) ; done; sleep 0.2"
    job, log = player.play(stay)
    assert ended(job) == ("finished", 0, 0), log
    assert not [process for process in psutil.process_iter(["cmdline"]) if long in (process.info["cmdline"] or [])]


def test_an_image_that_is_a_file_runs_as_well(player: Player, tmp_path: Path) -> None:
    image = sif_of(player.box, tmp_path)
    job, log = player.play("true", image)
    assert ended(job) == ("finished", 0, 0), log
    assert f" {image} /bin/sh" in log


def sif_of(box: Container, folder: Path) -> Path:
    """The image of the tests as one file."""
    path = folder / "image.sif"
    subprocess.run(
        [box.runtime, "build", path, box.image],
        env=box.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=60,
    )  # fmt: skip
    return path


def test_inputs_that_are_links_are_seen_in_the_container(player: Player, tmp_path: Path) -> None:
    (jobid,) = player.site.submit(
        {"transformation": "sh", "jobPars": "-c 'echo contents > made.txt'", "outputs": ["made.txt"]}
    )
    pilots.run(player.site.url, QUEUE, player.rundir, "-v", "1", env=player.environ())
    player.site.wait_for(jobid, "finished")
    name = str(player.site.files(jobid, "output")[0]["lfn"])
    reader = player.submit(f"cat {name}", inputs=[name])
    pilot = pilots.run(
        player.site.url, QUEUE, player.rundir, "-v", "1", "--input-destination-dir", str(tmp_path / "shared"),
        env=player.environ(),
    )  # fmt: skip
    assert ended(player.site.wait_for(reader)) == ("finished", 0, 0), pilot.log()


def test_a_job_without_an_image_runs_as_it_is_or_in_the_queues_own_image(player: Player) -> None:
    job, log = player.play("echo ${APPTAINER_CONTAINER:-none} > where.txt; cat where.txt", None)
    assert ended(job) == ("finished", 0, 0) and "container command" not in log
    queue: dict[str, object] = {"catchall": f"default_image={player.box.image}"}
    job, log = player.play('test -n "$APPTAINER_CONTAINER"', None, queue=queue)
    assert ended(job) == ("finished", 0, 0) and "container command" in log, log


# ---- containers that never start


@pytest.mark.parametrize(
    ("image", "queue", "settings", "code", "said"),
    [
        ("/no/such/image.sif", {}, "", C.IMAGENOTFOUND, "the image is not there"),
        ("{folder}/broken.sif", {}, "", C.SINGULARITYIMAGEMOUNTFAILURE, "the image could not be used"),
        ("{folder}/half.sif", {}, "", C.SINGULARITYIMAGEMOUNTFAILURE, "the image could not be used"),
        ("", {"container_options": "-B /no/such/place"}, "", C.SINGULARITYBINDPOINTFAILURE, "/no/such/place"),
        ("", {"catchall": "bindmounts=/etc;relative"}, "", C.BADQUEUECONFIGURATION, "'relative'"),
        ("", {"container_options": "--bind"}, "", C.BADQUEUECONFIGURATION, "--bind"),
        ("", {"container_type": "docker:wrapper"}, "", C.QUEUENOTSETUPFORCONTAINERS, "container_type"),
        ("", {"container_type": "podman:pilot"}, "", C.NOTIMPLEMENTED, "podman"),
        ("", {}, "image_prefixes = /cvmfs/,docker://\n", C.QUEUENOTSETUPFORCONTAINERS, "/cvmfs/, docker://"),
        ("docker://127.0.0.1:1/none", {}, "", C.SINGULARITYGENERALFAILURE, "connection refused"),
        ("what://is/this", {}, "", C.IMAGENOTFOUND, "is no address"),
        ("{folder}/empty", {}, "", C.PAYLOADEXECUTIONFAILURE, "the image has no /bin/sh"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_has_its_own_code_and_sentence(
    player: Player, tmp_path: Path, image: str, queue: dict[str, object], settings: str, code: int, said: str
) -> None:
    if "half" in image:
        whole = sif_of(player.box, tmp_path)
        (tmp_path / "half.sif").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (tmp_path / "broken.sif").write_bytes(b"no image " * 1000)
    for name in ("dev", "etc", "proc", "root", "sys", "tmp", "var/tmp"):
        (tmp_path / "empty" / name).mkdir(parents=True)
    job, log = player.play("touch ran", image.format(folder=tmp_path), queue=queue, settings=f"[Container]\n{settings}")
    assert (job["jobStatus"], job["pilotErrorCode"]) == ("failed", code), log
    assert said in str(job["pilotErrorDiag"])
    assert "ran" not in player.log_tarball(job)


@pytest.mark.parametrize(
    ("runtime", "code"), [("singularity", C.SINGULARITYNOTINSTALLED), ("apptainer", C.APPTAINERNOTINSTALLED)]
)
def test_a_node_without_runtime_says_what_to_install(player: Player, runtime: str, code: int) -> None:
    queue: dict[str, object] = {"container_type": f"{runtime}:pilot"}
    job, log = player.play("true", queue=queue, env={"PATH": os.environ["PATH"]})
    assert (job["jobStatus"], job["pilotErrorCode"]) == ("failed", code), log
    assert "install Apptainer" in str(job["pilotErrorDiag"]) and "container=none" in log


FAKES = {
    "no user name space": (
        "ERROR  : Failed to create user namespace: maximum number of user namespaces exceeded, check "
        "/proc/sys/user/max_user_namespaces",
        C.SINGULARITYFAILEDUSERNAMESPACE,
    ),
    "no loop device": ("FATAL:   no loop devices available", C.SINGULARITYNOLOOPDEVICES),
    "no new name space": ("ERROR  : Failed invoking the NEWUSER namespace runtime", C.SINGULARITYNEWUSERNAMESPACE),
    "no process": ("runtime: failed to create new OS thread (have 2 already)", C.SINGULARITYRESOURCEUNAVAILABLE),
    "silent": ("", C.SINGULARITYGENERALFAILURE),
}  # fmt: skip


def fake_runtime(folder: Path, does: str) -> dict[str, str]:
    """A runtime that tells its version and then does something else than run a container."""
    folder.mkdir(exist_ok=True)
    program = folder / "apptainer"
    program.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then echo apptainer version 1.4.5; exit; fi\n{does}\n')
    program.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize("fault", FAKES)
def test_what_a_node_does_not_allow_is_recognised_by_the_runtimes_words(
    player: Player, tmp_path: Path, fault: str
) -> None:
    words, code = FAKES[fault]
    job, log = player.play("true", env=fake_runtime(tmp_path / "fake", f"echo {shlex.quote(words)} >&2; exit 255"))
    assert ended(job) == ("failed", code, 0), log


def test_a_runtime_that_says_all_is_well_and_has_run_nothing_is_not_believed(player: Player, tmp_path: Path) -> None:
    job, log = player.play("true", env=fake_runtime(tmp_path / "fake", "exit 0"))
    assert ended(job) == ("failed", C.SINGULARITYGENERALFAILURE, 0), log


def test_a_runtime_that_hangs_is_ended_in_time(player: Player, tmp_path: Path) -> None:
    env = fake_runtime(tmp_path / "fake", "sleep 3600")
    job, log = player.play("true", env=env, settings="[Container]\nstart_limit = 1\n")
    assert ended(job) == ("failed", C.SINGULARITYGENERALFAILURE, 0), log
    assert "had not started after 1 s (start_limit)" in str(job["pilotErrorDiag"])


def test_a_fetch_that_hangs_is_ended_in_time(player: Player, tmp_path: Path) -> None:
    env = fake_runtime(tmp_path / "fake", "sleep 3600")
    job, log = player.play("true", "docker://127.0.0.1:1/x", env=env, settings="[Container]\nimage_limit = 1\n")
    assert ended(job) == ("failed", C.SINGULARITYGENERALFAILURE, 0), log
    assert "longer than 1 s (image_limit)" in str(job["pilotErrorDiag"])


# ---- nothing stays, nothing is shown


def test_a_pilot_that_is_killed_leaves_nothing_of_its_container(player: Player) -> None:
    jobid = player.submit("(setsid sleep 3600 &); sleep 3600")
    with pilots.running(player.site.url, QUEUE, player.rundir, "-v", "1", env=player.environ()) as pilot:
        player.site.wait_for(jobid, "running")
        pilots.wait_until(lambda: len(sleepers(pilot)) == 2, "the payload runs")
        below = pilot.tree()
        pilot.signal(signal.SIGKILL)
        pilot.process.wait()
        psutil.wait_procs(below, timeout=10)
        assert pilots.names(below) == []
    player.site.call("job/kill", {"job_ids": [jobid]})


def sleepers(pilot: pilots.Pilot) -> list[str]:
    return [name for name in pilots.names(pilot.tree()) if name == "sleep 3600"]


def test_a_kill_of_the_runtime_ends_all_that_runs_in_it(player: Player) -> None:
    jobid = player.submit("(setsid sleep 3600 &); sleep 3600")
    with pilots.running(player.site.url, QUEUE, player.rundir, "-v", "1", env=player.environ()) as pilot:
        pilots.wait_until(lambda: len(sleepers(pilot)) == 2, "the payload runs")
        (guard,) = psutil.Process(pilot.pid).children()
        inside = guard.children(recursive=True)
        guard.children()[0].kill()
        psutil.wait_procs(inside, timeout=10)
        assert pilots.names(inside) == []
        pilot.wait()
    assert ended(player.site.wait_for(jobid)) == ("failed", C.PAYLOADEXECUTIONFAILURE, 137)


def test_a_payload_finds_no_credential_of_the_pilot_wherever_it_looks(player: Player, tmp_path: Path) -> None:
    secret = "canary-9f2c71"
    folder = tmp_path / "home"
    folder.mkdir()
    token = folder / "token"
    token.write_text(secret)
    look = (
        "env > all; cat /proc/*/environ /proc/*/cmdline /proc/*/mountinfo >> all 2>/dev/null; ls -l /proc/*/fd/ >> all;"
        f" cat {token} {folder}/* $HOME/* /tmp/* /var/tmp/* >> all 2>/dev/null; find / -name 'token*'"
        " -not -path '/usr/*' -not -path '/proc/*' -not -path '/sys/*' -exec cat {} + >> all 2>/dev/null; true"
    )
    job, log = player.play(
        look,
        queue={"container_options": f"-B {folder} -B {tmp_path} -B /etc:/data --home /nowhere"},
        env={"PANDA_AUTH_TOKEN": str(token), "PANDA_AUTH_ORIGIN": "vo", "BEARER_TOKEN": secret, "MY_TOKEN": secret},
    )
    assert ended(job) == ("finished", 0, 0), log
    files = player.log_tarball(job)
    assert len(files["all"]) > 1000 and "/data" in files["all"]
    assert secret not in files["all"] and secret not in log
    # Nor was it there and is masked in the log.
    assert "*" * len(secret) not in files["all"]
    assert "the pilot's credentials lie in it" in log and "--home /nowhere not taken" in log


# ---- images by address


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    """A registry with the image tools/busybox:1 in it."""
    with running_registry() as made, tempfile.TemporaryDirectory() as folder:
        made.put("tools/busybox:1", put_busybox(Path(folder, "image")))
        yield made


def test_an_image_is_fetched_from_its_registry_once_for_all_jobs_of_a_pilot(player: Player, registry: Registry) -> None:
    address = registry.docker("tools/busybox:1")
    script = "test -x /bin/busybox && test $PWD = /srv/workDir && ! env | grep -q REGISTRY-PASSWORD"
    jobids = [player.submit(script, address), player.submit(script, None, container_name=address)]
    # Bound into every container otherwise, over what is in this image.
    env = {"APPTAINER_BIND": "", "APPTAINER_DOCKER_PASSWORD": "REGISTRY-PASSWORD", "APPTAINER_DOCKER_USERNAME": "me"}
    pilot = pilots.run(player.site.url, QUEUE, player.rundir, "-v", "1", env=player.environ(env=env))
    assert [ended(player.site.wait_for(jobid)) for jobid in jobids] == [("finished", 0, 0)] * 2, pilot.log()
    assert pilot.log().count("fetching image") == 1 and "is there already" in pilot.log()
    assert not list(player.rundir.glob("pilotkit-[0-9]*"))


def test_an_image_that_the_registry_does_not_have_is_named(player: Player, registry: Registry) -> None:
    job, log = player.play("true", registry.docker("tools/busybox:2"))
    assert ended(job) == ("failed", C.IMAGENOTFOUND, 0), log
    assert "manifest unknown" in str(job["pilotErrorDiag"])


# ---- as an ordinary user


@pytest.fixture(scope="module")
def their_site(server: RunningServer, user: User) -> Site:
    """The same server, with a storage that everybody may write to."""
    site = add_site(server.url, user.folder, timefloor=60, **CONTAINERS)
    site.storage.chmod(0o777)
    return site


@pytest.mark.parametrize("form", ["directory", "file", "address"])
def test_an_ordinary_users_payload_runs_in_every_form_of_image(
    their_site: Site, user: User, box: Container, registry: Registry, form: str
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="image-", dir=user.folder))
    folder.chmod(0o755)
    image: str | Path = put_busybox(folder / "image")
    if form == "file":
        image = sif_of(replace(box, image=Path(image)), folder)
    elif form == "address":
        image = registry.docker("tools/busybox:1")
    player = Player(their_site, box, user.rundir)
    script = "id -u > seen.txt; ps -o pid,args >> seen.txt; echo $PandaID >> seen.txt; touch $HOME/x /tmp/x; exit 3"
    jobid = player.submit(script, image)
    log = user.run(their_site.url, QUEUE, "-v", "1", env={"PATH": box.environ["PATH"]})
    job = their_site.wait_for(jobid)
    assert ended(job) == ("failed", C.PAYLOADEXECUTIONFAILURE, 3), log
    seen = player.log_tarball(job)["seen.txt"]
    assert seen.split()[0] == str(user.uid) and f"\n{jobid}\n" in seen and "pilot.py" not in seen
    assert not list(user.rundir.glob("pilotkit-[0-9]*"))
