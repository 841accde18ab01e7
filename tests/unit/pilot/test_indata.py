"""What the payload is told of its inputs: PoolFileCatalog.xml, and names or TURLs in its command."""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.control.indata import (
    get_input_file_dictionary,
    get_rse,
    skip_special_files,
    update_indata,
    write_pool_file_catalogue,
    write_utility_output,
)
from pilot.info.filespec import FileSpec
from pilot.info.jobdata import JobData
from pilot.user.generic.common import get_payload_command, replace_lfns_with_turls
from pilot.util.https import Json
from tests.unit.pilot.builders import with_inputs

REMOTE = "root://h:1094//a/in0.root?x=1&y=<2>\"'"


def inputs() -> list[FileSpec]:
    return [
        FileSpec("in0.root", guid="G0", status="remote_io", turl=REMOTE),
        FileSpec("in1.root", guid="G1", status="transferred", turl="file:///elsewhere"),
        FileSpec("in2.root"),
    ]


def entries(path: Path) -> dict[str, tuple[str, str]]:
    """{lfn: (guid, pfn)} as a reader of such catalogues finds them."""
    found = {}
    for entry in ElementTree.parse(path).getroot().iter("File"):
        pfn, lfn = entry.find("physical/pfn"), entry.find("logical/lfn")
        assert pfn is not None and lfn is not None and pfn.get("filetype") == "ROOT_All"
        found[str(lfn.get("name"))] = (str(entry.get("ID")), str(pfn.get("name")))
    return found


def test_a_catalogue_has_names_of_copies_and_addresses_of_what_is_read_remotely(tmp_path: Path) -> None:
    path = tmp_path / "PoolFileCatalog.xml"
    write_pool_file_catalogue(path, inputs(), {})
    found = entries(path)
    assert found["in0.root"] == ("G0", REMOTE)
    assert found["in1.root"] == ("G1", "in1.root")
    guid, pfn = found["in2.root"]
    assert len(guid) == 36 and pfn == "in2.root"
    assert '<!DOCTYPE POOLFILECATALOG SYSTEM "InMemory">' in path.read_text(encoding="utf-8")
    assert os.listdir(tmp_path) == ["PoolFileCatalog.xml"]


def test_no_catalogue_is_written_without_inputs_or_over_an_input_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "PoolFileCatalog.xml"
    write_pool_file_catalogue(path, [], {})
    write_pool_file_catalogue(path, [FileSpec("PoolFileCatalog.xml")], {})
    assert not path.exists()


def test_a_catalogue_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PilotException, match="list of inputs") as raised:
        write_pool_file_catalogue(tmp_path / "none" / "x.xml", inputs(), {})
    assert raised.value.code == ErrorCodes.FILEHANDLINGFAILURE


def test_variables_in_turls_are_replaced_but_not_those_of_credentials() -> None:
    turl = "root://${HOST}:$PORT//f?$BEARER_TOKEN&${X509_USER_PROXY}$NONE"
    spec = FileSpec("f.root", guid="G", status="remote_io", turl=turl)
    environ = {"HOST": "h", "PORT": "1", "BEARER_TOKEN": "secret", "X509_USER_PROXY": "/p"}
    wanted = "root://h:1//f?$BEARER_TOKEN&${X509_USER_PROXY}$NONE"
    assert get_input_file_dictionary([spec], environ) == {"G": wanted}


TURL = "root://h:1094//d/in0.root"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("--in in0.root", f"--in {TURL}"),
        ("--in=in0.root,in1.root", f"--in={TURL},in1.root"),
        ("--in='in0.root'", f"--in='{TURL}'"),
        ("--in=@in0.root.", f"--in=@{TURL}."),
        ("\"['in0.root', 'in1.root']\"", f"\"['{TURL}', 'in1.root']\""),
        ("in0.root.1 xin0.root dir/in0.root ./in0.root in0.root-2", None),
        (f"again {TURL}", None),
    ],
)
def test_the_turl_takes_the_place_of_the_name_where_that_is_a_word(text: str, wanted: str | None) -> None:
    files = [FileSpec("in0.root", status="remote_io", turl=TURL), FileSpec("in1.root", status="transferred", turl="x")]
    assert replace_lfns_with_turls(text, files) == (text if wanted is None else wanted)


def test_a_turl_that_a_shell_would_take_for_more_stays_out_of_the_command() -> None:
    for turl in ("root://h//f;reboot", "https://h/f?a=1&b=2", "root://h//$(x)", "root://h// f"):
        assert (
            replace_lfns_with_turls("cat f.root", [FileSpec("f.root", status="remote_io", turl=turl)]) == "cat f.root"
        )


@pytest.mark.parametrize(
    ("called", "status", "wanted"),
    [
        ("./runGen-00-00-02", "remote_io", "./runGen-00-00-02 -p in0.root --usePFCTurl --directIn"),
        ("./runAthena-1", "remote_io", "./runAthena-1 -p in0.root --usePFCTurl --directIn"),
        ("./runGen-00-00-02", "transferred", "./runGen-00-00-02 -p in0.root"),
        ("Reco_tf.py", "remote_io", f"Reco_tf.py -p {TURL}"),
        ("Reco_tf.py", "transferred", "Reco_tf.py -p in0.root"),
    ],
)
def test_transformations_are_told_that_inputs_are_read_where_they_lie(called: str, status: str, wanted: str) -> None:
    job = JobData(with_inputs(1, jobPars="-p in0.root"))
    job.indata[0].status, job.indata[0].turl = status, TURL
    assert get_payload_command(job, called) == wanted


def test_options_that_are_there_already_are_not_given_twice() -> None:
    job = JobData(with_inputs(1, jobPars="--directIn -p x"))
    job.indata[0].status, job.indata[0].turl = "remote_io", TURL
    assert get_payload_command(job, "./runGen-00-00-02") == "./runGen-00-00-02 --directIn -p x --usePFCTurl"


def test_inputs_that_are_on_the_node_already_are_taken_off_the_list() -> None:
    job = JobData(with_inputs(3))
    job.indata[1].status = "no_transfer"
    skip_special_files(job)
    update_indata(job)
    assert [spec.lfn for spec in job.indata] == ["in0.root", "in2.root"]


@pytest.mark.parametrize(("lfn", "wanted"), [("", "A"), ("b", "B"), ("c", "")])
def test_the_storage_of_a_file_is_found_by_its_name(lfn: Json, wanted: str) -> None:
    data = [FileSpec("a", ddmendpoint="A"), FileSpec("b", ddmendpoint="B")]
    assert get_rse(data, str(lfn)) == wanted
    assert get_rse([]) == ""


def test_what_a_utility_said_is_written_beside_the_job(tmp_path: Path) -> None:
    write_utility_output(str(tmp_path), "preprocess", "out", "err")
    assert (tmp_path / "preprocess_stdout.txt").read_text() == "out"
    assert (tmp_path / "preprocess_stderr.txt").read_text() == "err"
