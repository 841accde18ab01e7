"""What the pilot itself makes of Rucio: where it is, what its catalogue says, and the traces it is told."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pilot.api.attempts import Attempt
from pilot.api.data import StageInClient
from pilot.api.replicas import Catalogue, Known, fill, question, read_answer, site_of
from pilot.api.traces import Traces, trace_base, trace_of
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.control.data import create_trace_report, get_trace_report_variables
from pilot.copytool import rucio
from pilot.info.filespec import FileSpec
from pilot.info.replica import Replica
from pilot.util.https import Json
from pilot.util.ruciocfg import Hosts, find_hosts
from tests.unit.pilot import builders

C = ErrorCodes
SETTINGS = builders.SETTINGS.rucio
# What a Rucio server 41.5 answered when asked for two files that it has, one without replicas, and one that it does
# not know, with the client at the site of FILE1.
RECORDED: dict[str, Json] = json.loads(
    (Path(__file__).parents[2] / "golden" / "rucio_replicas.json").read_text(encoding="utf-8")
)
BOTH = (
    Replica("FILE1", "file://localhost/storage/FILE1/test/fa/8b/both", "lan", 1),
    Replica("XRD1", "root://xrootd.example:1094//data/xrd1/test/fa/8b/both", "wan", 2),
)


# ---- where Rucio is


def write_config(folder: Path, text: str) -> Path:
    (folder / "etc").mkdir(parents=True)
    (folder / "etc" / "rucio.cfg").write_text(text)
    return folder


CLIENT = "[client]\nrucio_host = https://rucio.example/\npassword = 50%\n"


def test_rucio_is_where_the_nodes_configuration_says(tmp_path: Path) -> None:
    home = write_config(tmp_path / "home", CLIENT)
    assert find_hosts({"RUCIO_HOME": str(home)}) == Hosts("https://rucio.example", "https://rucio.example")
    config = str(home / "etc" / "rucio.cfg")
    assert find_hosts({"RUCIO_CONFIG": config}).rucio == "https://rucio.example"
    traces = write_config(tmp_path / "traces", CLIENT + "[trace]\ntrace_host = https://traces.example\n")
    assert find_hosts({"VIRTUAL_ENV": str(traces)}).traces == "https://traces.example"


def test_what_the_pilot_is_told_wins_over_the_node(tmp_path: Path) -> None:
    home = write_config(tmp_path, CLIENT)
    assert find_hosts({"RUCIO_HOME": str(home)}, "http://127.0.0.1:1/") == Hosts(
        "http://127.0.0.1:1", "http://127.0.0.1:1"
    )


@pytest.mark.parametrize("text", ["", "no configuration", "[client]\n", "\xff\xfe"])
def test_a_configuration_without_rucio_says_nothing(tmp_path: Path, text: str) -> None:
    home = write_config(tmp_path, "")
    (home / "etc" / "rucio.cfg").write_bytes(text.encode("latin-1"))
    assert find_hosts({"RUCIO_CONFIG": str(home / "etc" / "rucio.cfg")}) == Hosts()
    assert find_hosts({"RUCIO_CONFIG": str(tmp_path / "none")}) == Hosts()


@pytest.mark.parametrize(
    ("environ", "site"),
    [
        ({"OSG_SITE_NAME": "O", "ATLAS_SITE_NAME": "A", "SITE_NAME": "S"}, "S"),
        ({"OSG_SITE_NAME": "O", "ATLAS_SITE_NAME": "A"}, "A"),
        ({"OSG_SITE_NAME": "O", "SITE_NAME": ""}, "O"),
        ({}, "ROAMING"),
    ],
)
def test_the_site_is_what_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], site: str
) -> None:
    assert site_of(environ) == site
    for name in ("SITE_NAME", "ATLAS_SITE_NAME", "OSG_SITE_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert StageInClient.detect_client_location() == {"site": site}


# ---- the catalogue


@pytest.mark.parametrize(
    ("copytools", "host", "asks", "wanted"),
    [
        (["rucio"], "http://r", True, True),
        (["mv", "xrdcp"], "http://r", True, True),
        (["mv", "lsm"], "http://r", True, False),
        (["s3"], "http://r", True, False),
        (["rucio"], "", True, False),
        (["rucio"], "http://r", False, False),
    ],
)
def test_the_catalogue_is_asked_for_those_who_make_use_of_it(
    copytools: list[str], host: str, asks: bool, wanted: bool, tmp_path: Path
) -> None:
    catalogue = Catalogue(replace(SETTINGS, replicas=asks), host, lambda: builders.transfer(tmp_path))
    assert catalogue.is_wanted(copytools) is wanted


def test_one_question_is_asked_for_all_files() -> None:
    files = [FileSpec("a", scope="mc", guid="g"), FileSpec("b", scope="user.x")]
    settings = replace(SETTINGS, rse_expression="tier=1", rse_expression_vp="vp=1")
    asked = question(files, ["root"], "HERE", settings, use_vp=False)
    assert asked == {
        "dids": [{"scope": "mc", "name": "a"}, {"scope": "user.x", "name": "b"}],
        "schemes": ["root"], "site": "HERE", "sort": "random", "expression": "tier=1",
        "guids": [{"scope": "user.x", "name": "b"}],
    }  # fmt: skip
    assert question(files, [], "HERE", settings, use_vp=True)["expression"] == "vp=1"


def test_a_recorded_answer_is_understood() -> None:
    assert read_answer(RECORDED) == {
        "mc:elsewhere": Known(
            10, {"adler32": "0aff020e", "md5": "781e5e245d69b566979b86e28d23f2c7"}, "",
            (Replica("FILE2", "file://localhost/storage/FILE2/mc/81/2d/elsewhere", "wan", 1),),
        ),
        "test:both": Known(3, {"adler32": "024d0127", "md5": "900150983cd24fb0d6963f7d28e17f72"}, "", BOTH),
        "test:nowhere": Known(0, {"adler32": "00000001", "md5": "d41d8cd98f00b204e9800998ecf8427e"}, ""),
    }  # fmt: skip


def answer_with(**about: Json) -> dict[str, Json]:
    """An answer about a file on tape, of which more can be said, and on disk."""
    tape: dict[str, Json] = {"rse": "T", "type": "TAPE", "domain": "lan", "priority": 1, **about}
    disk: dict[str, Json] = {"rse": "D", "type": "DISK", "domain": "wan", "priority": 2}
    pfns: dict[str, Json] = {"root://t/f": tape, "root://d/f": disk}
    entry: dict[str, Json] = {"scope": "s", "name": "n", "bytes": 1, "adler32": "ab", "pfns": pfns}
    return {"replicas": [entry], "guids": {"s:n": "g"}}


def test_tape_comes_last_and_files_in_archives_have_no_place() -> None:
    known = read_answer(answer_with())["s:n"]
    assert [one.ddmendpoint for one in known.replicas] == ["D", "T"] and known.guid == "g"
    assert known.checksums == {"adler32": "000000ab"}
    assert [one.ddmendpoint for one in read_answer(answer_with(client_extract=True))["s:n"].replicas] == ["D"]


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {},
        {"scope": "s", "name": "n"},
        {"scope": "s", "name": "n", "pfns": []},
        {"scope": "s", "name": "n", "pfns": {"root://h/f": "x"}},
        {"scope": "s", "name": "n", "pfns": {}, "bytes": "many"},
    ],
)
def test_an_answer_that_makes_no_sense_is_an_error(entry: Json) -> None:
    with pytest.raises(PilotException) as raised:
        read_answer({"replicas": [entry], "guids": {}})
    assert raised.value.code == C.RUCIOLISTREPLICASFAILED and "makes no sense" in raised.value.diag


def test_what_the_job_has_not_said_comes_from_the_catalogue() -> None:
    spec = FileSpec("f", scope="s")
    fill(spec, Known(3, {"adler32": "024d0127", "md5": "9001"}, "guid", BOTH))
    assert (spec.filesize, spec.checksum, spec.guid) == (3, {"adler32": "024d0127"}, "guid")
    assert spec.replicas == list(BOTH)


def test_what_the_job_has_said_stays() -> None:
    given = Replica("X", "root://x/f")
    spec = FileSpec("f", scope="s", filesize=3, checksum={"md5": "9001"}, guid="mine", replicas=[given])
    fill(spec, Known(3, {"adler32": "024d0127", "md5": "9001"}, "guid", BOTH))
    assert (spec.checksum, spec.guid, spec.replicas) == ({"md5": "9001"}, "mine", [given])


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        ({"filesize": 4}, C.STAGEINFAILED, "has 3 bytes by Rucio's catalogue, and 4 by the job"),
        ({"checksum": {"adler32": "0badbad0"}}, C.GETADMISMATCH, "024d0127 by Rucio's catalogue, and 0badbad0 by"),
        ({"checksum": {"md5": "beef"}}, C.GETMD5MISMATCH, "md5 9001 by Rucio's catalogue, and beef by the job"),
    ],
)
def test_another_file_than_the_jobs_is_an_error_with_both_values(
    said: dict[str, object], code: int, words: str
) -> None:
    spec = FileSpec("f", scope="s", **said)  # type: ignore[arg-type]
    with pytest.raises(PilotException) as raised:
        fill(spec, Known(3, {"adler32": "024d0127", "md5": "9001"}))
    assert raised.value.code == code and words in raised.value.diag and "s:f" in raised.value.diag


def test_an_entry_of_rucios_answer_can_be_put_into_a_file() -> None:
    entries = RECORDED["replicas"]
    assert isinstance(entries, list) and isinstance(entries[1], dict)
    assert StageInClient.add_replicas(FileSpec("both", scope="test"), entries[1]).replicas == list(BOTH)


def test_replicas_are_sorted_and_preferred_by_the_clients_names() -> None:
    assert [one.ddmendpoint for one in StageInClient.sort_replicas(BOTH, ["XRD1"])] == ["XRD1", "FILE1"]
    assert [one.ddmendpoint for one in StageInClient.sort_replicas(BOTH[::-1], [])] == ["FILE1", "XRD1"]
    assert StageInClient.get_preferred_replica(BOTH, ["root", "file"]) == BOTH[0]
    assert StageInClient.get_preferred_replica(BOTH, ["root"]) == BOTH[1]
    assert StageInClient.get_preferred_replica(BOTH, ["davs"]) is None


def test_without_a_place_the_copytool_rucio_asks_for_the_file_itself(tmp_path: Path) -> None:
    service = builders.infosys({"acopytools": {"pr": ["rucio"]}, "astorages": {}}, {})
    client = StageInClient(service, logger=builders.LOG, settings=builders.file_settings(), workdir=tmp_path)
    (place,) = client.places(FileSpec("f", scope="mc"), ("pr",))
    assert (place.endpoint, place.surl, place.copytool) == ("", "rucio:///mc:f", "rucio")
    with pytest.raises(PilotException) as raised:
        client.places(FileSpec("f"), ("pr",))
    assert raised.value.code == C.NOSTORAGE


def test_the_copytool_takes_files_that_rucio_can_name() -> None:
    good = FileSpec("f", scope="mc", surl="root://h//f", ddmendpoint="A")
    assert rucio.is_valid_for_copy_in([good]) and rucio.is_valid_for_copy_out([good])
    assert not rucio.is_valid_for_copy_in([replace(good, scope="")])
    assert not rucio.is_valid_for_copy_out([replace(good, ddmendpoint="")])
    assert not rucio.is_valid_for_copy_in([replace(good, surl="s3://h/f")])


def test_a_file_without_a_scope_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(PilotException) as raised:
        rucio.copy_in([FileSpec("f", surl="root://h//f")], builders.transfer(tmp_path))
    assert raised.value.code == C.MISSINGINPUTFILE and "f has no scope" in raised.value.diag


@pytest.mark.parametrize(
    ("stored_size", "stored", "code"),
    [(5, "0badbad0", C.PUTADMISMATCH), (4, "", C.PUTADMISMATCH), (5, "", 0), (-1, "", 0), (5, "0a1b2c3d", 0)],
)
def test_what_the_storage_has_is_compared_with_what_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored_size: int, stored: str, code: int
) -> None:
    # No real storage here changes a file between Rucio's own look at it and that of the pilot.
    done = {"pfn": "root://h//f", "size": 5, "adler32": "0a1b2c3d", "md5": "m"}
    monkeypatch.setattr(rucio, "_call", lambda *_, **__: {**done, "stored_size": stored_size, "stored": stored})
    (tmp_path / "f").write_bytes(b"12345")
    spec = FileSpec("f", "output", scope="mc", ddmendpoint="A", surl="root://h//elsewhere")
    if code:
        with pytest.raises(PilotException) as raised:
            rucio.copy_out([spec], builders.transfer(tmp_path))
        assert raised.value.code == code and "0a1b2c3d" in raised.value.diag and str(stored_size) in raised.value.diag
    else:
        rucio.copy_out([spec], builders.transfer(tmp_path))
        assert (spec.surl, spec.checksum) == ("root://h//f", {"adler32": "0a1b2c3d"})


# ---- traces


ATTEMPT = Attempt("f", "in", 1, "rucio", "XRD1", "h:1094", "root", 5, 2.0)
SPEC = FileSpec("f", scope="mc", guid="g", dataset="mc:ds", filesize=5, surl="root://h:1094//f?authz=secret")


def test_the_trace_of_an_attempt() -> None:
    base = trace_base("get_sm_a", "HERE", appid="42")
    trace = trace_of(base, SPEC, ATTEMPT, 100.0)
    assert trace == {
        **base, "clientState": "DONE", "stateReason": "OK", "scope": "mc", "filename": "f", "datasetScope": "mc",
        "dataset": "ds", "guid": "g", "filesize": 5, "remoteSite": "XRD1", "protocol": "root", "url": "root://h:1094//f",
        "transferStart": 98.0, "transferEnd": 100.0, "timeEnd": 100.0,
    }  # fmt: skip
    assert (trace["eventType"], trace["localSite"], trace["appid"]) == ("get_sm_a", "HERE", "42")


@pytest.mark.parametrize(
    ("attempt", "status", "state", "reason"),
    [
        (replace(ATTEMPT, kind="damaged", code=1171, text="x"), "", "FAILED", "damaged (1171): x"),
        (replace(ATTEMPT, kind="damaged", code=1171, text="x" * 1000), "", "FAILED", "damaged (1171): " + "x" * 484),
        (ATTEMPT, "remote_io", "FOUND_ROOT", "OK"),
    ],
)
def test_the_state_in_a_trace(attempt: Attempt, status: str, state: str, reason: str) -> None:
    trace = trace_of({}, replace(SPEC, status=status), attempt, 100.0)
    assert (trace["clientState"], trace["stateReason"], trace["eventType"]) == (state, reason, "get_sm")
    assert trace_of({}, SPEC, replace(attempt, direction="out"), 100.0)["eventType"] == "put_sm"


@pytest.mark.parametrize(
    ("environ", "site"),
    [
        ({"RUCIO_LOCAL_SITE_ID": "R", "SITE_NAME": "S"}, "R"),
        ({"SITE_NAME": "S"}, "S"),
        ({}, "Q_SITE"),
    ],
)
def test_what_the_traces_of_a_job_have_in_common(tmp_path: Path, environ: dict[str, str], site: str) -> None:
    run = builders.job_run(tmp_path, prodSourceLabel="user", transformation="x", prodUserID="jdoe")
    run.infosys = builders.infosys({"atlas_site": "Q_SITE"}, {})
    assert get_trace_report_variables(run, "stage-out", environ) == ("put_sm_a", site, site)
    report = create_trace_report(run, "stage-in", environ)
    assert (report["eventType"], report["appid"], report["usrdn"]) == ("get_sm_a", run.jobid, "jdoe")
    assert report["taskid"] == run.data.taskid and report["pq"] == run.infosys.queuedata.name
    run.data.prodsourcelabel = "managed"
    assert create_trace_report(run, "stage-in", environ)["eventType"] == "get_sm"
    assert create_trace_report(run)["uuid"] != create_trace_report(run)["uuid"]


class Sink(BaseHTTPRequestHandler):
    """Takes traces as Rucio does, and refuses those of a file that is called bad."""

    taken: list[dict[str, Json]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.taken.append(body)
        self.send_response(400 if body["filename"] == "bad" else 201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def sink() -> Iterator[tuple[str, list[dict[str, Json]]]]:
    """The address of a server that takes traces, and what it has taken."""
    taken: list[dict[str, Json]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Sink,), {"taken": taken}))
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", taken
    server.shutdown()
    thread.join()
    server.server_close()


def traces(host: str, **settings: object) -> Traces:
    use = replace(SETTINGS, **settings)  # type: ignore[arg-type]
    return Traces(trace_base("", "HERE"), use, host, "", builders.LOG)


def test_traces_are_sent_once_and_in_order(sink: tuple[str, list[dict[str, Json]]]) -> None:
    host, taken = sink
    sender = traces(host)
    for name in ("one", "two", "three"):
        sender.note(replace(SPEC, lfn=name), ATTEMPT)
    sender.send()
    sender.send()
    assert [trace["filename"] for trace in taken] == ["one", "two", "three"]


def test_traces_that_are_refused_are_dropped_with_a_warning(
    sink: tuple[str, list[dict[str, Json]]], caplog: pytest.LogCaptureFixture
) -> None:
    host, taken = sink
    sender = traces(host)
    for name in ("one", "bad", "three"):
        sender.note(replace(SPEC, lfn=name), ATTEMPT)
    sender.send()
    assert [trace["filename"] for trace in taken] == ["one", "bad"]
    assert "traces: 2 of 3 not sent" in caplog.text


def test_no_trace_is_kept_or_sent_when_they_are_switched_off(sink: tuple[str, list[dict[str, Json]]]) -> None:
    host, taken = sink
    sender = traces(host, traces=False)
    sender.note(SPEC, ATTEMPT)
    sender.send()
    assert sender.waiting == [] and taken == []


def test_without_an_address_a_debug_line_is_all(caplog: pytest.LogCaptureFixture) -> None:
    sender = traces("")
    sender.note(SPEC, ATTEMPT)
    with caplog.at_level(logging.DEBUG):
        sender.send()
    assert [record.levelname for record in caplog.records] == ["DEBUG"] and "no address of Rucio" in caplog.text


def test_traces_can_be_written_instead(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sender = traces("http://127.0.0.1:1", trace_file=str(tmp_path / "traces"))
    for _ in range(2):
        sender.note(SPEC, ATTEMPT)
        sender.send()
    lines = (tmp_path / "traces").read_text().splitlines()
    assert [json.loads(line)["filename"] for line in lines] == ["f", "f"]
    sender = traces("", trace_file=str(tmp_path / "none" / "traces"))
    sender.note(SPEC, ATTEMPT)
    sender.send()
    assert "cannot be written: No such file or directory" in caplog.text


def test_a_file_that_rucio_says_it_brought_and_did_not_is_an_error_of_that_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rucio, "_download", lambda files, folder, transfer: {})
    failed = rucio.copy_in_bulk([FileSpec("f", scope="mc", surl="rucio:///mc:f")], builders.transfer(tmp_path))
    assert failed["f"].code == C.STAGEINFAILED and "has brought no file" in failed["f"].diag


@pytest.mark.parametrize("wanted", ["summary.json", "../summary.json", "/tmp/elsewhere/summary.json"])
def test_the_summary_of_uploads_is_in_the_jobs_directory_and_follows_no_link(tmp_path: Path, wanted: str) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "precious").write_text('{"mine": 1}')
    path = tmp_path / "work" / "summary.json"
    path.symlink_to(tmp_path / "precious")
    done: dict[str, Json] = {"size": 1, "adler32": "00000001", "md5": "", "pfn": "root://h//f"}
    transfer = builders.transfer(tmp_path / "work", options={"summary_file_path": wanted})
    for name in ("f", "g"):
        rucio._write_summary(FileSpec(name, scope="mc"), done, transfer)
    assert sorted(json.loads(path.read_text())) == ["mc:f", "mc:g"] and not path.is_symlink()
    assert (tmp_path / "precious").read_text() == '{"mine": 1}' and not (tmp_path / "summary.json").exists()


def test_a_file_that_rucio_has_no_replica_of_and_no_storage_can_have_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rucio, "list_replicas", lambda request, what, transfer: {"replicas": [], "guids": {}})
    use = replace(builders.SETTINGS.rucio, host="http://rucio.invalid", traces=False)
    client = StageInClient(
        builders.infosys({"acopytools": {"default": ["xrdcp"]}, "astorages": {}}, {}),
        logger=builders.LOG, settings=builders.file_settings(), catalogue=use, workdir=tmp_path,
    )  # fmt: skip
    with pytest.raises(PilotException, match="Rucio has no replica of mc:f") as raised:
        client.transfer([FileSpec("f", scope="mc")])
    assert raised.value.code == C.REPLICANOTFOUND
