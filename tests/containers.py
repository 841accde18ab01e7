"""Apptainer for tests, and an image of next to nothing: the programs in it are those of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.components import ROOT, environment_of_the_suite, require_programs

# The Debian packages that its installation and its programs need; .ci/suite.py installs them where it may.
PACKAGES = ("patchelf", "libseccomp2", "libsqlite3-0", "squashfs-tools", "busybox-static")

# Where the programs and libraries of a system are. On a system with one /usr all but the first are links into it.
_SYSTEM = ("usr", "bin", "sbin", "lib", "lib64")


@dataclass(frozen=True)
class Container:
    """An image that can be run.

    Attributes:
        runtime: the program apptainer (its name `singularity` lies beside it).
        image: a directory, which is what this image is.
        environ: what the runtime needs in its environment: PATH with the runtime, the places of this machine that are
            bound into every container (APPTAINER_BIND), and a place for its own files instead of the user's home.
    """

    runtime: Path
    image: Path
    environ: dict[str, str]

    def command(self, *words: str | os.PathLike[str], binds: Sequence[str] = ()) -> list[str | os.PathLike[str]]:
        """The command that runs something in the image, as the pilot does it: with processes and files of its own."""
        more = [word for bind in binds for word in ("-B", bind)]
        return [self.runtime, "-s", "exec", "-C", "--cleanenv", *more, self.image, *words]


def require_apptainer() -> Path:
    """The program. Skip where .ci/suite.py has not installed it, or fail where CI=true promises that it has."""
    return environment_of_the_suite("apptainer") / "usr" / "bin" / "apptainer"


@contextmanager
def sandbox() -> Iterator[Container]:
    """An image for the time of a block, for every user. Python is in it as it is outside, with this checkout."""
    runtime = require_apptainer()
    with tempfile.TemporaryDirectory(prefix="pilotkit-image-", dir="/tmp") as folder:
        base = Path(folder)
        image, own = base / "image", base / "own"
        for path in (base, image, own):
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
        for name in ("dev", "etc", "proc", "root", "sys", "tmp", "var/tmp"):
            (image / name).mkdir(parents=True)
        (image / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (image / "etc" / "group").write_text("root:x:0:\n")
        binds = [sys.base_prefix, sys.prefix, str(ROOT)]
        for name in _SYSTEM:
            outside = Path("/", name)
            if outside.is_symlink():
                (image / name).symlink_to(os.readlink(outside))
            elif outside.is_dir():
                (image / name).mkdir()
                binds.append(str(outside))
        environ = {
            "PATH": f"{runtime.parent}{os.pathsep}{os.environ['PATH']}",
            "APPTAINER_BIND": ",".join(f"{path}:{path}:ro" for path in _outermost(binds)),
            "APPTAINER_CONFIGDIR": str(own),
        }
        if os.geteuid() == 0:
            # Root of a container like the one that tests run in lacks capabilities that the runtime would hand on.
            environ["APPTAINER_NO_PRIVS"] = "1"
        yield Container(runtime, image, environ)


def put_busybox(folder: Path) -> Path:
    """Make a folder an image for every user that needs nothing of the node: a shell and its tools in one program."""
    require_programs(["busybox"], ["busybox-static"])
    for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "var/tmp"):
        (folder / name).mkdir(parents=True)
    program = folder / "bin" / "busybox"
    shutil.copy(shutil.which("busybox") or "", program)
    for name in subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if name != "busybox":
            (program.parent / name).symlink_to("busybox")
    return folder


def _outermost(paths: Sequence[str]) -> list[str]:
    """Paths without those that lie in another of them."""
    return sorted({path for path in paths if not any(Path(other) in Path(path).parents for other in paths)})
