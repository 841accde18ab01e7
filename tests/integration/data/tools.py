"""The copytools for remote storage as the tests of this folder use them: how they are called, how they name a file."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pilot.api.data import Tools
from pilot.common.exception import PilotException
from pilot.copytool import gfal, https, xrdcp
from pilot.copytool.common import Transfer
from pilot.info.filespec import FileSpec
from pilot.info.infoservice import InfoService
from pilot.util.guarded import Launcher
from tests.gfal import require_gfal
from tests.unit.pilot import builders
from tests.xrootd import XRootD

CONTENTS = os.urandom(5_000_000)
ADLER = {"adler32": f"{zlib.adler32(CONTENTS):08x}"}


def damaged(contents: bytes) -> bytes:
    """As long, and another for certain: of random contents each byte may be any."""
    return bytes([contents[0] ^ 1]) + contents[1:]


@dataclass(frozen=True)
class Tool:
    """A copytool and how it names a file of the server. setup: the queue's option, which wants the command."""

    name: str
    module: ModuleType
    url: Callable[[XRootD, str], str]
    command: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, str]:
        """The queue's options: with a setup the command is taken, also where a library is installed."""
        return {"setup": str(Path(shutil.which(self.command) or "").parent)} if self.command else {}

    def transfer(self, work: Path, **changes: Any) -> Transfer:
        """What the copytool is given beside the files; that of a second attempt unless changed."""
        made = {"options": self.options, "environ": {**os.environ, **self.environ}, **changes}
        return builders.transfer(work, **made)

    def __str__(self) -> str:
        return f"{self.name}{'-command' if self.command else ''}-{self.url.__name__}"


TOOLS = (
    Tool("xrdcp", xrdcp, XRootD.root),
    Tool("xrdcp", xrdcp, XRootD.root, "xrdcp"),
    Tool("gfal", gfal, XRootD.root),
    Tool("gfal", gfal, XRootD.http),
    Tool("gfal", gfal, XRootD.root, "gfal-copy"),
    Tool("gfal", gfal, XRootD.http, "gfal-copy"),
    Tool("https", https, XRootD.http),
)


def root_by_name(server: XRootD, name: str) -> str:
    """URL for XRootD with the name that is in the server's certificate."""
    return server.root(name).replace("127.0.0.1", "localhost")


# The same where storage wants to see a proxy.
SECURE_TOOLS = (
    Tool("xrdcp", xrdcp, root_by_name),
    Tool("xrdcp", xrdcp, XRootD.roots),
    Tool("xrdcp", xrdcp, XRootD.roots, "xrdcp"),
    Tool("gfal", gfal, XRootD.roots),
    Tool("gfal", gfal, XRootD.davs),
    Tool("gfal", gfal, XRootD.davs, "gfal-copy"),
    Tool("https", https, XRootD.davs),
)


def require(tool: Tool) -> None:
    """Skip where a tool is not installed, and fail where CI=true promises that it is."""
    if tool.name == "gfal":
        require_gfal()


def stored(server: XRootD, tool: Tool, name: str = "f.root", **known: Any) -> FileSpec:
    """An input that lies on the server."""
    server.put(name, CONTENTS)
    return FileSpec(name, surl=tool.url(server, name), **known)


def made(server: XRootD, tool: Tool, work: Path, place: str = "new/dir/out.root", size: int = 0) -> FileSpec:
    """An output in the job's directory, and its place on the server."""
    (work / "out.root").write_bytes(os.urandom(size) if size else CONTENTS)
    return FileSpec("out.root", "output", surl=tool.url(server, place))


def fails(call: Callable[[], object], *codes: int) -> str:
    """The text of the failure that a call ends with, which has one of these codes."""
    error = failure(call)
    assert error.code in codes, error
    return error.diag


def failure(call: Callable[[], object]) -> PilotException:
    """The failure that a call ends with."""
    with pytest.raises(PilotException) as raised:
        call()
    return raised.value


def left(work: Path) -> list[str]:
    """What is in the job's directory."""
    return sorted(path.name for path in work.iterdir())


def queue(*tools: str, **changes: Any) -> InfoService:
    """A queue with these copytools and the storages A, B and C."""
    settings = {"acopytools": {"default": list(tools)}, "astorages": {"default": ["A", "B", "C"]}, **changes}
    return builders.infosys(settings, {})


def here() -> Tools:
    """What clients make transfers with."""
    return Tools(Launcher(), dict(os.environ))
