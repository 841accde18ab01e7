"""Direct access: queue, job, file and replica all have to allow it, and the first that does not is the reason."""

from __future__ import annotations

import pytest

from pilot.api.choice import Way
from pilot.api.direct import decide, pick
from pilot.info.filespec import FileSpec
from pilot.info.jobdata import JobData
from pilot.info.queuedata import QueueData
from pilot.info.replica import Replica
from pilot.util.https import Json
from tests.unit.pilot.builders import with_inputs

NEAR = Way("NEAR", "root://near:1094//f.root", "lan")
NEAR_DAVS = Way("NEAR", "davs://near/f.root", "lan")
FAR = Way("FAR", "root://far:1094//f.root", "wan")
FAR_DAVS = Way("FAR", "davs://far/f.root", "wan")
FAR_HTTPS = Way("FAR2", "https://far/f.root", "wan")
DCAP = Way("NEAR", "dcap://near/f.root", "lan")
SRM = Way("NEAR", "srm://near/f.root", "lan")
LAN: dict[str, Json] = {"direct_access_lan": True}
WAN: dict[str, Json] = {"direct_access_wan": True, "allow_wan": True}


def queue(**settings: Json) -> QueueData:
    return QueueData({"name": "Q", **settings})


def spec(lfn: str = "f.root", **about: str) -> FileSpec:
    return FileSpec(lfn, **{"accessmode": "direct", **about})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "ways", "wanted", "why"),
    [
        ({}, [[NEAR]], None, "queue Q: direct_access_lan is off; direct_access_wan is off and allow_wan is off"),
        (LAN, [[NEAR]], NEAR, "lan, root, as queue, job and file allow"),
        ({**LAN, "allow_lan": False}, [[NEAR]], None, "allow_lan is off"),
        (LAN, [[FAR]], None, "lan: no replica by root, dcache, dcap, file, https, davs; wan: direct_access_wan is off"),
        (WAN, [[FAR]], FAR, "wan, root"),
        ({"direct_access_wan": True}, [[FAR]], None, "allow_wan is off"),
        (WAN, [[NEAR]], None, "lan: direct_access_lan is off; wan: no replica by root, https"),
        ({**LAN, **WAN}, [[FAR], [NEAR]], NEAR, "lan"),
        ({**LAN, **WAN}, [[SRM], [FAR_DAVS], [FAR_HTTPS]], FAR_HTTPS, "wan, https"),
        (LAN, [[NEAR_DAVS, NEAR]], NEAR_DAVS, "lan, davs"),
        (LAN, [[SRM, DCAP]], DCAP, "lan, dcap"),
        (LAN, [], None, "no replica"),
    ],
)
def test_the_queue_decides_which_replicas_may_be_read_where_they_lie(
    settings: dict[str, Json], ways: list[list[Way]], wanted: Way | None, why: str
) -> None:
    access = decide(spec(), ways, queue(**settings))
    assert access.way == wanted
    assert why in access.why


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (spec("AOD.1._0001.pool.root.1"), ""),
        (spec("out.ROOT"), ""),
        (spec("a.root_000.2"), ""),
        (spec("user.me.lib.tgz"), "it is no ROOT file"),
        (spec("x.root.tgz"), "it is no ROOT file"),
        (spec("x.root.tar.gz"), "it is no ROOT file"),
        (spec("x.root.zip.1"), "it is no ROOT file"),
        (spec("data.RAW"), "it is no ROOT file"),
        (spec("rootless.txt"), "it is no ROOT file"),
        (spec(storage_token="local"), "the job wants it local (prodDBlockToken)"),
        (spec(accessmode="copy"), "the job wants copies (accessmode)"),
        (spec(accessmode=""), "the job does not ask for direct access"),
    ],
)
def test_job_and_file_decide_whether_a_file_may_be_read_where_it_lies(file: FileSpec, why: str) -> None:
    access = decide(file, [[NEAR]], queue(**LAN))
    assert access.way == (None if why else NEAR)
    assert not why or access.why == why
    assert file.is_directaccess(ensure_replica=False) is (not why)


@pytest.mark.parametrize(
    ("turl", "replicas", "schemes", "wanted"),
    [
        ("root://h//f", [], None, True),
        ("root://h//f", [], ["https"], False),
        ("", [Replica("A", "https://h/f")], ["root", "https"], True),
        ("", [Replica("A", "/plain/path")], None, False),
        ("", [], None, False),
    ],
)
def test_a_file_is_only_for_direct_access_when_one_of_its_replicas_is(
    turl: str, replicas: list[Replica], schemes: list[str] | None, wanted: bool
) -> None:
    file = FileSpec("f.root", accessmode="direct", turl=turl, replicas=replicas)
    assert file.is_directaccess(allowed_replica_schemas=schemes) is wanted


def test_a_way_is_picked_by_scheme_and_domain() -> None:
    ways = [[FAR, FAR_DAVS], [NEAR]]
    assert pick(ways, None, None) == FAR
    assert pick(ways, ["davs"], None) == FAR_DAVS
    assert pick(ways, None, "lan") == NEAR
    assert pick(ways, ["https"], "lan") is None


@pytest.mark.parametrize(
    ("definition", "wanted"),
    [
        ({}, ""),
        ({"transferType": "direct"}, "direct"),
        ({"transferType": "NULL"}, ""),
        ({"transferType": "fax"}, "copy"),
        ({"jobPars": "x --accessmode=direct y"}, "direct"),
        ({"jobPars": "--accessMode=copy"}, "copy"),
        ({"jobPars": "x --directIn"}, "direct"),
        ({"jobPars": "x --usePFCTurl y"}, "direct"),
        ({"jobPars": "x --directInput"}, ""),
        ({"transferType": "direct", "jobPars": "--accessmode=copy"}, "direct"),
        ({"jobPars": "--directIn --accessmode=copy"}, "copy"),
    ],
)
def test_a_job_says_how_it_wants_its_inputs(definition: dict[str, Json], wanted: str) -> None:
    job = JobData(with_inputs(1, **definition))
    assert [one.accessmode for one in job.indata] == [wanted]
    assert "accessmode" not in job.jobparams.lower()


@pytest.mark.parametrize(
    ("tokens", "wanted"),
    [
        ("local,NULL", ["local", ""]),
        ("local", ["local", "local"]),
        ("NULL", ["", ""]),
        ("a,b,c", ["", ""]),
        (None, ["", ""]),
    ],
)
def test_a_job_says_which_of_its_inputs_have_to_be_local(tokens: str | None, wanted: list[str]) -> None:
    job = JobData(with_inputs(2, prodDBlockToken=tokens))
    assert [one.storage_token for one in job.indata] == wanted
    assert job.is_local() is ("local" in wanted)


def test_a_job_knows_its_files() -> None:
    job = JobData(with_inputs(2, jobPars='--inputFile=@in0.root --other "--in=@in1.root"'))
    assert job.get_lfns_and_guids() == (["in0.root", "in1.root"], ["guid-0", "guid-1"])
    assert (job.infilesguids, job.datasetin) == ("guid-0,guid-1", "mc.ds0,mc.ds1")
    assert job.get_job_option_for_input_name("in0.root") == "--inputFile"
    assert job.get_job_option_for_input_name("in0") is None
    assert job.only_copy_to_scratch() and not job.has_remoteio() and not job.is_build_job()
    job.indata[0].status = "remote_io"
    assert job.has_remoteio() and not job.only_copy_to_scratch()
    job.outdata[0].lfn = "user.me.lib.tgz"
    assert job.is_build_job()
