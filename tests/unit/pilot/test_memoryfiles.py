"""The memory monitor's files: ours read like prmon's, and prmon's are understood."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pilot.api.memorymonitor import MemoryMonitoring
from pilot.common.exception import NotDefined
from pilot.util.guarded import Launcher
from pilot.util.memoryfiles import COLUMNS, OUTPUT, SUMMARY, Summary, append_row, read_summary, row, write_summary
from pilot.util.processes import TreeSample

SAMPLE = TreeSample(
    processes=3, threads=7, pss=1000, rss=2000, vmem=9000, swap=5, cpu_user=1.6, cpu_system=0.4, rchar=11, wchar=12,
    rbytes=13, wbytes=14,
)  # fmt: skip


def test_the_table_begins_with_the_documented_names_and_has_a_line_a_sample(tmp_path: Path) -> None:
    append_row(tmp_path, row(SAMPLE, os.getpid(), 1795234567.9, 60.4), first=True)
    append_row(tmp_path, row(SAMPLE, os.getpid(), 1795234627.9, 120.4), first=False)
    names, first, second = (line.split("\t") for line in (tmp_path / OUTPUT).read_text().splitlines())
    assert names == list(COLUMNS)
    # The network's counters are the node's here, and not the payload's.
    figures = ["3", "7", "1000", "2000", "9000", "5", "2", "0", "60", "11", "12", "13", "14", "0", "0", "0", "0"]
    assert first == ["1795234567", *figures]
    assert second[0] == "1795234627" and len(second) == len(names)


def test_a_table_that_was_there_before_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / OUTPUT).write_text("of the payload\n")
    append_row(tmp_path, "x\n", first=True)
    assert "payload" not in (tmp_path / OUTPUT).read_text()


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / OUTPUT).symlink_to(tmp_path / "precious")
    with pytest.raises(OSError):
        append_row(tmp_path, "x\n", first=True)
    assert (tmp_path / "precious").read_text() == "kept"
    (tmp_path / SUMMARY).symlink_to(tmp_path / "precious")
    assert read_summary(tmp_path) is None


def test_a_summary_that_is_written_can_be_read(tmp_path: Path) -> None:
    summary = Summary({"pss": 3, "rss": 4, "vmem": 5, "swap": 0}, {"pss": 1, "rss": 2, "vmem": 3, "swap": 0}, {})
    write_summary(tmp_path, summary)
    assert read_summary(tmp_path) == summary
    contents = json.loads((tmp_path / SUMMARY).read_text())
    assert contents["Max"] == {"maxVMEM": 5, "maxPSS": 3, "maxRSS": 4, "maxSwap": 0}
    assert contents["Avg"] == {"avgVMEM": 3, "avgPSS": 1, "avgRSS": 2, "avgSwap": 0}


def test_a_summary_of_prmon_is_understood(tmp_path: Path) -> None:
    contents = {
        "Avg": {"nprocs": 2.5, "pss": 900, "rss": 1000.7, "swap": 0, "vmem": 4000, "rchar": 12},
        "Max": {
            "nprocs": 5, "pss": 1900, "rss": 2000, "swap": 1, "vmem": 8000, "rchar": 77, "read_bytes": 78, "wchar": 79,
            "write_bytes": 80, "wtime": 100,
        },
        "HW": {"cpu": {}},
        "prmon": {"Version": "3.0"},
    }  # fmt: skip
    (tmp_path / SUMMARY).write_text(json.dumps(contents))
    assert read_summary(tmp_path) == Summary(
        {"pss": 1900, "rss": 2000, "swap": 1, "vmem": 8000},
        {"pss": 900, "rss": 1000, "swap": 0, "vmem": 4000},
        {"rchar": 77, "rbytes": 78, "wchar": 79, "wbytes": 80},
    )


@pytest.mark.parametrize(
    "text",
    ["", "[]", "7", "{", '{"Max": 5}', '{"Max": {"pss": "many"}}', '{"Max": {"pss": -1}}', '{"Max": {"pss": 1e999}}',
     '{"Max": {"pss": true}}', '{"Max": {"pss": NaN}}', "[" * 100_000, " " * 2_000_000],
    ids=lambda text: text[:24],
)  # fmt: skip
def test_a_summary_that_makes_no_sense_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / SUMMARY).write_text(text)
    assert read_summary(tmp_path) is None


def test_a_summary_that_is_a_folder_or_missing_is_none(tmp_path: Path) -> None:
    assert read_summary(tmp_path) is None
    (tmp_path / SUMMARY).mkdir()
    assert read_summary(tmp_path) is None


def test_the_monitor_is_looked_for_on_the_pilots_path_and_can_be_switched_off(tmp_path: Path) -> None:
    prmon = tmp_path / "prmon"
    prmon.write_text("#!/bin/sh\n")
    prmon.chmod(0o755)
    environ = {"PATH": str(tmp_path)}
    assert MemoryMonitoring.find("prmon", environ) == str(prmon)
    assert MemoryMonitoring.find("", environ) == ""
    assert MemoryMonitoring.find("other", environ) == ""


def test_the_monitors_command_names_process_files_and_interval(tmp_path: Path) -> None:
    monitor = MemoryMonitoring(pid=7, workdir=str(tmp_path), cmd="/opt/prmon", interval=30)
    assert monitor.get_command() == (
        f"/opt/prmon --pid 7 --filename {tmp_path}/{OUTPUT} --json-summary {tmp_path}/{SUMMARY} --interval 30"
    )
    assert monitor.get_filename() == f"{tmp_path}/{OUTPUT}"
    assert monitor.get_results() is None
    monitor.finish()


def test_a_monitor_without_a_process_to_watch_is_not_started(tmp_path: Path) -> None:
    with pytest.raises(NotDefined):
        MemoryMonitoring(workdir=str(tmp_path)).execute(Launcher(), {})
