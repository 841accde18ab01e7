"""Containers: the command of a runtime, what its failures mean, and when a queue wants transfers in one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pilot.api.middleware import middleware_of
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.info.queuedata import QueueData
from pilot.util.config import ContainerSettings
from pilot.util.container import Bind, Container, Runtime, container_environment, container_error, find_runtime
from tests.unit.pilot.builders import SETTINGS

C = ErrorCodes


@pytest.fixture
def node(tmp_path: Path) -> dict[str, str]:
    """The environment of a node that has Singularity under its old name alone."""
    program = tmp_path / "bin" / "singularity"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return {"PATH": str(program.parent)}


def test_a_command_has_name_spaces_of_its_own_and_sees_what_is_named() -> None:
    binds = [Bind(Path("/job"), writable=True), Bind(Path("/cert"), Path("/etc/cert"))]
    command = Container("/usr/bin/apptainer", "/i.sif", ("--nv",)).command(["echo", "a b"], binds, Path("/job"))
    assert command == [
        "/usr/bin/apptainer", "--silent", "exec", "-C", "--cleanenv", "--no-privs", "--pwd", "/job",
        "-B", "/job:/job:rw", "-B", "/cert:/etc/cert:ro", "--nv", "/i.sif", "echo", "a b",
    ]  # fmt: skip


@pytest.mark.parametrize("path", ["/a,b", "/a:b", "relative"])
def test_a_place_that_a_runtime_would_misread_is_refused(path: str) -> None:
    with pytest.raises(PilotException, match="cannot be seen in a container") as raised:
        Container("a", "i").command([], [Bind(Path(path))], Path("/"))
    assert raised.value.code == C.SINGULARITYBINDPOINTFAILURE


def test_only_named_variables_reach_the_container() -> None:
    environ = {"PATH": "/bin", "APPTAINERENV_SECRET": "x", "SINGULARITYENV_SECRET": "x"}
    wanted = {"PATH": "/bin", "APPTAINERENV_A": "1", "SINGULARITYENV_A": "1"}
    assert container_environment(environ, {"A": "1"}) == wanted


@pytest.mark.parametrize("name", ["apptainer", "singularity", "container"])
def test_either_name_of_the_runtime_will_do(node: dict[str, str], name: str) -> None:
    assert find_runtime(name, node).endswith("/bin/singularity")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("apptainer", C.APPTAINERNOTINSTALLED),
        ("singularity", C.SINGULARITYNOTINSTALLED),
        ("docker", C.NOTIMPLEMENTED),
    ],
)
def test_a_runtime_that_is_not_there_is_named(name: str, code: int) -> None:
    with pytest.raises(PilotException, match=r"apptainer and singularity|neither apptainer nor singularity") as raised:
        find_runtime(name, {"PATH": "/nowhere"})
    assert raised.value.code == code


# What Apptainer 1.4 and Singularity 3.8 say.
@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("FATAL: while mounting image /proc/self/fd/3: no more available loop devices", C.SINGULARITYNOLOOPDEVICES),
        ("ERROR: Failed to create user namespace: user namespace disabled", C.SINGULARITYFAILEDUSERNAMESPACE),
        ("ERROR  : Failed invoking the NEWUSER namespace runtime: Invalid argument", C.SINGULARITYNEWUSERNAMESPACE),
        ("WARNING: Not mounting requested bind point: /x", C.SINGULARITYBINDPOINTFAILURE),
        ("FATAL: container creation failed: mount /x->/x error: while mounting /x: mount source /x doesn't exist",
         C.SINGULARITYBINDPOINTFAILURE),
        ("FATAL: While checking container encryption: could not open image /b.sif: image format not recognized",
         C.SINGULARITYIMAGEMOUNTFAILURE),
        ("FATAL: could not open image /none.sif: failed to retrieve path for /none.sif", C.IMAGENOTFOUND),
        ("FATAL: fork/exec: resource temporarily unavailable", C.SINGULARITYRESOURCEUNAVAILABLE),
        ("FATAL: something else", C.SINGULARITYGENERALFAILURE),
        ("", C.SINGULARITYGENERALFAILURE),
    ],
)  # fmt: skip
def test_the_words_of_a_runtime_become_a_code(said: str, code: int) -> None:
    error = container_error(f"INFO: x\n{said}\n", "exit code 255")
    assert error.code == code and "exit code 255" in error.diag and said[-40:] in error.diag


def settings_of(image: str, python: str = "python3") -> ContainerSettings:
    return replace(SETTINGS.container, middleware_image=image, middleware_python=python)


def queue(**settings: str) -> QueueData:
    return QueueData({"name": "Q", **settings})


def test_a_queue_without_middleware_container_needs_none(node: dict[str, str]) -> None:
    settings = settings_of("/image")
    assert middleware_of(queue(container_type="singularity:pilot;docker:wrapper"), settings, node) is None


def test_a_queues_own_image_and_options_win(node: dict[str, str], tmp_path: Path) -> None:
    settings = settings_of(str(tmp_path / "none"), "python3.11")
    made = middleware_of(
        queue(
            container_type="singularity:pilot;container:middleware", container_options="-B '/a b' --nv --pwd /",
            catchall=f"x,middleware_image={tmp_path},bindmounts=/c:/d:ro",
        ),
        settings,
        node,
    )  # fmt: skip
    assert made is not None and made.python == "python3.11"
    assert (made.container.image, made.container.options) == (str(tmp_path), ("--nv",))
    assert [bind.option() for bind in made.binds] == ["/a b:/a b:rw", "/c:/d:ro"]
    assert made.refused == ("--pwd", "/"), "what would undo the pilot's own options is not taken"


def test_a_runtime_that_cannot_mount_an_image_unpacks_the_middlewares_too(node: dict[str, str], tmp_path: Path) -> None:
    wanted = queue(container_type="apptainer:middleware", catchall=f"middleware_image={tmp_path}")
    made = middleware_of(wanted, settings_of(""), node, Runtime(find_runtime("apptainer", node), mounts=False))
    assert made is not None and made.container.options == ("--unsquash",)


@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        ({}, C.IMAGENOTFOUND, "middleware_image in its catchall"),
        ({"catchall": "middleware_image=/none"}, C.IMAGENOTFOUND, "image /none is not there"),
        ({"catchall": "middleware_image=/tmp", "container_options": "'"}, C.BADQUEUECONFIGURATION, "container_options"),
    ],
)
def test_a_queue_that_asks_for_what_cannot_be_had_says_what_is_missing(
    node: dict[str, str], settings: dict[str, str], code: int, said: str
) -> None:
    with pytest.raises(PilotException) as raised:
        middleware_of(queue(container_type="apptainer:middleware", **settings), settings_of("", "p"), node)
    assert raised.value.code == code and said in raised.value.diag
