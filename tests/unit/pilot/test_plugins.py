"""Experiment plugins: what one leaves out comes from generic, and one that is not there is named."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pilot.user
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.info.jobdata import JobData
from pilot.user.generic import common as generic_common
from pilot.user.generic.container import get_image
from pilot.user.generic.diagnose import interpret
from pilot.util.https import Json
from pilot.util.plugins import Plugins, coded, find_plugins, texts
from tests.unit.pilot.builders import definition


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for an experiment "zoo" beside generic."""
    folder = tmp_path / "user" / "zoo"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    monkeypatch.setattr(pilot.user, "__path__", [*pilot.user.__path__, str(tmp_path / "user")])
    yield folder
    for name in [name for name in sys.modules if name.startswith("pilot.user.zoo")]:
        del sys.modules[name]
    if hasattr(pilot.user, "zoo"):
        delattr(pilot.user, "zoo")


def test_a_hook_of_an_experiment_wins_over_generics(zoo: Path) -> None:
    (zoo / "common.py").write_text("def get_redundants():\n    return ('lion',)\n")
    assert Plugins("zoo").hook("common", "get_redundants")() == ("lion",)


@pytest.mark.parametrize("text", [None, "", "get_redundants = 7\n", "def other():\n    pass\n"])
def test_what_an_experiment_leaves_out_comes_from_generic(zoo: Path, text: str | None) -> None:
    if text is not None:
        (zoo / "common.py").write_text(text)
    assert Plugins("zoo").hook("common", "get_redundants") is generic_common.get_redundants


def test_an_experiment_that_is_not_there_is_named_with_those_there_are(zoo: Path) -> None:
    with pytest.raises(PilotException, match="no experiment plugin 'atlas'; there are: generic, zoo") as raised:
        Plugins("atlas")
    assert raised.value.code == ErrorCodes.NOTDEFINED


@pytest.mark.parametrize("name", ["", "../generic", "generic.common", "Generic"])
def test_a_name_that_is_none_leads_nowhere(name: str) -> None:
    with pytest.raises(PilotException, match="there is no experiment plugin"):
        Plugins(name)


def test_a_hook_that_nobody_has_is_named() -> None:
    with pytest.raises(PilotException, match=r"no plugin has the hook common\.feed_the_lion"):
        Plugins("generic").hook("common", "feed_the_lion")
    with pytest.raises(PilotException, match=r"no plugin has the hook lions\.feed"):
        Plugins("generic").hook("lions", "feed")


@pytest.mark.parametrize("missing", ["lions_and_tigers", "p", "pil", "pilot.user.zoo.comm"])
def test_a_plugin_that_lacks_something_of_its_own_is_an_error_and_no_missing_hook(zoo: Path, missing: str) -> None:
    (zoo / "common.py").write_text(f"import {missing}\n")
    with pytest.raises(ModuleNotFoundError, match=missing):
        Plugins("zoo").hook("common", "get_redundants")


def test_generic_has_the_hooks_that_the_pilot_calls() -> None:
    plugins = Plugins("generic")
    for module, name in (
        ("common", "get_payload_command"),
        ("common", "get_redundants"),
        ("setup", "prepare_transformation"),
    ):
        assert callable(plugins.hook(module, name))


def test_a_plugin_is_found_in_a_folder_of_the_settings_but_never_takes_generics_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pilot.user, "__path__", list(pilot.user.__path__))
    for name in ("circus", "generic"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
        (tmp_path / name / "common.py").write_text("def get_redundants():\n    return ['clown']\n")
    try:
        plugins = find_plugins("circus", f":{tmp_path}:/no/such/folder")
        assert plugins.hook("common", "get_redundants")() == ["clown"]
        assert plugins.hook("common", "sanity_check") is generic_common.sanity_check
        assert find_plugins("generic", str(tmp_path)).hook("common", "get_redundants") is generic_common.get_redundants
    finally:
        for name in [name for name in sys.modules if name.startswith("pilot.user.circus")]:
            del sys.modules[name]
        delattr(pilot.user, "circus")


@pytest.mark.parametrize(("code", "wanted"), [(1186, ErrorCodes.NOSOFTWAREDIR), ("no", ErrorCodes.GENERALERROR)])
def test_a_plugin_that_cannot_work_on_a_node_ends_the_pilot_with_its_code(zoo: Path, code: object, wanted: int) -> None:
    (zoo / "common.py").write_text(f"def sanity_check():\n    return {code!r}\n")
    with pytest.raises(PilotException, match=f"the plugin zoo cannot work on this node .*{code}") as raised:
        find_plugins("zoo", "")
    assert raised.value.code == wanted


def test_answers_of_hooks_that_make_no_sense_are_none() -> None:
    assert texts(["a", 1]) == ["a", "1"] and texts("ab") == texts(None) == texts(7) == []
    assert coded((1098, "full")) == (1098, "full") and coded(7) == (7, "")
    assert coded(None) == coded(True) == coded("x") == coded((1, 2, 3)) == (0, "")


@pytest.mark.parametrize(
    ("transformation", "exit_code", "stderr", "code"),
    [
        ("http://s/trf/user/runGen-00-00-02", 69, "x\nrunGen: the sandbox http://s/y: 404\x07.\nbye", 1246),
        ("http://s/trf/user/runGen-00-00-02", 1, "runGen: the sandbox http://s/y: 404.", 0),
        ("http://s/trf/user/runGen-00-00-02", 69, "service unavailable", 0),
        ("myprogram", 69, "there is no sandbox to play in", 0),
    ],
)
def test_a_sandbox_that_could_not_be_fetched_has_its_own_code(
    transformation: str, exit_code: int, stderr: str, code: int
) -> None:
    job = JobData(definition(transformation=transformation))
    found, text = interpret(job, exit_code, stderr)
    assert found == code and (not code or text == "runGen: the sandbox http://s/y: 404?.")


def test_a_job_of_several_steps_has_its_own_command_and_image() -> None:
    options: dict[str, Json] = {"containerImage": "docker://x", "containerExec": "/bin/sh __run_main_exec.sh"}
    job = JobData(definition(containerOptions=options, container_name="docker://other"))
    assert generic_common.get_payload_command(job, "./runGen") == "/bin/sh __run_main_exec.sh"
    assert get_image(job=job) == "docker://x"


def test_secrets_never_reach_the_log_tarball() -> None:
    assert "panda_secrets.json" in generic_common.get_redundants()
