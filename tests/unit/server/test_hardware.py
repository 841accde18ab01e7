"""Which hardware jobs want, and which queues and nodes have it (chapter 12.1.1 of PanDA's documents)."""

from __future__ import annotations

import pytest

from server.logic import nodes, queues, shares
from server.logic.errors import BadJob
from server.logic.hardware import hardware_of, hardware_wanted, lacking
from tests.unit.server.dispatcher import QUEUE, Dispatcher

CPU = {"type": "cpu", "arch": ["x86_64"], "instr": ["avx2"], "vendor": ["intel", "excl"]}
GPU = {"type": "gpu", "vendor": ["nvidia", "excl"], "model": ["kt100"]}


@pytest.mark.parametrize(
    ("cmt_config", "wanted"),
    [
        ("x86_64-centos7-gcc8-opt", ""),
        ("x86_64-centos7@centos9#x86_64-intel-avx2&nvidia-a100", "#x86_64-intel-avx2&nvidia-a100"),
        ("x&nvidia", "&nvidia"),
        ("x#arm64", "#arm64"),
        ("", ""),
    ],
)
def test_what_a_job_wants_stands_behind_its_platform(cmt_config: str, wanted: str) -> None:
    assert hardware_wanted(cmt_config) == wanted


@pytest.mark.parametrize(
    ("arch", "wanted", "fits"),
    [
        (["x86_64"], "#x86_64", True),
        ([""], "#x86_64", True),
        (["x86_64", "excl"], "#x86_64", True),
        (["arm64"], "#x86_64", False),
        (["x86_64"], "", True),
        (["x86_64", "excl"], "", False),
        (["X86_64"], "#x86_64-amd", True),
    ],
)
def test_cpus_are_compared_as_the_documents_have_it(arch: list[str], wanted: str, fits: bool) -> None:
    assert (not lacking(wanted, hardware_of({"architectures": [{"type": "cpu", "arch": arch}]}))) is fits


@pytest.mark.parametrize(
    ("architectures", "wanted", "fits"),
    [
        ([GPU], "&nvidia-kt100", True),
        ([GPU], "&nvidia", True),
        ([GPU], "&amd", False),
        ([GPU], "&nvidia-a100", False),
        ([GPU], "", False),  # the queue is for GPU jobs alone
        ([{**GPU, "vendor": ["nvidia"]}], "", True),
        ([{**GPU, "vendor": ["nvidia"]}], "&", True),
        ([], "&nvidia", False),
        ([CPU], "#x86_64-intel-avx2", True),
        ([CPU], "#x86_64-intel-avx512", False),
        ([CPU], "#x86_64", False),  # its vendor is for those that ask for it
        ([CPU, GPU], "#x86_64-intel&nvidia", True),
        ("nonsense", "", True),
        ([5, {"type": 5}, {"type": "cpu", "arch": "x"}], "#x", True),
    ],
)
def test_gpus_must_be_there_and_may_be_reserved(architectures: object, wanted: str, fits: bool) -> None:
    assert (not lacking(wanted, hardware_of({"architectures": architectures}))) is fits


def test_a_job_that_needs_a_gpu_goes_where_queue_or_node_have_one(dispatcher: Dispatcher) -> None:
    plain, gpu = dispatcher.submit({"priority": 1}, {"priority": 5, "cmtConfig": "x&nvidia-A100"})
    assert dispatcher.get_job(node="slot1@wn1")["PandaID"] == plain
    answer = dispatcher.no_job(node="slot1@wn1")
    assert (answer.reason, answer.retry_after) == ("hardware", 60)
    assert "nvidia-A100" in answer.sentence
    nodes.update_node(dispatcher.context, QUEUE, "wn1", "gpu:AMD:MI300", {})
    assert dispatcher.no_job(node="slot1@wn1").reason == "hardware"
    nodes.update_node(dispatcher.context, QUEUE, "wn1", "gpu:NVIDIA:A100", {})
    assert dispatcher.no_job(node="slot1@wn2").reason == "hardware"
    assert dispatcher.get_job(node="slot1@wn1")["PandaID"] == gpu


def test_a_nodes_gpus_are_known_where_only_the_first_shares_are_looked_at(dispatcher: Dispatcher) -> None:
    tree: dict[str, object] = {name: {"value": 1, "workingGroup": name} for name in "ABCD"}
    tree["A"] = {"value": 100, "workingGroup": "A"}
    shares.set_shares(dispatcher.context, tree)
    nodes.update_node(dispatcher.context, QUEUE, "wn1", "gpu:NVIDIA:A100", {})
    dispatcher.configure("SLOPPY_DISPATCH_RATIO", -1, "dispatch")
    dispatcher.clock.now += 60
    gpu, plain = dispatcher.submit({"workingGroup": "A", "cmtConfig": "x&nvidia"}, {"workingGroup": "B"})
    assert dispatcher.get_job(node="slot1@wn1")["PandaID"] == gpu
    assert dispatcher.get_job(node="slot1@wn1")["PandaID"] == plain


def test_a_queue_that_describes_its_gpus_gives_out_such_jobs_to_every_pilot(dispatcher: Dispatcher) -> None:
    queues.add_queues(dispatcher.context, {QUEUE: {"architectures": [GPU]}})
    plain, gpu = dispatcher.submit({"priority": 5}, {"priority": 1, "cmtConfig": "x&nvidia"})
    assert dispatcher.get_job()["PandaID"] == gpu
    assert dispatcher.no_job().reason == "hardware"
    assert dispatcher.status(plain) == "activated"


@pytest.mark.parametrize("cmt_config", ["x#a#b", "x&a&b", "x&a#b", f"x#{'a' * 128}"])
def test_a_job_that_says_nonsense_of_its_hardware_is_refused(dispatcher: Dispatcher, cmt_config: str) -> None:
    with pytest.raises(BadJob) as caught:
        dispatcher.submit({"cmtConfig": cmt_config})
    assert caught.value.field == "cmtConfig"
