"""The software and hardware that queues publish, and the jobs that need some."""

from __future__ import annotations

import pytest

from server.logic.errors import BadJob
from server.logic.software import missing_software, platform_of
from tests.unit.server.configured import Configured

#: Chapter 12.1.1's example in small.
PUBLISHED = {
    "cmtconfigs": ["x86_64-centos7-gcc8-opt"],
    "containers": ["/images/atlas"],
    "cvmfs": ["atlas"],
    "tags": [{"cmtconfig": "x86_64-slc6-gcc62-opt", "container_name": "old:1", "sources": ["docker://old"]}],
}
ARCHITECTURES = [{"type": "cpu", "arch": ["x86_64"]}, {"type": "gpu", "vendor": ["nvidia", "excl"]}]


@pytest.mark.parametrize(
    ("cmt_config", "platform"),
    [
        ("", ""),
        ("NULL", ""),
        ("x86_64-el9-gcc13-opt", "x86_64-el9-gcc13-opt"),
        ("x86_64-el9-gcc13-opt@el8#x86_64-intel&nvidia", "x86_64-el9-gcc13-opt"),
        ("#x86_64", ""),
    ],
)
def test_a_platform_ends_where_the_hardware_begins(cmt_config: str, platform: str) -> None:
    assert platform_of(cmt_config) == platform


@pytest.mark.parametrize(
    ("published", "platform", "container", "complaint"),
    [
        (None, "p", "c", ""),
        ({}, "p", "", ""),
        (PUBLISHED, "", "", ""),
        (PUBLISHED, "x86_64-centos7-gcc8-opt", "", ""),
        (PUBLISHED, "x86_64-slc6-gcc62-opt", "", ""),
        (PUBLISHED, "arm64", "", "wants the platform arm64"),
        (PUBLISHED, "arm64", "/images/atlas/1", ""),
        (PUBLISHED, "arm64", "old:1", ""),
        (PUBLISHED, "", "docker://old", ""),
        (PUBLISHED, "", "docker://new", "wants the image docker://new"),
        ({**PUBLISHED, "containers": ["any"]}, "arm64", "docker://new", ""),
        ({**PUBLISHED, "containers": ["/cvmfs"]}, "arm64", "", ""),
        ({"cmtconfigs": "x", "tags": [5], "containers": {}}, "p", "", "it has none"),
    ],
)
def test_what_a_queue_lacks_is_said(published: object, platform: str, container: str, complaint: str) -> None:
    found = missing_software(published, platform, container)
    assert complaint in found
    assert bool(found) == bool(complaint)


def test_a_job_goes_where_its_platform_is(configured: Configured) -> None:
    configured.says("software", {"Q1": PUBLISHED})
    configured.run()
    configured.run("--sw_tags")
    dispatcher = configured.dispatcher
    dispatcher.submit({"queue": "Q1", "cmtConfig": "x86_64-centos7-gcc8-opt"}, {"queue": "Q2", "cmtConfig": "arm64"})
    with pytest.raises(BadJob, match="wants the platform arm64, which this queue does not have; it has x86_64-centos7"):
        dispatcher.submit({"queue": "Q1", "cmtConfig": "arm64"})
    configured.says("software", {"Q1": {**PUBLISHED, "containers": ["any"]}})
    configured.run("--sw_tags")
    dispatcher.submit({"queue": "Q1", "cmtConfig": "arm64"})


def test_published_hardware_is_looked_at_by_getjob_whichever_comes_first(configured: Configured) -> None:
    configured.says("software", {name: {**PUBLISHED, "architectures": ARCHITECTURES} for name in ("Q1", "Q2")})
    configured.says("queues", {"Q1": {}})
    configured.run()
    configured.run("--sw_tags")
    configured.says("queues", {"Q1": {}, "Q2": {}})
    configured.run()
    for name in ("Q1", "Q2"):
        assert configured.queue(name)["architectures"] == ARCHITECTURES
        plain, with_gpu = configured.dispatcher.submit({"queue": name}, {"queue": name, "cmtConfig": "&nvidia"})
        assert configured.dispatcher.get_job(queue=name)["PandaID"] == with_gpu
        assert configured.dispatcher.no_job(queue=name).reason == "hardware"
    configured.says("software", dict.fromkeys(("Q1", "Q2"), PUBLISHED))
    configured.run("--sw_tags")
    assert configured.dispatcher.get_job(queue="Q2")["PandaID"] == plain
