"""A payload's container: what queue, job and settings ask for, and the command, environment and error it becomes."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from pilot.common.errorcodes import Blame, ErrorCodes
from pilot.common.exception import PilotException
from pilot.control.context import Context
from pilot.control.jobrun import JobRun
from pilot.control.payloads.container import SCRIPT, PayloadContainer, gpu_option, linked_files, read_files
from pilot.control.payloads.generic import Executor, passed_on
from pilot.control.payloads.images import check_prefix, fetch_image
from pilot.info.filespec import FileSpec
from pilot.user.generic.container import create_stagein_container_command, do_use_container, get_image, wrapper
from pilot.util.config import ContainerSettings
from pilot.util.container import (
    Bind,
    Container,
    Runtime,
    container_error,
    execute,
    fetch_error,
    parse_bind,
    probe,
    runtime_environment,
    site_options,
)
from pilot.util.guarded import Launcher
from pilot.util.https import Json
from tests.unit.pilot.builders import SETTINGS, context, infosys, job_run

C = ErrorCodes
GOLDEN = json.loads((Path(__file__).resolve().parents[2] / "golden" / "apptainer.json").read_text())


@pytest.fixture
def node(tmp_path: Path) -> str:
    """A folder with a runtime that says which version it is; it also says what it was called with, and fails."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "apptainer"
    program.write_text('#!/bin/sh\n[ "$1" = --version ] && echo apptainer version 1.4.5 && exit\necho "$@"\nexit 9\n')
    program.chmod(0o755)
    return str(folder)


def settings_of(**changes: object) -> ContainerSettings:
    return replace(SETTINGS.container, **changes)  # type: ignore[arg-type]


def shared(tmp_path: Path, node: str, environ: Mapping[str, str] | None = None, **changes: object) -> Context:
    """What a pilot's controllers share, on a node with a runtime. changes: of the settings for containers."""
    settings = replace(SETTINGS, container=settings_of(**changes))
    made = context(tmp_path / "pilot", environ={"PATH": f"{node}:/usr/bin:/bin", **(environ or {})}, settings=settings)
    return replace(made, runtime=Runtime(f"{node}/apptainer", "apptainer", "1.4.5", namespaces=True, mounts=True))


def job(made: Context, queue: dict[str, Json] | None = None, **changes: Json) -> JobRun:
    """A job of a queue that lets the pilot run containers."""
    run = job_run(made.workdir / "PanDA_Pilot-254", **{"transformation": "true", "jobPars": "", **changes})
    run.workdir.mkdir(exist_ok=True)
    run.infosys = infosys({"container_type": "singularity:pilot", **(queue or {})}, {})
    return run


def command_of(made: Context, run: JobRun) -> list[str]:
    return PayloadContainer(made, run).prepare("./run --all", {"PandaID": "254", "PWD": str(run.workdir)})


# ---- the command


def test_the_command_has_its_own_name_spaces_the_jobs_directory_and_a_place_of_its_own(
    tmp_path: Path, node: str
) -> None:
    made = shared(tmp_path, node)
    run = job(made, container_name="/image.sif")
    assert command_of(made, run) == [
        f"{node}/apptainer", "--silent", "exec", "-C", "--cleanenv", "--no-privs", "--pwd", "/srv/workDir",
        "-B", f"{run.workdir}:/srv/workDir:rw", "--workdir", str(run.inside),
        "/image.sif", "/bin/sh", f"/srv/workDir/{SCRIPT}",
    ]  # fmt: skip
    script = (run.workdir / SCRIPT).read_text()
    assert "echo started >&9" in script and "exec 9>&-" in script
    assert "export PandaID=254\n" in script and "export PWD=/srv/workDir\n" in script
    assert script.endswith("""exec "$shell" -c './run --all'\n""")


@pytest.mark.parametrize(
    ("queue", "settings", "words"),
    [
        ({"container_options": "-B /cvmfs"}, {}, "-B /cvmfs:/cvmfs:rw"),
        ({"container_options": "--bind=/a:/b:ro,/c"}, {}, "-B /a:/b:ro -B /c:/c:rw"),
        ({"catchall": "x,bindmounts=/a;/b:/c:ro,y"}, {}, "-B /a:/a:rw -B /b:/c:ro"),
        ({}, {"bind": "/cvmfs, /data:/d"}, "-B /cvmfs:/cvmfs:rw -B /data:/d:rw"),
        ({"container_options": "--nv --unsquash"}, {}, "--nv --unsquash /image.sif"),
        ({"container_options": "--overlay /o --dns 1.1.1.1"}, {}, "--overlay /o --dns 1.1.1.1 /image.sif"),
        ({}, {"workdir": "/work"}, "PanDA_Pilot-254:/work:rw"),
    ],
)
def test_queue_and_settings_add_to_the_command(
    tmp_path: Path, node: str, queue: dict[str, Json], settings: dict[str, object], words: str
) -> None:
    made = shared(tmp_path, node, **settings)
    assert words in shlex.join(command_of(made, job(made, queue, container_name="/image.sif")))


@pytest.mark.parametrize(
    "text",
    ["--home /x", "-H /x", "--env A=B", "--env-file /x", "--pwd /x", "-W /x", "--writable", "docker://evil", "-s"],
)
def test_what_would_undo_what_is_promised_is_not_taken_from_a_queue(text: str) -> None:
    assert site_options(f"-B /a {text} --nv") == (["/a"], ["--nv"], shlex.split(text))


@pytest.mark.parametrize("text", ["-B", "--overlay", "'"])
def test_options_that_cannot_be_understood_are_the_queues_fault(text: str) -> None:
    with pytest.raises(PilotException, match="container_options") as raised:
        site_options(text)
    assert raised.value.code == C.BADQUEUECONFIGURATION


@pytest.mark.parametrize("text", ["relative", "/a:b", "/a:/b:rx", ""])
def test_a_bind_that_is_none_is_named(text: str) -> None:
    with pytest.raises(PilotException, match="bind mount") as raised:
        parse_bind(text)
    assert raised.value.code == C.BADQUEUECONFIGURATION


def test_a_runtime_that_cannot_mount_files_unpacks_them(tmp_path: Path, node: str) -> None:
    made = shared(tmp_path, node)
    made = replace(made, runtime=replace(made.runtime, mounts=False))  # type: ignore[type-var]
    assert "--unsquash" in command_of(made, job(made, container_name="/image.sif"))


def test_links_out_of_the_jobs_directory_are_seen_where_they_lead_to(tmp_path: Path) -> None:
    workdir, storage = tmp_path / "job", tmp_path / "storage"
    for folder in (workdir, storage):
        folder.mkdir()
    for name in ("a", "b"):
        (storage / name).write_text("")
    (workdir / "own").write_text("")
    (workdir / "absolute").symlink_to(storage / "a")
    (workdir / "relative").symlink_to("../storage/b")
    (workdir / "inside").symlink_to("own")
    (workdir / "broken").symlink_to("/no/such/file")
    found = {str(bind.inside): (bind.outside, bind.writable) for bind in linked_files(workdir, Path("/srv/workDir"))}
    assert found == {str(storage / "a"): (storage / "a", False), "/srv/storage/b": (storage / "b", False)}


def test_files_that_are_read_where_they_lie_are_seen_there(tmp_path: Path) -> None:
    (tmp_path / "a b").write_text("")
    specs = [
        FileSpec(lfn="a", status="remote_io", turl=f"file://localhost{tmp_path}/a%20b"),
        FileSpec(lfn="c", status="remote_io", turl="root://host//c"),
        FileSpec(lfn="d", status="remote_io", turl="file:///no/such/file"),
        FileSpec(lfn="e", status="transferred", turl=f"file://{tmp_path}/a%20b"),
    ]
    assert read_files(specs) == [Bind(tmp_path / "a b")]


@pytest.mark.parametrize(
    ("devices", "option"), [((), ""), (("nvidiactl",), "--nv"), (("kfd",), "--rocm"), (("kfd", "nvidiactl"), "--nv")]
)
def test_the_gpus_of_the_node_decide_how_they_are_seen(tmp_path: Path, devices: tuple[str, ...], option: str) -> None:
    for name in devices:
        (tmp_path / name).touch()
    assert gpu_option(tmp_path) == option


@pytest.mark.parametrize(
    ("queue", "changes", "wanted"),
    [
        ({}, {}, False),
        ({"resource_type": "gpu"}, {}, True),
        ({"catchall": "gpu,x"}, {}, True),
        ({}, {"cmtConfig": "x86_64-el9-gcc13-opt&nvidia"}, True),
    ],
)
def test_a_gpu_is_given_to_whom_asks_for_one(
    tmp_path: Path,
    node: str,
    monkeypatch: pytest.MonkeyPatch,
    queue: dict[str, Json],
    changes: dict[str, Json],
    wanted: bool,
) -> None:
    monkeypatch.setattr("pilot.control.payloads.container.gpu_option", lambda: "--nv")
    made = shared(tmp_path, node)
    assert ("--nv" in command_of(made, job(made, queue, container_name="/image.sif", **changes))) is wanted


# ---- who runs in which image


@pytest.mark.parametrize(
    ("queue", "changes", "default", "image"),
    [
        ({}, {}, "", ""),
        ({}, {"container_name": "/b"}, "/d", "/b"),
        ({}, {"jobPars": "x --containerImage=/a", "container_name": "/b"}, "/d", "/a"),
        ({}, {}, "/d", "/d"),
        ({"catchall": "default_image=/c"}, {}, "/d", "/c"),
        ({"container_type": "docker:wrapper"}, {}, "/d", ""),
        ({"container_type": ""}, {"container_name": "/b"}, "", "/b"),
    ],
)
def test_the_jobs_image_comes_before_the_queues_and_that_before_the_settings(
    tmp_path: Path, node: str, queue: dict[str, Json], changes: dict[str, Json], default: str, image: str
) -> None:
    run = job(shared(tmp_path, node), queue, **changes)
    question = {"job": run.data, "queuedata": run.infosys.queuedata, "default_image": default}
    assert get_image(**question) == image
    assert do_use_container(**question) is bool(image)


@pytest.mark.parametrize(
    ("queue", "settings", "code", "said"),
    [
        ({"container_type": ""}, {}, C.QUEUENOTSETUPFORCONTAINERS, "container_type"),
        ({"container_type": "docker:pilot"}, {}, C.NOTIMPLEMENTED, "docker"),
        ({}, {"runtime": "/no/such/apptainer"}, C.SINGULARITYNOTINSTALLED, "/no/such/apptainer"),
        ({}, {"image_prefixes": "/cvmfs/"}, C.QUEUENOTSETUPFORCONTAINERS, "/cvmfs/"),
    ],
)
def test_what_a_site_does_not_give_is_the_sites_to_mend(
    tmp_path: Path, node: str, queue: dict[str, Json], settings: dict[str, object], code: int, said: str
) -> None:
    made = shared(tmp_path, node, **settings)
    with pytest.raises(PilotException) as raised:
        PayloadContainer(made, job(made, queue, container_name="/image.sif"))
    assert raised.value.code == code and said in raised.value.diag


def test_the_settings_name_the_runtime_where_the_queue_does_not(tmp_path: Path, node: str) -> None:
    made = shared(tmp_path, node, type="apptainer")
    assert command_of(made, job(made, {"container_type": ""}, container_name="/image.sif"))[0] == f"{node}/apptainer"


@pytest.mark.parametrize(
    ("image", "allowed"),
    [
        ("/cvmfs/unpacked/x", True),
        ("/cvmfs/unpacked/../unpacked/x", True),
        ("docker://ghcr.io/x:1", True),
        ("/cvmfs/other/x", False),
        ("/cvmfs/unpacked/../other", False),
        ("docker://ghcr.io.evil/x", False),
        ("docker://ghcr.io/../x", False),
        ("docker://docker.io/x", False),
        ("x", False),
    ],
)
def test_only_images_below_an_allowed_prefix_are_used(image: str, allowed: bool) -> None:
    check_prefix(image, "")
    if allowed:
        check_prefix(image, "/cvmfs/unpacked/, docker://ghcr.io/")
        return
    with pytest.raises(PilotException, match="none of those that this site allows"):
        check_prefix(image, "/cvmfs/unpacked/, docker://ghcr.io/")


@pytest.mark.parametrize("image", ["what://x", "docker://", "docker://a b", "docker:// x"])
def test_what_is_no_address_of_an_image_is_not_fetched(tmp_path: Path, node: str, image: str) -> None:
    made = shared(tmp_path, node)
    with pytest.raises(PilotException, match="is no address") as raised:
        fetch_image(made, job(made), "apptainer", image)
    assert raised.value.code == C.IMAGENOTFOUND


@pytest.mark.parametrize(
    ("image", "fetched"), [("http://far.example/x.sif", False), ("http://127.0.0.1:1/x.sif", True)]
)
def test_an_image_from_elsewhere_is_not_fetched_without_tls(
    tmp_path: Path, node: str, image: str, fetched: bool
) -> None:
    made = shared(tmp_path, node)
    with pytest.raises(PilotException, match="exit code 9" if fetched else "without TLS"):
        fetch_image(made, job(made), f"{node}/apptainer", image)


def test_a_fetch_that_is_no_longer_wanted_ends(tmp_path: Path, node: str) -> None:
    (tmp_path / "bin" / "apptainer").write_text("#!/bin/sh\nexec sleep 300\n")
    made = shared(tmp_path, node)
    run = job(made)
    run.cancel_payload.set()
    with pytest.raises(PilotException, match="the job was ended"):
        fetch_image(made, run, f"{node}/apptainer", "docker://127.0.0.1:1/x")
    assert list((made.workdir / "images").iterdir()) == []


def test_a_command_of_the_image_is_not_looked_for_on_the_node(tmp_path: Path, node: str) -> None:
    made = shared(tmp_path, node)
    run = job(made, container_name="/image.sif", transformation="only-in-the-image", jobPars="-x")
    assert Executor(made, run).get_payload_command(contained=True) == "only-in-the-image -x"


# ---- what gets in


def test_the_runtime_gets_nothing_of_the_pilots_environment_but_what_it_needs() -> None:
    environ = {
        "PATH": "/bin", "HOME": "/home/x", "PANDA_AUTH_TOKEN": "s", "X509_USER_PROXY": "s", "MY_PASSWORD": "s",
        "APPTAINER_BIND": "/cvmfs", "APPTAINERENV_BEARER_TOKEN": "s", "APPTAINER_DOCKER_PASSWORD": "p",
        "APPTAINER_ENV": "s", "https_proxy": "http://proxy",
    }  # fmt: skip
    assert runtime_environment(environ) == {"PATH": "/bin", "HOME": "/home/x", "APPTAINER_BIND": "/cvmfs"}
    fetching = runtime_environment(environ, fetches=True)
    assert (fetching["APPTAINER_DOCKER_PASSWORD"], fetching["https_proxy"]) == ("p", "http://proxy")
    assert "s" not in fetching.values()


@pytest.mark.parametrize("name", ["APPTAINER_CONFIGDIR", "SINGULARITY_CONFIGDIR"])
def test_a_sites_own_place_for_the_runtimes_files_has_the_same_name_twice(tmp_path: Path, name: str) -> None:
    found = runtime_environment({name: "/site"}, tmp_path)
    assert found["APPTAINER_CONFIGDIR"] == found["SINGULARITY_CONFIGDIR"] == "/site"
    assert found["APPTAINER_TMPDIR"] == found["SINGULARITY_TMPDIR"] == str(tmp_path)


def test_a_payload_finds_the_variables_that_the_settings_name_but_no_credential() -> None:
    environ = {"A": "1", "B": "2", "X509_USER_PROXY": "s", "BASH_FUNC_x%%": "()"}
    assert passed_on(environ, "A, X509_USER_PROXY ,BASH_FUNC_x%%,C") == {"A": "1"}


def test_a_bind_that_would_show_the_pilots_credentials_is_left_out(tmp_path: Path, node: str) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "proxy").write_text("")
    environ = {"X509_USER_PROXY": str(secrets / "proxy"), "APPTAINER_BIND": f"/etc,{tmp_path}:/x:ro"}
    made = shared(tmp_path, node, environ)
    options = f"-B {secrets} -B /usr -B {secrets}/proxy:/p"
    run = job(made, {"container_options": options}, container_name="/image.sif")
    command = shlex.join(command_of(made, run))
    assert "-B /usr:/usr:rw" in command and str(secrets) not in command
    assert PayloadContainer(made, run).environment()["APPTAINER_BIND"] == "/etc"


# ---- what a runtime's words mean


@pytest.mark.parametrize("row", GOLDEN["start"], ids=lambda row: row["what"])
def test_what_apptainer_has_really_said_is_recognised(row: dict[str, object]) -> None:
    error = container_error(str(row["stderr"]), "exit code 255")
    assert error.code == row["code"] and "exit code 255" in error.diag
    assert error.diag.isprintable() and len(error.diag) < 450


@pytest.mark.parametrize("row", GOLDEN["fetch"], ids=lambda row: row["what"])
def test_what_apptainer_has_said_of_registries_is_recognised(row: dict[str, object]) -> None:
    error = fetch_error("docker://x", str(row["stderr"]), "exit code 255")
    assert error.code == row["code"] and "docker://x" in error.diag


def test_no_failure_of_a_runtime_is_the_payloads_but_an_image_without_a_shell() -> None:
    blamed = {row["what"]: container_error(row["stderr"], "").blame for row in GOLDEN["start"]}
    assert {what for what, blame in blamed.items() if blame is Blame.PAYLOAD} == {"an image without a shell"}
    assert {what for what, blame in blamed.items() if blame is Blame.USER} == {"a missing image"}


# ---- the node's runtime


def test_a_runtime_is_asked_once_for_what_it_is(tmp_path: Path, node: str) -> None:
    found = probe(f"{node}/apptainer", Launcher(), {"PATH": "/usr/bin:/bin"}, tmp_path)
    assert (found.name, found.version) == ("apptainer", "1.4.5")
    assert found.facts()["container"] == "apptainer-1.4.5" and set(found.facts()) == {"container", "userns", "images"}


def test_a_node_without_user_name_spaces_says_so(tmp_path: Path, node: str) -> None:
    for name, text in (("unshare", "#!/bin/sh\nexit 1\n"),):
        (Path(node) / name).write_text(text)
        (Path(node) / name).chmod(0o755)
    found = probe(f"{node}/apptainer", Launcher(), {"PATH": f"{node}:/usr/bin:/bin"}, tmp_path)
    assert found.facts()["userns"] == "no" and found.version == "1.4.5"


@pytest.mark.parametrize("text", ["#!/bin/sh\nexit 1\n", "#!/bin/sh\necho 'what?'\n", "#!/no/such/shell\n"])
def test_a_runtime_that_does_not_tell_is_silent(tmp_path: Path, node: str, text: str) -> None:
    (Path(node) / "apptainer").write_text(text)
    found = probe(f"{node}/apptainer", Launcher(), {"PATH": "/usr/bin:/bin"}, tmp_path)
    assert found.facts()["container"] == "apptainer-silent"


# ---- the documented names


def test_the_wrapper_leaves_a_command_alone_without_a_container() -> None:
    assert wrapper("a 'b c'") == "a 'b c'"
    made = wrapper("a 'b c'", container=Container("/r", "/i"), binds=[Bind(Path("/x"))], workdir=Path("/w"))
    assert shlex.split(made)[-3:] == ["/i", "a", "b c"] and "-B /x:/x:ro" in made


def test_a_stage_in_command_goes_into_a_script(tmp_path: Path) -> None:
    command = create_stagein_container_command(str(tmp_path), "cp a b")
    assert shlex.split(command) == ["/bin/sh", str(tmp_path / "stagein.sh")]
    assert (tmp_path / "stagein.sh").read_text() == "cp a b\n"
    inside = create_stagein_container_command(str(tmp_path), "cp a b", Container("/r", "/i"))
    assert inside.endswith(f"/i /bin/sh {tmp_path}/stagein.sh") and f"-B {tmp_path}:{tmp_path}:rw" in inside
    assert os.path.isdir(tmp_path)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["sh", "-c", "echo a; echo b >&2; exit 3"], (3, "a\n", "b\n")),
        ("echo '$HOME;' x", (0, "$HOME; x\n", "")),
        (["sh", "-c", "kill -9 $$"], (137, "", "")),
    ],
)
def test_a_command_is_executed_without_a_shell(
    tmp_path: Path, command: str | list[str], told: tuple[int, str, str]
) -> None:
    assert execute(command, cwd=tmp_path) == told


def test_a_command_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    assert execute(["sh", "-c", "echo a; sleep 300"], timeout=3, cwd=tmp_path) == (C.COMMANDTIMEDOUT, "a\n", "")
