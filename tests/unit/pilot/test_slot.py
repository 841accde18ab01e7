"""The slot: who says when it ends, and what the payload is told."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pilot.control.rules.slot import Deadline
from pilot.control.slot import SLOT_FILE, Slot, find_slot, publish
from pilot.util.guarded import Launcher
from pilot.util.workernode import NodeFacts, collect
from tests.unit.pilot.builders import LOG, SETTINGS

STARTED = 1795235000.0


@pytest.fixture
def node() -> NodeFacts:
    """A node of no batch system."""
    return collect({})


def find(tmp_path: Path, node: NodeFacts, maxtime: float = 0, **environ: str) -> Deadline:
    """The end of a slot of a pilot with a lifetime of 1000 s."""
    slot = find_slot(
        started=STARTED,
        lifetime=1000,
        maxtime=maxtime,
        environ=environ,
        node=node,
        launcher=Launcher(),
        workdir=tmp_path,
        timeout=5,
        log=LOG,
    )
    return slot.deadline


def test_without_anything_else_the_lifetime_is_the_end(tmp_path: Path, node: NodeFacts) -> None:
    assert find(tmp_path, node) == Deadline(STARTED + 1000, "lifetime of the pilot (--lifetime)")


def test_the_queues_maxtime_counts_when_it_is_shorter(tmp_path: Path, node: NodeFacts) -> None:
    assert find(tmp_path, node, 900) == Deadline(STARTED + 900, "maxtime of the queue")
    assert find(tmp_path, node, 1100).when == STARTED + 1000


def batch_command(folder: Path, name: str, text: str) -> str:
    """A path on which the batch system's command says a text."""
    (folder / "bin").mkdir()
    command = folder / "bin" / name
    command.write_text(f"#!/bin/sh\n{text}\n")
    command.chmod(0o755)
    return f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"


def test_a_batch_system_is_asked_with_its_own_command(
    tmp_path: Path, node: NodeFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = batch_command(tmp_path, "bjobs", '[ "$*" = "-noheader -o time_left 42" ] && echo "0:10 L"')
    on_lsf = replace(node, batch_system="LSF", batch_id="42")
    assert find(tmp_path, on_lsf, PATH=path) == Deadline(STARTED + 600, "limit of the batch system (LSF)")


@pytest.mark.parametrize("text", ["exit 1", "echo nothing of use", "kill -9 $$"])
def test_a_command_that_fails_or_says_nothing_leaves_the_lifetime(tmp_path: Path, node: NodeFacts, text: str) -> None:
    path = batch_command(tmp_path, "bjobs", text)
    on_lsf = replace(node, batch_system="LSF", batch_id="42")
    assert find(tmp_path, on_lsf, PATH=path).when == STARTED + 1000


def test_a_node_without_the_command_leaves_the_lifetime(tmp_path: Path, node: NodeFacts) -> None:
    on_lsf = replace(node, batch_system="LSF", batch_id="42")
    assert find(tmp_path, on_lsf, PATH=str(tmp_path)).when == STARTED + 1000


def test_an_end_that_a_site_announces_later_is_seen_at_the_next_refresh(tmp_path: Path) -> None:
    slot = Slot(STARTED, [Deadline(STARTED + 1000, "lifetime")], {"MACHINEFEATURES": str(tmp_path)})
    slot.refresh()
    assert slot.total == 1000
    (tmp_path / "shutdowntime").write_text(str(int(STARTED) + 500))
    slot.refresh()
    assert slot.deadline == Deadline(STARTED + 500, "machine feature shutdowntime")
    assert slot.features.machine == {"shutdowntime": STARTED + 500}
    assert (slot.left(STARTED + 100), slot.left(STARTED + 9999)) == (400, 0)
    (tmp_path / "shutdowntime").unlink()
    slot.refresh()
    assert slot.total == 1000


def test_the_payload_reads_absolute_times_and_who_says_so(tmp_path: Path) -> None:
    slot = Slot(STARTED, [Deadline(STARTED + 86400, "queue")], {})
    publish(tmp_path, slot, slot.plan(SETTINGS.pilot))
    told = json.loads((tmp_path / SLOT_FILE).read_text())
    end = int(STARTED) + 86400
    assert told == {"soft": end - 300, "stop": end - 180, "kill": end - 120, "end": end, "source": "queue"}


# ---- a short command


def test_a_short_command_is_run_for_what_it_says(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "WORD": "hello"}
    command = ["sh", "-c", 'echo "$WORD"; echo sorry >&2']
    assert Launcher().output(command, cwd=tmp_path, env=environ, timeout=30) == "hello\nsorry\n"
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_hangs_is_ended_and_has_said_nothing(tmp_path: Path) -> None:
    begun = time.monotonic()
    command = ["sh", "-c", "echo early; sleep 300"]
    assert Launcher().output(command, cwd=tmp_path, env={"PATH": os.environ["PATH"]}, timeout=0.2) == ""
    assert time.monotonic() - begun < 60
