"""Sizes and a job's own requests, as tables."""

from __future__ import annotations

import pytest

from pilot.common.errorcodes import ErrorCodes
from pilot.control.rules.sizes import (
    exceeded_requests,
    output_verdict,
    space_verdict,
    stdout_verdict,
    workdir_verdict,
)

C = ErrorCodes
MB = 2**20


@pytest.mark.parametrize(
    ("size", "limit_kb", "fine"), [(0, 10, True), (10240, 10, True), (10241, 10, False), (1, 0, False), (0, 0, True)]
)
def test_output_up_to_the_limit_is_fine(size: int, limit_kb: int, fine: bool) -> None:
    verdict = stdout_verdict(size, limit_kb)
    assert (verdict is None) is fine
    if verdict is not None:
        assert verdict.code == C.STDOUTTOOBIG
        assert f"have {size} bytes, {limit_kb * 1024} are allowed" in verdict.diag


@pytest.mark.parametrize(
    ("size", "limit_mb", "fine"), [(0, 1, True), (MB, 1, True), (MB + 1, 1, False), (10**15, 0, True)]
)
def test_a_directory_up_to_the_limit_is_fine_and_zero_is_no_limit(size: int, limit_mb: int, fine: bool) -> None:
    verdict = workdir_verdict(size, limit_mb)
    assert (verdict is None) is fine
    if verdict is not None:
        assert verdict.code == C.USERDIRTOOLARGE
        assert f"has {size} bytes, the queue allows {limit_mb * MB}" in verdict.diag


@pytest.mark.parametrize(("free", "least", "fine"), [(10, 10, True), (9, 10, False), (0, 0, True)])
def test_a_disk_with_enough_space_is_fine(free: int, least: int, fine: bool) -> None:
    verdict = space_verdict(free, least)
    assert (verdict is None) is fine
    if verdict is not None:
        assert verdict.code == C.NOLOCALSPACE
        assert f"only {free} bytes" in verdict.diag and f"{least} are needed" in verdict.diag


@pytest.mark.parametrize(
    ("sizes", "named"), [({}, ""), ({"a": 10}, ""), ({"a": 10, "b": 11}, "b"), ({"a": 99, "b": 98}, "a")]
)
def test_an_output_that_is_too_large_is_named(sizes: dict[str, int], named: str) -> None:
    verdict = output_verdict(sizes, 10)
    assert (verdict is None) is (not named)
    if verdict is not None:
        assert verdict.code == C.OUTPUTFILETOOLARGE
        assert verdict.diag == f"output file {named} has {sizes[named]} bytes already, 10 are allowed"


@pytest.mark.parametrize(
    ("disk", "cpu", "wall", "names"),
    [(0, 0.0, 0.0, []), (MB, 10.0, 20.0, []), (MB + 1, 10.1, 20.1, ["maxCpuCount", "maxDiskCount", "maxWalltime"])],
)
def test_a_job_that_uses_more_than_it_asked_for_is_told_which(
    disk: int, cpu: float, wall: float, names: list[str]
) -> None:
    told = exceeded_requests(disk=disk, maxdiskcount=1, cpu=cpu, maxcpucount=10, wall=wall, maxwalltime=20)
    assert sorted(told) == names


def test_what_was_not_asked_for_cannot_be_exceeded() -> None:
    assert exceeded_requests(disk=2**60, maxdiskcount=0, cpu=1e9, maxcpucount=0, wall=1e9, maxwalltime=0) == {}


def test_the_sentence_names_both_figures_and_the_field() -> None:
    told = exceeded_requests(disk=0, maxdiskcount=0, cpu=0, maxcpucount=0, wall=30.4, maxwalltime=20)
    assert told == {"maxWalltime": "the payload has used 30 s of wall time, it had asked for 20 (maxWalltime)"}
