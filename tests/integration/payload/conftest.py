"""For the tests of payloads: programs that behave in one way each, short limits, and control groups."""

from __future__ import annotations

import os
import textwrap
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.site import Site
from tests.users import User, ordinary_user

Submit = Callable[..., int]

_MEMORY = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def submit(site: Site, tmp_path: Path) -> Submit:
    """Submits a Python program as a job and returns its PandaID; what else is said of the job goes with it."""

    def submitted(program: str, **job: object) -> int:
        script = tmp_path / f"{uuid.uuid4().hex[:8]}.py"
        script.write_text(textwrap.dedent(program), encoding="utf-8")
        (jobid,) = site.submit({"transformation": "python3", "jobPars": f"-u {script}", **job})
        return jobid

    return submitted


def settings(**values: object) -> str:
    """A configuration file: settings of [Payload] as given, of other sections as Section_name."""
    sections: dict[str, list[str]] = {"Payload": []}
    for name, value in values.items():
        section, _, setting = name.partition("__")
        sections.setdefault(section if setting else "Payload", []).append(f"{setting or name} = {value}")
    return "\n".join(line for section, lines in sections.items() for line in (f"[{section}]", *lines)) + "\n"


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    """Somebody who is not root, with a pilot."""
    with ordinary_user() as somebody:
        yield somebody


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A control group of version 1 below our own, as a batch system makes one for a slot; only root can make it."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    ours = next((line.split(":", 2)[2] for line in lines if line.split(":")[1] == "memory"), None)
    if os.geteuid() != 0 or ours is None or not os.access(_MEMORY, os.W_OK):
        pytest.skip("no memory control group of version 1 can be made here: that needs root and its controller")
    group = Path(f"{_MEMORY}{ours}") / f"pilotkit-test-{uuid.uuid4().hex[:8]}"
    group.mkdir()
    yield group
    # What still lives in it is in our own group again.
    for pid in (group / "cgroup.procs").read_text().split():
        with suppress(OSError):
            (group.parent / "cgroup.procs").write_text(pid)
    group.rmdir()
