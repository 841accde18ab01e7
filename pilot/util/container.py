"""Commands in an Apptainer (Singularity) container: how they are written, and what the runtime's failures mean.

Every container has process, IPC and file name spaces of its own (-C): when the runtime is killed, all that runs in it
ends with it. Nothing of the environment gets in but what is named.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException

# Names of the same program; "container" leaves the choice to the node.
RUNTIMES = ("apptainer", "singularity")
ANY_RUNTIME = "container"
_ADVICE = "install Apptainer (package apptainer of EPEL, or its own installer), or take containers out of the queue"


@dataclass(frozen=True)
class Bind:
    """A place of the node that is seen in the container, under the same name unless `inside` has another."""

    outside: Path
    inside: Path | None = None
    writable: bool = False

    def option(self) -> str:
        """As the runtime wants it. Raises PilotException(SINGULARITYBINDPOINTFAILURE) for what cannot be said so."""
        inside = self.inside or self.outside
        for path in (self.outside, inside):
            if not path.is_absolute() or set(",:") & set(str(path)):
                text = f"{path} cannot be seen in a container: runtimes take only full paths without , and : for that"
                raise PilotException(text, code=ErrorCodes.SINGULARITYBINDPOINTFAILURE)
        return f"{self.outside}:{inside}:{'rw' if self.writable else 'ro'}"


@dataclass(frozen=True)
class Container:
    """runtime: the program's path; image: a file, directory or URL; options: of the site, for the runtime."""

    runtime: str
    image: str
    options: tuple[str, ...] = ()

    def command(self, words: Sequence[str], binds: Sequence[Bind], workdir: Path) -> list[str]:
        """The command that runs `words` in the container, in the directory workdir. Raises PilotException."""
        bound = [word for bind in binds for word in ("-B", bind.option())]
        # --no-privs: root of a node has nothing to do as root of a container, and may lack what would be handed on.
        own = ["exec", "-C", "--cleanenv", "--no-privs", "--pwd", str(workdir)]
        return [self.runtime, "--silent", *own, *bound, *self.options, self.image, *words]


def find_runtime(name: str, environ: Mapping[str, str]) -> str:
    """The path of a runtime that a queue names. Raises PilotException with the sentence that says what to install."""
    wanted = RUNTIMES if name in (ANY_RUNTIME, *RUNTIMES) else ()
    if not wanted:
        text = f"the queue asks for {name} containers; this pilot has {' and '.join(RUNTIMES)} (one program, two names)"
        raise PilotException(text, code=ErrorCodes.NOTIMPLEMENTED)
    path = environ.get("PATH", os.defpath)
    found = next((there for there in (shutil.which(one, path=path) for one in wanted) if there), None)
    if found is None:
        code = ErrorCodes.SINGULARITYNOTINSTALLED if name == "singularity" else ErrorCodes.APPTAINERNOTINSTALLED
        raise PilotException(f"neither apptainer nor singularity is on the PATH: {_ADVICE}", code=code)
    return found


def check_image(image: str, where: str) -> None:
    """Raises PilotException(IMAGENOTFOUND) for no image, or a file that is not there. where: what names it."""
    if not image:
        raise PilotException(f"{where} names no image", code=ErrorCodes.IMAGENOTFOUND)
    if "://" not in image and not Path(image).exists():
        raise PilotException(f"image {image} is not there ({where})", code=ErrorCodes.IMAGENOTFOUND)


def container_environment(environ: Mapping[str, str], inside: Mapping[str, str]) -> dict[str, str]:
    """The runtime's own environment. inside: variables for the container, which take this way past --cleanenv.

    Arguments of commands can be read by everybody on a node, an environment cannot.
    """
    kept = {name: value for name, value in environ.items() if not name.startswith(("APPTAINERENV_", "SINGULARITYENV_"))}
    for name, value in inside.items():
        kept[f"APPTAINERENV_{name}"] = kept[f"SINGULARITYENV_{name}"] = value
    return kept


@dataclass(frozen=True)
class _Rule:
    pattern: re.Pattern[str]
    code: int
    words: str


def _rule(pattern: str, code: int, words: str) -> _Rule:
    return _Rule(re.compile(pattern, re.IGNORECASE), code, words)


# The first that fits wins. The words are those of Apptainer 1.x and Singularity 3.x.
_RULES = (
    _rule(r"no more available loop devices|no loop devices", ErrorCodes.SINGULARITYNOLOOPDEVICES,
          "the node has no loop device left for images that are files"),
    _rule(r"resource temporarily unavailable", ErrorCodes.SINGULARITYRESOURCEUNAVAILABLE,
          "the node has no process or memory left"),
    _rule(r"failed to create user namespace|user namespace.*(no space left|not permitted)|max_user_namespaces",
          ErrorCodes.SINGULARITYFAILEDUSERNAMESPACE, "the node does not allow user name spaces"),
    _rule(r"invoking the NEWUSER namespace", ErrorCodes.SINGULARITYNEWUSERNAMESPACE,
          "the node does not allow new user name spaces"),
    _rule(r"not mounting requested bind point|mount source .* doesn't exist|bind.*(no such file|doesn't exist)"
          r"|underlay|destination .* doesn't exist in container",
          ErrorCodes.SINGULARITYBINDPOINTFAILURE, "a directory of the node could not be seen in the container"),
    _rule(r"failed to mount image|mount.*squashfs|while mounting image|unknown image format|format not recognized",
          ErrorCodes.SINGULARITYIMAGEMOUNTFAILURE, "the image could not be used"),
    _rule(r"could not open image|no such image|image .* (not found|does not exist)|failed to retrieve path for",
          ErrorCodes.IMAGENOTFOUND, "the image is not there"),
)  # fmt: skip


def container_error(output: str, ending: str) -> PilotException:
    """What a container's failure means. output: what the runtime said; ending: "exit code 255", say."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    said = "".join(c if c.isprintable() else "?" for c in " / ".join(lines[-3:]))[-200:]
    for rule in _RULES:
        if rule.pattern.search(output):
            return PilotException(f"{rule.words} ({ending}: {said})", code=rule.code)
    text = f"the container failed ({ending}: {said or 'it said nothing'})"
    return PilotException(text, code=ErrorCodes.SINGULARITYGENERALFAILURE)
