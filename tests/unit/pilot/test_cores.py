"""Core dumps: found by what they are, kept or removed as the settings say, and told of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pilot.control.cores import find_cores, kernel_pattern, settle_cores
from pilot.control.payloadend import judge
from pilot.util.guarded import Outcome
from tests.unit.pilot.builders import SETTINGS, context, job_run

CORE = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x04\x00" + bytes(1000)


@pytest.mark.parametrize("name", ["core", "core.123", "core.node.1.gz", "a.core", "sub/core.7", "dump-x-9"])
def test_a_core_dump_is_found_by_its_name_and_its_beginning(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(CORE)
    assert list(find_cores(tmp_path, "dump-*-*")) == [(path, len(CORE))]
    path.write_bytes(CORE.replace(b"\x04\x00", b"\x02\x00"))
    assert list(find_cores(tmp_path, "dump-*-*")) == []


def test_what_is_only_called_so_is_none_nor_is_what_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core.py").write_text("pass")
    (tmp_path / "program").write_bytes(CORE)
    (tmp_path / "core.1").symlink_to("program")
    assert list(find_cores(tmp_path)) == []


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("core\n", "core"), ("core.%p", "core.*"), ("/tmp/dumps/%e-%%-%p", "*-%-*"), ("|/usr/bin/apport %p", ""),
        ("", ""), ("core[%p]", "core[[]*[]]"),
    ],
)  # fmt: skip
def test_the_kernels_own_name_for_them_is_understood(tmp_path: Path, setting: str, wanted: str) -> None:
    (tmp_path / "core_pattern").write_text(setting)
    assert kernel_pattern(tmp_path / "core_pattern") == wanted


@pytest.mark.parametrize(
    ("policy", "debug", "limit", "kept"),
    [
        ("keep", False, 5000, True),
        ("drop", True, 5000, False),
        ("debug", False, 5000, False),
        ("debug", True, 5000, True),
        ("keep", False, 500, False),
    ],
)
def test_a_core_dump_is_kept_or_removed_as_the_settings_say(
    tmp_path: Path, policy: str, debug: bool, limit: int, kept: bool
) -> None:
    payload = replace(SETTINGS.payload, core_dumps=policy, core_limit=limit)
    shared = context(tmp_path, settings=replace(SETTINGS, payload=payload))
    run = job_run(tmp_path / "job")
    run.debug = debug
    run.workdir.mkdir()
    (run.workdir / "core.5").write_bytes(CORE)
    settle_cores(run, shared)
    assert (run.workdir / "core.5").exists() == kept
    assert run.cores == ({"core.5"} if kept else frozenset())
    error = judge(run, Outcome(None, signal=11), "")
    assert error is not None
    assert f"core dump core.5 ({len(CORE)} bytes) {'is in the log' if kept else 'was removed'}" in error.diag


def test_an_output_that_is_a_core_dump_stays(tmp_path: Path) -> None:
    run = job_run(tmp_path / "job")
    run.workdir.mkdir()
    run.data.outdata[0].lfn = "core.out"
    (run.workdir / "core.out").write_bytes(CORE)
    settle_cores(run, context(tmp_path))
    assert (run.workdir / "core.out").exists() and run.core_story == ""
