"""Faults of containers (promise U4): what the job asks for, what the node has, and what the payload does in one."""

from __future__ import annotations

import os
import shlex
import subprocess

from pilot.common.errorcodes import ErrorCodes as C
from tests.injected.fault import BY_PAYLOAD, BY_RUNTIME, BY_START, Before, Fault, Scene

# A PATH without a runtime, where the suite has put none.
_NO_RUNTIME = {"PATH": "/usr/bin:/bin", "APPTAINER_BIND": ""}


def _broken_image(scene: Scene) -> None:
    (scene.folder / "broken.sif").write_bytes(b"no image " * 1000)


def _half_an_image(scene: Scene) -> None:
    box, whole = scene.box(), scene.folder / "whole.sif"
    subprocess.run(
        [box.runtime, "build", whole, box.image], env=box.environ, capture_output=True, check=True, timeout=60
    )
    (scene.folder / "half.sif").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])


def _image_without_shell(scene: Scene) -> None:
    for name in ("dev", "etc", "proc", "root", "sys", "tmp", "var/tmp"):
        (scene.folder / "empty" / name).mkdir(parents=True)


def runtime_that(does: str) -> Before:
    """A runtime that tells its version and then does something else than run a container."""

    def made(scene: Scene) -> None:
        folder = scene.folder / "fake"
        folder.mkdir()
        program = folder / "apptainer"
        version = 'if [ "$1" = --version ]; then echo apptainer version 1.4.5; exit; fi'
        program.write_text(f"#!/bin/sh\n{version}\n{does}\n")
        program.chmod(0o755)
        scene.env["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"

    return made


def says(name: str, words: str, code: int, *said: str) -> Fault:
    """A runtime that gives up, in the words that the real one has for it."""
    how = f"a runtime in the place of Apptainer that says `{words}`, as Apptainer or Singularity does"
    does = f"echo {shlex.quote(words)} >&2; exit 255"
    return Fault(
        name, how, code, "site", BY_RUNTIME, said, image="{image}", before=runtime_that(does), command=True, shell=1
    )


FAULTS = (
    Fault(
        "a payload in a container says no", "`exit 3` in an image", C.PAYLOADEXECUTIONFAILURE, "payload", BY_PAYLOAD,
        ("exit code 3",), "exit 3", image="{image}", trans=3, command=True,
    ),
    Fault(
        "a payload in a container crashes", "`kill -11 $$` in an image", C.PAYLOADSIGSEGV, "payload", BY_PAYLOAD,
        ("139",), "kill -11 $$", image="{image}", trans=139, command=True,
    ),
    Fault(
        "a payload speaks like a runtime that has failed", "`FATAL:   could not open image` on stderr, in an image",
        C.PAYLOADEXECUTIONFAILURE, "payload", BY_PAYLOAD, ("exit code 255", "could not open image"),
        "echo 'FATAL:   could not open image /x: no such file' >&2; exit 255", image="{image}", trans=255, command=True,
    ),
    Fault(
        "the image does not exist", "an image that is no file", C.IMAGENOTFOUND, "user", BY_RUNTIME,
        ("the image is not there", "/no/such/image.sif"), image="/no/such/image.sif", command=True,
    ),
    Fault(
        "the image's address is none", "what://is/this", C.IMAGENOTFOUND, "user", BY_START, ("is no address",),
        image="what://is/this",
    ),
    Fault(
        "the registry does not answer", "docker://127.0.0.1:1/none", C.SINGULARITYGENERALFAILURE, "site", BY_START,
        ("connection refused",), image="docker://127.0.0.1:1/none", shell=1,
    ),
    Fault(
        "the image is broken", "9 kB of text in the place of an image", C.SINGULARITYIMAGEMOUNTFAILURE, "site",
        BY_RUNTIME, ("the image could not be used", "broken.sif"), image="{folder}/broken.sif", before=_broken_image,
        command=True, shell=1,
    ),
    Fault(
        "the image is cut", "the first half of an image", C.SINGULARITYIMAGEMOUNTFAILURE, "site", BY_RUNTIME,
        ("the image could not be used", "half.sif"), image="{folder}/half.sif", before=_half_an_image, command=True,
        shell=1,
    ),
    Fault(
        "the image has no shell", "an image of empty folders", C.PAYLOADEXECUTIONFAILURE, "payload", BY_RUNTIME,
        ("the image has no /bin/sh",), image="{folder}/empty", before=_image_without_shell, command=True,
    ),
    Fault(
        "a bind of what does not exist", "container_options -B /no/such/place", C.SINGULARITYBINDPOINTFAILURE, "site",
        BY_RUNTIME, ("/no/such/place",), image="{image}", queue={"container_options": "-B /no/such/place"},
        command=True, shell=1,
    ),
    Fault(
        "a bind that is no path", "bindmounts=/etc;relative in catchall", C.BADQUEUECONFIGURATION, "site", BY_START,
        ("'relative'",), image="{image}", queue={"catchall": "bindmounts=/etc;relative"}, shell=1,
    ),
    Fault(
        "the queue lets nobody run containers", "container_type docker:wrapper", C.QUEUENOTSETUPFORCONTAINERS, "site",
        BY_START, ("container_type",), image="{image}", queue={"container_type": "docker:wrapper"}, shell=1,
    ),
    Fault(
        "the site does not allow the image", "image_prefixes = /cvmfs/", C.QUEUENOTSETUPFORCONTAINERS, "site",
        BY_START, ("/cvmfs/",), image="{image}", settings="[Container]\nimage_prefixes = /cvmfs/\n", shell=1,
    ),
    Fault(
        "a runtime is asked for that this pilot does not know", "container_type podman:pilot", C.NOTIMPLEMENTED,
        "pilot", BY_START, ("podman",), image="{image}", queue={"container_type": "podman:pilot"}, shell=1,
    ),
    Fault(
        "Apptainer is not installed", "a PATH without it", C.APPTAINERNOTINSTALLED, "site", BY_START,
        ("install Apptainer",), image="{image}", env=_NO_RUNTIME, shell=1,
    ),
    Fault(
        "Singularity is not installed", "the same, in a queue that says singularity", C.SINGULARITYNOTINSTALLED, "site",
        BY_START, ("install Apptainer",), image="{image}", env=_NO_RUNTIME,
        queue={"container_type": "singularity:pilot"}, shell=1,
    ),
    says(
        "user name spaces are not allowed",
        "ERROR  : Failed to create user namespace: maximum number of user namespaces exceeded",
        C.SINGULARITYFAILEDUSERNAMESPACE, "maximum number of user namespaces exceeded",
    ),
    says(
        "a new user name space is refused", "ERROR  : Failed invoking the NEWUSER namespace runtime",
        C.SINGULARITYNEWUSERNAMESPACE, "NEWUSER",
    ),
    says("there is no loop device left", "FATAL:   no loop devices available", C.SINGULARITYNOLOOPDEVICES, "loop"),
    says(
        "the runtime gets no process", "runtime: failed to create new OS thread (have 2 already)",
        C.SINGULARITYRESOURCEUNAVAILABLE, "failed to create new OS thread",
    ),
    Fault(
        "the runtime says that all is well, and has run nothing", "a runtime that exits with 0",
        C.SINGULARITYGENERALFAILURE, "site", BY_RUNTIME, ("exit code 0",), image="{image}",
        before=runtime_that("exit 0"), command=True, shell=1,
    ),
    Fault(
        "the runtime hangs", "a runtime that sleeps, and a start_limit of 1 s", C.SINGULARITYGENERALFAILURE, "site",
        BY_RUNTIME, ("had not started after 1 s (start_limit)",), image="{image}", before=runtime_that("sleep 3600"),
        settings="[Container]\nstart_limit = 1\n", command=True, shell=1,
    ),
)  # fmt: skip
