"""The spool: what a server has not taken is on disk, in order, and survives its pilot."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot.util.https import Json
from pilot.util.spool import Spool, SpooledUpdate

ROOT = Path(__file__).parents[3]


def update(state: str = "running", job: str = "254", server: str = "http://s:1") -> SpooledUpdate:
    return SpooledUpdate(server, "claim-1", {"jobId": job, "state": state, "café": [1, None, True]})


def run_pilot(root: Path, body: str) -> subprocess.CompletedProcess[str]:
    """A pilot of its own: a process that has a spool and does what `body` says."""
    program = (
        "import os, signal\nfrom pathlib import Path\nfrom pilot.util.spool import Spool, SpooledUpdate\n"
        f"spool = Spool(Path({str(root)!r}))\n{body}\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )


def leave_behind(root: Path, *states: str, job: str = "254") -> None:
    """What a pilot leaves that was killed with these updates undelivered."""
    adding = "\n".join(
        f"spool.add(SpooledUpdate('http://s:1', 'c', {{'jobId': '{job}', 'state': '{state}'}}), {number})"
        for number, state in enumerate(states, start=1)
    )
    done = run_pilot(root, f"{adding}\nos.kill(os.getpid(), signal.SIGKILL)")
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool")
    yield made
    made.close()


def test_an_update_is_kept_until_it_is_delivered(spool: Spool) -> None:
    path = spool.add(update(), 1)
    assert spool.left() == 1
    spool.remove(path)
    spool.remove(path)
    assert spool.left() == 0


def test_only_the_owner_can_read_what_is_in_it(spool: Spool) -> None:
    path = spool.add(update(), 1)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_pilot_itself_is_no_orphan(spool: Spool) -> None:
    spool.add(update(), 1)
    assert list(spool.orphans()) == []


def test_what_a_killed_pilot_left_is_adopted_in_order(tmp_path: Path, spool: Spool) -> None:
    leave_behind(tmp_path / "spool", "starting", "running", "finished")
    got = list(spool.orphans())
    assert [found.body["state"] for _, found in got] == ["starting", "running", "finished"]
    assert all((found.server, found.claim) == ("http://s:1", "c") for _, found in got)
    assert [found.is_final for _, found in got] == [False, False, True]


def test_order_holds_beyond_nine_updates(tmp_path: Path, spool: Spool) -> None:
    leave_behind(tmp_path / "spool", *[f"s{n}" for n in range(12)])
    assert [found.body["state"] for _, found in spool.orphans()] == [f"s{n}" for n in range(12)]


def test_the_order_is_that_of_the_numbers_and_not_that_of_writing(tmp_path: Path, spool: Spool) -> None:
    dead = Spool(tmp_path / "spool")
    first, second = dead.next_number(), dead.next_number()
    dead.add(update("finished"), second)
    dead.add(update("running"), first)
    dead.close()
    assert [found.body["state"] for _, found in spool.orphans()] == ["running", "finished"]


def test_an_update_in_the_same_place_is_replaced(spool: Spool) -> None:
    spool.add(update("running", server="http://old:1"), 7)
    path = spool.add(update("running", server="http://new:1"), 7)
    assert spool.left() == 1
    assert json.loads(path.read_text())["server"] == "http://new:1"


def test_the_oldest_of_several_dead_pilots_comes_first(tmp_path: Path, spool: Spool) -> None:
    for number in (1, 2, 3):
        leave_behind(tmp_path / "spool", "finished", job=str(number))
        newest = max((p for p in (tmp_path / "spool").iterdir() if list(p.glob("*_finished*"))), key=_mtime)
        os.utime(newest, (1000 - number, 1000 - number))
    assert [found.body["jobId"] for _, found in spool.orphans()] == ["3", "2", "1"]


def _mtime(path: Path) -> float:
    return path.stat().st_mtime


def test_every_field_survives_the_disk(tmp_path: Path, spool: Spool) -> None:
    other = Spool(tmp_path / "spool")
    wanted = update("finished")
    other.add(wanted, 1)
    other._lock.close()  # type: ignore[union-attr]  # its process is dead: the kernel has given the lock back
    assert [found for _, found in spool.orphans()] == [wanted]


def test_an_adopted_directory_goes_when_all_is_delivered(tmp_path: Path, spool: Spool) -> None:
    leave_behind(tmp_path / "spool", "running", "finished")
    for path, _ in spool.orphans():
        spool.remove(path)
    assert len(list((tmp_path / "spool").iterdir())) == 1


def test_what_is_not_delivered_is_there_for_the_next(tmp_path: Path, spool: Spool) -> None:
    leave_behind(tmp_path / "spool", "running", "finished")
    for path, found in spool.orphans():
        if not found.is_final:
            spool.remove(path)
    assert [found.body["state"] for _, found in spool.orphans()] == ["finished"]


def test_the_spool_of_a_living_pilot_is_left_alone(tmp_path: Path, spool: Spool) -> None:
    living = Spool(tmp_path / "spool")
    living.add(update("finished"), 1)
    assert list(spool.orphans()) == []
    assert living.left() == 1
    for path in living._path.glob("*.update.json"):
        living.remove(path)
    living.close()


def test_two_at_once_do_not_both_send(tmp_path: Path, spool: Spool) -> None:
    leave_behind(tmp_path / "spool", "running", "finished")
    second = Spool(tmp_path / "spool")
    first_has = spool.orphans()
    path, _ = next(first_has)
    assert list(second.orphans()) == []
    spool.remove(path)
    for path, _ in first_has:
        spool.remove(path)
    second.close()


def test_many_pilots_at_once_send_everything_once(tmp_path: Path) -> None:
    root = tmp_path / "spool"
    keeper = Spool(root)
    for number in range(4):
        leave_behind(root, "running", "finished", job=str(number))
    sent: list[tuple[Json, Json]] = []
    begin = threading.Barrier(4)

    def pilot() -> None:
        begin.wait()
        for _ in range(20):
            mine = Spool(root)
            for path, found in mine.orphans():
                sent.append((found.body["jobId"], found.body["state"]))
                mine.remove(path)
            mine.close()

    threads = [threading.Thread(target=pilot) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keeper.close()
    assert sorted(sent, key=str) == [(str(n), state) for n in range(4) for state in ("finished", "running")]
    assert not root.exists()


@pytest.mark.parametrize("pilots", [2, 4])
def test_many_pilots_that_start_and_leave_at_once_all_get_a_spool(tmp_path: Path, pilots: int) -> None:
    root = tmp_path / "spool"
    problems: list[BaseException] = []
    begin = threading.Barrier(pilots)

    def pilot() -> None:
        begin.wait()
        try:
            for _ in range(200 // pilots):
                mine = Spool(root)
                mine.remove(mine.add(update(), 1))
                list(mine.orphans())
                mine.close()
        except BaseException as exc:
            problems.append(exc)

    threads = [threading.Thread(target=pilot) for _ in range(pilots)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b'{"server": "http://s:1", "cla',
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"server": "http://s:1", "claim": "c"}',
        b'{"server": "http://s:1", "claim": "c", "body": [1]}',
        b'{"server": 5, "claim": "c", "body": {}}',
        b"[" * 100_000,
    ],
    ids=lambda contents: repr(contents[:30]),
)
def test_a_file_that_cannot_be_read_is_left_alone_and_the_others_go_out(
    tmp_path: Path, spool: Spool, contents: bytes
) -> None:
    leave_behind(tmp_path / "spool", "starting", "running", "finished")
    (orphan,) = (path for path in (tmp_path / "spool").iterdir() if path != spool._path)
    broken = sorted(orphan.glob("*.update.json"))[1]
    broken.write_bytes(contents)
    got = list(spool.orphans())
    assert [found.body["state"] for _, found in got] == ["starting", "finished"]
    for path, _ in got:
        spool.remove(path)
    assert list(spool.orphans()) == []
    assert broken.read_bytes() == contents


def test_a_half_written_update_is_none(tmp_path: Path, spool: Spool) -> None:
    leave_behind(tmp_path / "spool", "running")
    (orphan,) = (path for path in (tmp_path / "spool").iterdir() if path != spool._path)
    (orphan / "000002_254_finished.update.part").write_text('{"server": "http')
    assert [found.body["state"] for _, found in spool.orphans()] == ["running"]


def test_strange_things_in_the_root_disturb_nobody(tmp_path: Path, spool: Spool) -> None:
    root = tmp_path / "spool"
    (root / "README").write_text("hello")
    (root / "empty").mkdir()
    (root / "link").symlink_to("/nonexistent")
    assert list(spool.orphans()) == []
    assert (root / "README").exists()


def test_a_spool_that_is_closed_empty_leaves_nothing(tmp_path: Path) -> None:
    made = Spool(tmp_path / "a" / "spool")
    made.remove(made.add(update(), 1))
    made.close()
    made.close()
    assert not (tmp_path / "a" / "spool").exists()


def test_a_spool_that_is_closed_with_something_in_it_is_the_next_pilots(tmp_path: Path) -> None:
    first = Spool(tmp_path / "spool")
    first.add(update("finished"), 1)
    first.close()
    second = Spool(tmp_path / "spool")
    assert [found.body["state"] for _, found in second.orphans()] == ["finished"]
    second.close()


def test_an_update_is_complete_on_disk_when_add_returns(spool: Spool) -> None:
    path = spool.add(update("finished"), 1)
    assert json.loads(path.read_text())["body"]["state"] == "finished"
    assert [p.name for p in path.parent.iterdir() if p.name.endswith(".part")] == []


def test_an_update_that_does_not_fit_on_the_disk_leaves_no_half_of_it(small_disk: Path) -> None:
    full = Spool(small_disk / "spool")
    with pytest.raises(OSError):
        full.add(SpooledUpdate("http://s:1", "", {"jobId": "1", "state": "finished", "metaData": "x" * 2_000_000}), 1)
    assert full.left() == 0
    full.close()


def test_a_place_where_no_spool_can_be_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        Spool(tmp_path / "file" / "spool")


@pytest.mark.parametrize(
    ("state", "final"),
    [("starting", False), ("running", False), ("finished", True), ("failed", True), ("holding", True)],
)
def test_only_an_end_state_is_final(state: str, final: bool) -> None:
    assert update(state).is_final is final
