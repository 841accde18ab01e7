"""What is really active on a node is stated, in the log and with the first question for a job (promise N7)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot.util.payloadgroup import PayloadGroup
from tests import pilots
from tests.containers import require_apptainer
from tests.faults import Network, network
from tests.integration.payload.conftest import settings
from tests.site import QUEUE, Site
from tests.users import User

ONCE = ("-v", "1")


@pytest.fixture
def net(site: Site) -> Iterator[Network]:
    with network(site.url) as between:
        yield between


def stated(net: Network, log: str) -> dict[str, str]:
    """The capabilities of a pilot: the same in its log and in the header of its first question."""
    (line,) = (line.partition("capabilities: ")[2] for line in log.splitlines() if "capabilities: " in line)
    assert net.calls("acquire_jobs")[0].headers["x-pilotkit-capabilities"] == line
    return dict(item.split("=", 1) for item in line.split(","))


def program(folder: Path, name: str, does: str = "exit 0") -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{does}\n")
    (folder / name).chmod(0o755)


def look(net: Network, rundir: Path, path: str, **how: object) -> dict[str, str]:
    pilot = pilots.run(net.url, QUEUE, rundir, *ONCE, env={"PATH": path}, settings=settings(**how))
    return stated(net, pilot.log())


def test_a_node_with_everything_says_so(net: Network, rundir: Path, tmp_path: Path) -> None:
    for name in ("prmon", "xrdcp", "gfal-copy", "lsm-get"):
        program(tmp_path / "bin", name)
    path = os.pathsep.join((str(tmp_path / "bin"), str(require_apptainer().parent), os.environ["PATH"]))
    found = look(net, rundir, path)
    assert found["guard"] == "subreaper" and found["monitor"] == "prmon" and found["cores"] == str(os.cpu_count())
    assert found["container"].startswith("apptainer-1.") and found["images"] in ("mounted", "unpacked")
    assert {"mv", "https", "xrdcp", "gfal", "lsm"} <= set(found["copytools"].split("+"))
    assert found["userns"] in ("yes", "no") and found["cgroup"] in ("none", "v1", "v2")
    group = PayloadGroup.make()
    does = found["group"].split("+")
    assert ("kill" in does, "memory" in does) == (
        (False, False) if group is None else (group.kills, group.memory is not None)
    )
    assert (found["memory"] == "group") is ("memory" in does)
    if group is not None:
        group.end()


def test_a_node_without_them_says_that(net: Network, rundir: Path, tmp_path: Path) -> None:
    # unshare is there, and is refused.
    program(tmp_path / "bin", "unshare", "exit 1")
    found = look(net, rundir, str(tmp_path / "bin"), control_group=False)
    assert found["container"] == "none" and found["userns"] == "no" and "images" not in found
    assert found["group"] == "none" and found["memory"] in ("rollup", "smaps") and found["monitor"] == "own"
    assert not {"lsm"} & set(found["copytools"].split("+")) and found["copytools"].startswith("mv+https")


def test_an_ordinary_user_says_what_an_ordinary_user_has(net: Network, user: User) -> None:
    log = user.run(net.url, QUEUE, *ONCE)
    found = stated(net, log)
    assert found["guard"] == "subreaper" and found["group"] == "none" and found["memory"] in ("rollup", "smaps")
