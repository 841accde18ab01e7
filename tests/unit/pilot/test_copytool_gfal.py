"""The parts of copytool gfal that decide: how files are named to gfal2, and which Pythons are asked for its module."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pilot.copytool import gfal, tools
from pilot.copytool.helpers.with_gfal import local_url, remote_url
from pilot.info.filespec import FileSpec


@pytest.mark.parametrize(
    ("surl", "wanted"),
    [
        ("root://h:1094//data/a+b=c@d:e~f", "root://h:1094//data/a+b=c@d:e~f"),
        ("root://h//data/a#b", "root://h//data/a%23b"),
        ("davs://h/data/a%20b?authz=x%20y", "davs://h/data/a%2520b?authz=x%20y"),
        ("srm://h:8443/srm/managerv2?SFN=/a#b", "srm://h:8443/srm/managerv2?SFN=/a#b"),
        ("gsiftp://h/a%20b", "gsiftp://h/a%20b"),
        ("file://localhost/data/a#b", "file:///data/a#b"),
        ("/data/f", "file:///data/f"),
    ],
)
def test_a_file_in_storage_is_named_as_the_plugin_wants_it(surl: str, wanted: str) -> None:
    assert remote_url(surl) == wanted


@pytest.mark.parametrize(
    ("other", "wanted"),
    [
        ("root://h//f", "file:///w/a%2520b%23c+d"),
        ("davs://h/f", "file:///w/a%20b#c+d"),
        ("/d/f", "file:///w/a%20b#c+d"),
    ],
)
def test_a_file_on_the_node_is_quoted_for_xrootd_alone(other: str, wanted: str) -> None:
    assert local_url("/w/a%20b#c+d", other) == wanted


def test_pythons_are_this_one_the_sites_and_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gfal2.py").touch()
    named = tmp_path / "python-of-the-site"
    named.symlink_to(sys.executable)
    system = tmp_path / "python3"
    system.symlink_to(sys.executable)
    monkeypatch.setattr(gfal, "SYSTEM_PYTHON", str(system))
    assert gfal.pythons({"PATH": "/bin"}) == [str(system)]
    assert gfal.pythons({"PATH": str(tmp_path), "GFAL_PYTHONBIN": named.name}) == [str(named), str(system)]
    assert gfal.pythons({"GFAL_PYTHONBIN": "/none/python"}) == [str(system)]
    monkeypatch.syspath_prepend(str(tmp_path))
    assert gfal.pythons({"GFAL_PYTHONBIN": str(named)}) == [sys.executable, str(named), str(system)]


@pytest.mark.parametrize("surl", ["root://h//f", "davs://h/f", "http://h/f", "srm://h/f", "gsiftp://h/f", "/f"])
def test_both_names_are_one_copytool_that_takes_what_gfal2_may_speak(surl: str) -> None:
    assert tools.load("gfal") is tools.load("gfalcopy") is gfal
    files = [FileSpec("f", surl=surl)]
    assert gfal.is_valid_for_copy_in(files) and gfal.is_valid_for_copy_out(files)
    assert not gfal.is_valid_for_copy_in([FileSpec("f", surl="s3://h/f")])
