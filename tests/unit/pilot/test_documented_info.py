"""The documented names of pilot.info.dataloader and jobdata, and of pilot.util.monitoringtime: they do what is said."""

from __future__ import annotations

import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Callable, ClassVar

import pytest

from pilot.copytool import gfal, lsm
from pilot.info.basedata import BaseData
from pilot.info.dataloader import DataLoader, merge_dict_data
from pilot.info.jobdata import JobData
from pilot.info.jobinfo import JobInfoProvider
from pilot.util.https import Json
from pilot.util.monitoringtime import MonitoringTime
from tests.unit.pilot.builders import definition
from tests.unit.pilot.webserver import Answer, WebServer


def test_a_files_age_decides_whether_it_is_expired(tmp_path: Path) -> None:
    path = tmp_path / "f"
    assert DataLoader.get_file_last_update_time(str(path)) is None and DataLoader.is_file_expired(str(path), 1e9)
    path.touch()
    os.utime(path, (time.time() - 100, time.time() - 100))
    assert DataLoader.get_file_last_update_time(str(path)) == os.stat(path).st_mtime
    assert DataLoader.is_file_expired(str(path), 50) and not DataLoader.is_file_expired(str(path), 500)
    assert DataLoader.is_file_expired(str(path))


def test_data_is_read_and_kept_for_a_while(web: WebServer, tmp_path: Path) -> None:
    kept = str(tmp_path / "kept")
    web.route("/d", Answer(b"first"), Answer(b"second"))
    assert DataLoader.load_url_data(f"{web.url}/d", kept, cache_time=600) == "first"
    assert DataLoader.load_url_data(f"{web.url}/d", kept, cache_time=600) == "first" and len(web.paths()) == 1
    assert DataLoader.load_url_data(None, kept) == "first"
    os.utime(kept, (1000, 1000))
    assert DataLoader.load_url_data(f"{web.url}/d", kept, cache_time=600) == "second"
    assert DataLoader.load_url_data(kept) == DataLoader.load_url_data(f"file://{kept}") == "second"


def test_a_source_is_tried_again(web: WebServer, tmp_path: Path) -> None:
    web.route("/d", Answer(status=503), Answer(b"now"))
    assert DataLoader.load_url_data(f"{web.url}/d", str(tmp_path / "no" / "place"), nretry=2, sleep_time=0.01) == "now"
    assert DataLoader.load_url_data(str(tmp_path / "none")) is None
    web.route("/gone", Answer(status=404))
    assert DataLoader.load_url_data(f"{web.url}/gone", nretry=2, sleep_time=0.01) is None


def test_the_first_source_with_data_counts(web: WebServer, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("no JSON")
    (tmp_path / "empty").write_text("{}")
    web.route("/d", Answer({"a": 1}))
    sources: dict[str, dict[str, Json]] = {
        "BAD": {"url": str(tmp_path / "bad"), "nretry": 1},
        "EMPTY": {"url": str(tmp_path / "empty"), "nretry": 1},
        "WEB": {"url": f"{web.url}/d", "cache_time": 5, "fname": str(tmp_path / "kept")},
    }
    assert DataLoader.load_data(sources, ["BAD", "EMPTY", "WEB"]) == DataLoader.load_data(sources, []) == {"a": 1}
    assert DataLoader.load_data(sources, ["BAD"], parser=lambda text: text.split()) == ["no", "JSON"]
    assert DataLoader.load_data(sources, ["BAD", "EMPTY"]) is None


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, {"a": 1, "b": {"y": 2}, "c": 3}),
        ({"rec": True}, {"a": 1, "b": {"x": 1, "y": 2}, "c": 3}),
        ({"left": False}, {"b": {"y": 2}, "c": 3}),
        ({"right": False}, {"a": 1, "b": {"y": 2}}),
        ({"common": False}, {"a": 1, "b": {"x": 1}, "c": 3}),
        ({"keys": ["c"]}, {"a": 1, "b": {"x": 1}, "c": 3}),
    ],
)
def test_dictionaries_are_merged(options: dict[str, bool], wanted: dict[str, Json]) -> None:
    first: dict[str, Json] = {"a": 1, "b": {"x": 1}}
    assert merge_dict_data(first, {"b": {"y": 2}, "c": 3}, **options) == wanted  # type: ignore[arg-type]
    assert first == {"a": 1, "b": {"x": 1}}


@pytest.mark.parametrize(
    ("given", "rest", "image"),
    [
        ("run --containerImage=docker://x:1 -n 5", "run -n 5", "docker://x:1"),
        ("--containerImage='/a b.sif' run", " run", "/a b.sif"),
        ("run -n 5", "run -n 5", ""),
    ],
)
def test_the_image_is_taken_out_of_job_parameters(given: str, rest: str, image: str) -> None:
    assert JobData.extract_container_image(given) == (rest, image)


def test_times_of_checks_are_kept() -> None:
    before = int(time.time())
    times = MonitoringTime()
    assert before <= times.get("ct_proxy") <= time.time()
    times.update("ct_proxy", modtime=5)
    assert times.get("ct_proxy") == 5 < times.get("ct_memory")
    times.update("ct_proxy")
    assert times.get("ct_proxy") >= before
    for call in (lambda: times.get("proxy"), lambda: times.update("ct_none")):
        with pytest.raises(AttributeError, match="there is no check"):
            call()


def test_the_servers_names_of_a_jobs_attributes_are_told() -> None:
    assert JobData.get_kmap()["jobparams"] == "jobPars"
    changed = JobData.get_kmap()
    changed["jobparams"] = "x"
    assert JobData(definition(jobPars="run")).jobparams == "run"


def test_a_description_derives_what_needs_several_fields() -> None:
    class Box(BaseData):
        _keys: ClassVar[dict[type, tuple[str, ...]]] = {int: ("width", "height")}
        width = height = area = 0

        def __init__(self, data: dict[str, Json]) -> None:
            self._load_data(data)

        def clean(self) -> None:
            self.area = self.width * self.height

    assert Box({"width": "2", "height": 3}).area == 6


@pytest.mark.parametrize(
    ("command", "check"),
    [
        ("lsm-get", lsm.check_for_lsm),
        ("lsm-put", lambda: lsm.check_for_lsm(dst_in=False)),
        ("gfal-copy", gfal.check_for_gfal),
    ],
)
def test_a_copytool_is_there_when_its_command_is(
    command: str, check: Callable[[], bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    # A Python of the system may have gfal2's module.
    assert check() is (command == "gfal-copy" and find_spec("gfal2") is not None)
    (tmp_path / command).write_text("#!/bin/sh\n")
    (tmp_path / command).chmod(0o755)
    assert check() is True


COMMAND = "run.sh --nevents=10 --name 'a b' -n 5 -v in.root --x=\"y z\" -5"


def test_options_and_other_words_are_told_apart() -> None:
    opts, others = JobData.get_opts_pargs(COMMAND)
    assert opts == {"nevents": "10", "name": "a b", "n": "5", "v": "in.root", "x": "y z"}
    assert others == ["run.sh", "-5"]
    assert JobData.get_opts_pargs("--a --b") == ({"a": None, "b": None}, [])
    assert JobData.get_opts_pargs("") == ({}, []) and JobData.get_opts_pargs("it's")[1] == ["it", "s"]


@pytest.mark.parametrize(
    ("options", "found", "left"),
    [
        ({"--nevents": int}, {"--nevents": 10}, "run.sh --name 'a b' -n 5 -v in.root --x=\"y z\" -5"),
        ({"name": str, "n": float}, {"name": "a b", "n": 5.0}, 'run.sh --nevents=10 -v in.root --x="y z" -5'),
        ({"x": int, "none": int}, {"x": None}, "run.sh --nevents=10 --name 'a b' -n 5 -v in.root -5"),
        ({}, {}, COMMAND),
    ],
)
def test_options_are_cast_and_taken_out(
    options: dict[str, Callable[[str], object]], found: dict[str, object], left: str
) -> None:
    assert JobData.parse_args(COMMAND, options) == (found, COMMAND)
    assert JobData.parse_args(COMMAND, options, remove=True) == (found, left)
    assert JobData.get_ret({"a": int}, {"a": None, "b": "1"}) == {"a": None}


def test_a_jobs_own_settings_are_told() -> None:
    changes = '--overwriteQueueData={"maxwdir": 5} --overwriteStorageData={"A": {"x": 1}, "B": {}}'
    provider = JobInfoProvider(JobData(definition(jobPars=f"run {changes}")))
    assert provider.job.jobparams == "run"
    assert provider.resolve_queuedata("Q") == {"Q": {"maxwdir": 5}}
    assert provider.resolve_storage_data() == {"A": {"x": 1}, "B": {}}
    assert provider.resolve_storage_data(["B", "C"]) == {"B": {}}
    assert provider.resolve_schedconf_sources() == []
    assert JobInfoProvider(JobData(definition())).resolve_queuedata("Q") == {}
