"""Whose a work directory is: only what a dead pilot of this node has left is removed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pilot.util import ownership
from pilot.util.ownership import Owner, is_dead, stamp, started, sweep, this_process

HERE = Owner("node", "boot-1", 1000, 200, 555)


@pytest.mark.parametrize(
    ("owner", "start", "dead"),
    [
        (replace(HERE, pid=99, start=77), 0, True),
        (replace(HERE, pid=99, start=77), 77, False),
        (replace(HERE, pid=99, start=77), 78, True),
        (replace(HERE, boot="boot-0", start=77), 77, True),
        (replace(HERE, host="other", start=77), 0, False),
        (replace(HERE, uid=0, start=77), 0, False),
        (replace(HERE, start=77, keep=True), 0, False),
        (replace(HERE, boot="boot-0", keep=True), 0, False),
    ],
)
def test_an_owner_is_dead_only_when_that_is_proven(owner: Owner, start: int, dead: bool) -> None:
    assert is_dead(owner, HERE, start) is dead


def swept(root: Path) -> list[tuple[Path, str]]:
    return list(sweep(root, this_process(), lambda directory: f"the story of {directory.name}"))


def dead_owner(**changes: object) -> Owner:
    """A process of this node that has ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        owner = replace(this_process(), pid=process.pid, start=started(process.pid))
    return replace(owner, **changes)  # type: ignore[arg-type]


def left(root: Path, owner: Owner | None, name: str = "pilotkit-1-abc") -> Path:
    directory = root / name
    (directory / "PanDA_Pilot-1").mkdir(parents=True)
    (directory / "PanDA_Pilot-1" / "big.root").write_bytes(b"events")
    if owner is not None:
        (directory / ownership.STAMP).write_text(json.dumps(asdict(owner)))
    return directory


def test_what_a_dead_pilot_has_left_is_removed_and_said(tmp_path: Path) -> None:
    directory = left(tmp_path, dead_owner())
    ((path, said),) = swept(tmp_path)
    assert not directory.exists() and path == directory and "is removed" in said
    assert said.endswith("the story of pilotkit-1-abc")


@pytest.mark.parametrize("case", ["alive", "no stamp", "broken stamp", "other node", "kept", "other name", "foreign"])
def test_all_else_is_left_alone(tmp_path: Path, case: str) -> None:
    owner = {
        "alive": this_process(), "other node": dead_owner(host="elsewhere"), "kept": dead_owner(keep=True),
        "no stamp": None,
    }.get(case, dead_owner())  # fmt: skip
    directory = left(tmp_path, owner, "precious" if case == "other name" else "pilotkit-1-abc")
    if case == "broken stamp":
        (directory / ownership.STAMP).write_text('{"pid": "x"}')
    if case == "foreign":
        if os.geteuid() != 0:
            pytest.skip("only root can give a directory away")
        os.chown(directory, 65534, 65534)
    assert swept(tmp_path) == []
    assert (directory / "PanDA_Pilot-1" / "big.root").exists()


def test_a_directory_whose_stamp_is_locked_is_left_alone(tmp_path: Path) -> None:
    directory = left(tmp_path, None)
    with stamp(directory, dead_owner()):
        assert swept(tmp_path) == [] and directory.exists()
    assert len(swept(tmp_path)) == 1 and not directory.exists()


def test_a_directory_in_which_somebody_works_is_left_alone(tmp_path: Path) -> None:
    directory = left(tmp_path, dead_owner())
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        cwd=directory / "PanDA_Pilot-1", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == b"\n"
        assert swept(tmp_path) == []
        process.communicate(b"\n")
    assert len(swept(tmp_path)) == 1


def test_a_link_to_another_directory_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    precious = left(tmp_path, dead_owner(), "precious")
    (tmp_path / "root" / "pilotkit-1-abc").symlink_to(precious)
    assert swept(tmp_path / "root") == []
    assert (precious / "PanDA_Pilot-1" / "big.root").exists()
