"""The flight recorder: what was recorded last is in the file, however its writer ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pilot.util import recorder
from pilot.util.recorder import Recorder, read

ROOT = Path(__file__).parents[3]


def test_entries_come_back_in_their_order_with_their_facts(tmp_path: Path) -> None:
    made = Recorder(tmp_path / "f")
    made.decision("taken", job="1", attempt=2)
    made.sample("memory", pss=5)
    made.decision("ended", job="1", text="fine")
    made.close()
    found = [{name: value for name, value in entry.items() if name != "time"} for entry in read(tmp_path / "f")]
    assert found == [
        {"kind": "taken", "job": "1", "attempt": 2},
        {"kind": "memory", "pss": 5},
        {"kind": "ended", "job": "1", "text": "fine"},
    ]


def test_a_flood_of_samples_pushes_no_decision_out_and_the_file_keeps_its_size(tmp_path: Path) -> None:
    made = Recorder(tmp_path / "f")
    size = (tmp_path / "f").stat().st_size
    made.decision("taken", job="1")
    for number in range(20_000):
        made.sample("memory", number=number)
    made.close()
    found = read(tmp_path / "f")
    assert found[0]["kind"] == "taken" and (tmp_path / "f").stat().st_size == size < 300_000
    numbers = [entry["number"] for entry in found[1:]]
    assert numbers == list(range(20_000 - len(numbers), 20_000)) and len(numbers) > 500


def test_a_ring_that_has_come_round_gives_its_last_entries_whole(tmp_path: Path) -> None:
    made = Recorder(tmp_path / "f")
    for number in range(3_000):
        made.decision("step", number=number, text="x" * (number % 200))
    made.close()
    found = read(tmp_path / "f")
    assert found[-1]["number"] == 2_999
    assert all(entry["text"] == "x" * (int(str(entry["number"])) % 200) for entry in found)


def test_long_texts_are_cut_and_an_entry_that_is_still_too_long_says_so(tmp_path: Path) -> None:
    made = Recorder(tmp_path / "f")
    made.decision("error", text="x" * 100_000)
    made.decision("list", numbers=list(range(5_000)))
    made.close()
    first, second = read(tmp_path / "f")
    assert first["text"] == "x" * 1000 and "numbers" not in second and int(str(second["too_long"])) > 20_000


def test_a_text_of_long_characters_is_cut_shorter_and_its_entry_is_kept(tmp_path: Path) -> None:
    made = Recorder(tmp_path / "f")
    made.decision("event", job="1", state="payload", text="\U0001f4a5" * 5_000)
    assert made.entries("1") == read(tmp_path / "f")
    made.close()
    (found,) = read(tmp_path / "f")
    assert (found["job"], found["state"], found["text"]) == ("1", "payload", "\U0001f4a5" * 100)
    assert made.entries("1") == []


def test_a_recorder_tells_of_one_job_alone_with_and_without_a_file(tmp_path: Path) -> None:
    for path in (tmp_path / "f", None):
        made = Recorder(path)
        for job in ("1", "2", "1"):
            made.decision("step", job=job)
            made.sample("payload", job=job)
        assert [entry["kind"] for entry in made.entries("1")] == ["step", "payload"] * 2
        made.close()


def test_what_was_recorded_survives_kill_minus_9(tmp_path: Path) -> None:
    program = (
        "import sys, signal, os; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from pilot.util.recorder import Recorder\n"
        "made = Recorder(Path(sys.argv[2]))\n"
        "for n in range(100): made.decision('step', number=n)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(ROOT), str(tmp_path / "f")], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [entry["number"] for entry in read(tmp_path / "f")] == list(range(100))


def test_several_threads_record_at_once_without_harm(tmp_path: Path) -> None:
    made = Recorder(tmp_path / "f")

    def work(name: str) -> None:
        for number in range(200):
            made.decision("step", name=name, number=number)

    threads = [threading.Thread(target=work, args=(str(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made.close()
    made.decision("late")
    assert len(read(tmp_path / "f")) == 800


@pytest.mark.parametrize("contents", [b"", b"something else", b"pilotkit flight recorder 1\n"])
def test_another_file_is_no_recording(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "f").write_bytes(contents)
    with pytest.raises(ValueError, match="is no file of a flight recorder"):
        read(tmp_path / "f")


def test_a_full_disk_is_an_error_at_the_start_and_never_a_signal_later(small_disk: Path) -> None:
    (small_disk / "big").write_bytes(b"x" * (900 * 1024))
    with pytest.raises(OSError, match=os.strerror(28)):
        Recorder(small_disk / recorder.FILE)
