"""Counters that outlive their processes, and the sums of all of them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from pathlib import Path

from server.counters import BUCKETS, GETJOB, IN_PROGRESS, RUN_SECONDS, SECONDS, Counters, Metric, read_all


def test_what_processes_count_is_added_up_and_outlives_them(tmp_path: Path) -> None:
    mine, other = Counters(tmp_path, "web"), Counters(tmp_path, "web")
    mine.add(GETJOB, "job")
    other.add(GETJOB, "job", by=2)
    other.add(GETJOB, "memory")
    other.close()
    assert read_all(tmp_path) == {(GETJOB, ("job",)): [3.0], (GETJOB, ("memory",)): [1.0]}
    mine.close()
    again = Counters(tmp_path, "web")
    again.add(GETJOB, "job")
    assert read_all(tmp_path)[GETJOB, ("job",)] == [4.0]
    again.close()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_process_that_is_killed_loses_nothing_and_its_present_moment_is_over(tmp_path: Path) -> None:
    ready = multiprocessing.get_context("fork").Event()

    def work() -> None:
        made = Counters(tmp_path, "web")
        made.add(GETJOB, "job", by=7)
        made.add(IN_PROGRESS)
        ready.set()
        threading.Event().wait(60)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    assert ready.wait(30)
    assert read_all(tmp_path) == {(GETJOB, ("job",)): [7.0], (IN_PROGRESS, ()): [1.0]}
    process.kill()
    process.join()
    process.close()
    assert read_all(tmp_path) == {(GETJOB, ("job",)): [7.0]}
    heir = Counters(tmp_path, "web")
    assert read_all(tmp_path) == {(GETJOB, ("job",)): [7.0], (IN_PROGRESS, ()): [0.0]}
    heir.close()


def test_threads_lose_no_count(tmp_path: Path) -> None:
    made = Counters(tmp_path, "web")
    threads = [threading.Thread(target=lambda: [made.add(GETJOB, str(n % 7)) for n in range(5000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(numbers[0] for numbers in read_all(tmp_path).values()) == 20_000
    made.close()


def test_a_histogram_has_its_sum_and_each_value_in_its_bucket(tmp_path: Path) -> None:
    made = Counters(tmp_path, "web")
    for value in (0.0001, BUCKETS[0], 0.3, 99.0):
        made.observe(SECONDS, "panda", "getJob", value=value)
    numbers = read_all(tmp_path)[SECONDS, ("panda", "getJob")]
    assert numbers[0] == 0.0001 + BUCKETS[0] + 0.3 + 99.0
    assert numbers[1] == 2 and numbers[1 + BUCKETS.index(0.5)] == 1 and numbers[-1] == 1
    made.close()


def test_what_does_not_fit_is_left_out_and_disturbs_nobody(tmp_path: Path) -> None:
    made = Counters(tmp_path, "web")
    for number in range(9000):
        made.add(RUN_SECONDS, f"script {number}\t{'x' * 500}")
    found = read_all(tmp_path)
    assert 500 < len(found) < 9000
    assert all("\t" not in label and len(label) <= 100 for _, (label,) in found)
    made.close()


def test_files_of_other_versions_and_other_things_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "web-0.counts").write_bytes(os.urandom(5000))
    (tmp_path / "web-7.counts").write_bytes(b"pkcount1" + os.urandom(5000))
    strange = Metric("pilotkit_of_tomorrow", "counter", "x")
    made = Counters(tmp_path, "web")
    made.add(strange, by=5)
    made.add(GETJOB, "job")
    made.close()
    assert read_all(tmp_path) == {(GETJOB, ("job",)): [1.0]}
    again = Counters(tmp_path, "web")
    again.add(GETJOB, "memory")
    again.close()
    assert read_all(tmp_path) == {(GETJOB, ("job",)): [1.0], (GETJOB, ("memory",)): [1.0]}


def test_without_a_folder_counting_costs_nothing_but_the_numbers(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for made in (Counters(), Counters(tmp_path / "file", "web")):
        made.add(GETJOB, "job")
        made.close()
    assert read_all(tmp_path / "nowhere") == {}
