"""The definition of a job: what the dispatcher's fields become, and how a bad one is refused by name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import ConversionFailure, NotDefined, PilotException
from pilot.info.filespec import FileSpec, check_endpoint, check_lfn, check_scope, parse_checksum
from pilot.info.jobdata import COMMAND_LIMIT, JobData, job_identity
from pilot.util.https import Json
from tests.unit.pilot.builders import GOLDEN, definition, with_inputs
from tests.unit.pilot.test_basedata import json_values

C = ErrorCodes


# ---- good definitions


@pytest.mark.parametrize("name", sorted(GOLDEN["definitions"]))
def test_a_recorded_definition_is_understood(name: str) -> None:
    raw = GOLDEN["definitions"][name]
    job = JobData(raw)
    assert (job.jobid, job.attemptnr, job.taskid) == (str(raw["PandaID"]), 1, "1000")
    assert (job.transformation, job.jobparams) == (raw["transformation"], raw["jobPars"])
    assert (job.corecount, job.maxwalltime, job.swrelease, job.transfertype) == (1, 0, "", "")
    assert job.indata == []
    assert job.outdata == [FileSpec("out.txt", "output", scope="vo", dataset="vo.ds", ddmendpoint="SITE_DISK")]
    assert job.logdata == [
        FileSpec(raw["logFile"], "log", scope="vo", guid=raw["logGUID"], dataset="vo.ds", ddmendpoint="SITE_DISK")
    ]
    assert (job.debug, job.looping_check, job.is_eventservice) == (False, True, False)


def test_inputs_are_read_from_positional_lists() -> None:
    job = JobData(with_inputs(2))
    assert job.indata == [
        FileSpec("in0.root", "input", "mc", "guid-0", "mc.ds0", "SITE_DISK", 100, {"adler32": "00000000"}),
        FileSpec("in1.root", "input", "mc", "guid-1", "mc.ds1", "SITE_DISK", 101, {"adler32": "00000001"}),
    ]


def test_one_value_holds_for_all_files_and_null_is_none() -> None:
    job = JobData(with_inputs(3, scopeIn="mc", checksum="NULL,ad:1,NULL", GUID="", fsize="NULL,2,NULL"))
    assert [spec.scope for spec in job.indata] == ["mc"] * 3
    assert [spec.checksum for spec in job.indata] == [{}, {"adler32": "00000001"}, {}]
    assert [spec.filesize for spec in job.indata] == [0, 2, 0]
    assert [spec.guid for spec in job.indata] == [""] * 3


def test_one_input_of_numbers_that_came_as_numbers() -> None:
    assert JobData(with_inputs(1, fsize=100)).indata[0].filesize == 100


@pytest.mark.parametrize(
    ("out_files", "scope_out", "scopes"),
    [
        ("a,b,job254.log.tgz", "s1,s2", ["s1", "s2"]),
        ("a,b,job254.log.tgz", "s1,s2,slog", ["s1", "s2"]),
        ("job254.log.tgz,a,b", "slog,s1,s2", ["s1", "s2"]),
        ("a,job254.log.tgz,b", "s1,slog,s2", ["s1", "s2"]),
        ("job254.log.tgz,a,b", "s1,s2", ["s1", "s2"]),
        ("a,b,job254.log.tgz", "s", ["s", "s"]),
        ("a,job254.log.tgz", "s1,slog", ["s1"]),
        ("a,b,job254.log.tgz", "NULL", ["", ""]),
        ("job254.log.tgz", "", []),
    ],
)
def test_scopes_of_outputs_have_no_entry_for_the_log_or_have_one(
    out_files: str, scope_out: str, scopes: list[str]
) -> None:
    job = JobData(definition(outFiles=out_files, scopeOut=scope_out, ddmEndPointOut="D", realDatasets="d"))
    assert [spec.scope for spec in job.outdata] == scopes
    assert [spec.lfn for spec in job.outdata] == [lfn for lfn in out_files.split(",") if lfn != "job254.log.tgz"]


@pytest.mark.parametrize(
    ("files", "endpoints", "datasets"),
    [("job254.log.tgz,out.txt", "LOGS,DATA", "l,d"), ("out.txt,job254.log.tgz", "DATA,LOGS", "d,l")],
)
def test_the_logs_endpoint_is_that_at_its_place(files: str, endpoints: str, datasets: str) -> None:
    job = JobData(definition(outFiles=files, ddmEndPointOut=endpoints, realDatasets=datasets))
    assert (job.logdata[0].ddmendpoint, job.logdata[0].dataset) == ("LOGS", "l")
    assert (job.outdata[0].ddmendpoint, job.outdata[0].dataset) == ("DATA", "d")


def test_a_job_without_a_log_file_has_none() -> None:
    job = JobData(definition(logFile=None, outFiles="out.txt", ddmEndPointOut="D", realDatasets="d", scopeOut="s"))
    assert job.logdata == [] and [spec.lfn for spec in job.outdata] == ["out.txt"]


@pytest.mark.parametrize(
    ("field", "raw", "attribute", "wanted"),
    [
        ("PandaID", "254", "jobid", "254"),
        ("attemptNr", "3", "attemptnr", 3),
        ("coreCount", "8", "corecount", 8),
        ("coreCount", 0, "corecount", 1),
        ("coreCount", None, "corecount", 1),
        ("maxWalltime", "3600", "maxwalltime", 3600),
        ("minRamCount", 2000, "minramcount", 2000),
        ("maxCpuCount", "NULL", "maxcpucount", 0),
        ("taskID", 77, "taskid", "77"),
        ("debug", "True", "debug", True),
        ("loopingCheck", False, "looping_check", False),
        ("loopingCheck", "false", "looping_check", False),
        ("eventService", "True", "is_eventservice", True),
        ("isHPO", "True", "is_hpo", True),
        ("useVP", "True", "use_vp", True),
        ("noExecStrCnv", "True", "noexecstrcnv", True),
        ("allowNoOutput", "a,b", "allownooutput", "a,b"),
        ("container_name", "docker://x", "imagename_jobdef", "docker://x"),
        ("claim_id", "c1", "claim", "c1"),
        ("prodSourceLabel", "user", "prodsourcelabel", "user"),
        ("transformation", "/bin/echo", "transformation", "/bin/echo"),
        ("transformation", "Gen_tf.py", "transformation", "Gen_tf.py"),
        ("transformation", "https://h:1/trf/user/run?a=b&c=%20", "transformation",
         "https://h:1/trf/user/run?a=b&c=%20"),
    ],
)  # fmt: skip
def test_a_field_becomes_its_attribute(field: str, raw: Json, attribute: str, wanted: object) -> None:
    changed = {name: value for name, value in definition(**{field: raw}).items() if value is not None}
    assert getattr(JobData(changed), attribute) == wanted


@pytest.mark.parametrize(
    ("label", "transformation", "wanted"),
    [("user", "x", True), ("panda", "x", True), ("managed", "x", False), ("ptest", "http://s/trf/user/r", True)],
)
def test_a_users_job_is_told_by_label_or_transformation(label: str, transformation: str, wanted: bool) -> None:
    assert JobData(definition(prodSourceLabel=label, transformation=transformation)).is_analysis() is wanted


# ---- what the parameters hold for the pilot


@pytest.mark.parametrize(
    ("parameters", "command", "queue"),
    [
        ('run --overwriteQueueData={"maxrss": 4000} -x', "run -x", {"maxrss": 4000}),
        ("run --overwriteQueueData='{\"maxrss\": 4000}' -x", "run -x", {"maxrss": 4000}),
        ('--overwriteQueueData={"a": {"b": "}"}}', "", {"a": {"b": "}"}}),
        ('run  --overwriteQueueData={"a": 1}', "run", {"a": 1}),
        ('a "quoted  text"   stays', 'a "quoted  text"   stays', {}),
    ],
)
def test_settings_for_the_queue_are_taken_out_of_the_command(
    parameters: str, command: str, queue: dict[str, Json]
) -> None:
    job = JobData(definition(jobPars=parameters))
    assert (job.jobparams, job.overwrite_queuedata) == (command, queue)


def test_everything_that_is_meant_for_the_pilot_is_taken_out() -> None:
    job = JobData(
        definition(
            jobPars='run.sh -a 1 --overwriteStorageData={"SITE_DISK": {"state": "X"}} -b '
            "--containerImage='docker://a b'"
            ' <ZIP_MAP>z.zip:a,b</ZIP_MAP> --overwriteQueueData={"maxrss": 1} -c',
            outFiles="z.zip,job254.log.tgz",
        )
    )
    assert job.jobparams == "run.sh -a 1 -b -c"
    assert job.overwrite_storagedata == {"SITE_DISK": {"state": "X"}}
    assert job.overwrite_queuedata == {"maxrss": 1}
    assert job.imagename == "docker://a b"
    assert job.zipmap == "z.zip:a,b"


@pytest.mark.parametrize(
    "parameters", ["<ZIP_MAP>a", "</ZIP_MAP> <ZIP_MAP>", "--containerImage", "--overwriteQueueDat"]
)
def test_what_only_resembles_a_setting_stays(parameters: str) -> None:
    assert JobData(definition(jobPars=parameters)).jobparams == parameters


@pytest.mark.parametrize(
    "parameters",
    [
        "--overwriteQueueData=",
        "--overwriteQueueData=7",
        '--overwriteQueueData=["a"]',
        '--overwriteQueueData={"a": ',
        "--overwriteStorageData={'a': 1}",
        '--overwriteQueueData={"a": ' + '{"a": ' * 10_000,
        "--overwriteQueueData=" + "[" * 100_000,
    ],
    ids=lambda text: text[:40],
)
def test_settings_that_are_no_object_are_refused(parameters: str) -> None:
    with pytest.raises(ConversionFailure, match="field jobPars: "):
        JobData(definition(jobPars=parameters))


def test_a_multitude_of_marks_costs_no_time() -> None:
    # Were each mark looked at to the end of the text, this would take minutes.
    with pytest.raises(ConversionFailure, match="field jobPars"):
        JobData(definition(jobPars="<ZIP_MAP>" * 100_000))


def test_the_text_of_the_user_is_not_touched() -> None:
    hostile = "a; rm -rf / `id` $(id) \"q\" 'q' \n newline \\ | & > < * ? [x] ~ #"
    assert JobData(definition(jobPars=hostile)).jobparams == hostile


# ---- bad definitions: field, value, code, beginning of the text

BAD = [
    ("PandaID", None, C.NOTDEFINED, "field PandaID is missing"),
    ("PandaID", "", C.NOTDEFINED, "field PandaID is missing"),
    ("PandaID", "NULL", C.NOTDEFINED, "field PandaID is missing"),
    ("PandaID", "../7", C.CONVERSIONFAILURE, "field PandaID: '../7' is no job number"),
    ("PandaID", 0, C.CONVERSIONFAILURE, "field PandaID: '0' is no job number"),
    ("PandaID", -5, C.CONVERSIONFAILURE, "field PandaID: '-5' is no job number"),
    ("PandaID", 1.5, C.CONVERSIONFAILURE, "field PandaID: '1.5' is no job number"),
    ("PandaID", True, C.CONVERSIONFAILURE, "field PandaID: 'True' is no job number"),
    ("PandaID", [254], C.CONVERSIONFAILURE, "field PandaID: '[254]' is no job number"),
    ("PandaID", "7\n", C.CONVERSIONFAILURE, "field PandaID: '7\\n' is no job number"),
    ("PandaID", "²", C.CONVERSIONFAILURE, "field PandaID: '²' is no job number"),
    ("PandaID", "9" * 30, C.CONVERSIONFAILURE, "field PandaID: '999"),
    ("transformation", None, C.NOTDEFINED, "field transformation is missing"),
    ("transformation", "NULL", C.NOTDEFINED, "field transformation is missing"),
    ("transformation", "run.sh; rm -rf /", C.CONVERSIONFAILURE, "field transformation: 'run.sh; rm -rf /' is neither"),
    ("transformation", "$(id)", C.CONVERSIONFAILURE, "field transformation: "),
    ("transformation", "a\nb", C.CONVERSIONFAILURE, "field transformation: "),
    ("transformation", "a\0b", C.CONVERSIONFAILURE, "field transformation: the text has a NUL character"),
    ("transformation", "-x", C.CONVERSIONFAILURE, "field transformation: "),
    ("transformation", "x" * 3000, C.CONVERSIONFAILURE, "field transformation: "),
    ("transformation", ["a"], C.CONVERSIONFAILURE, "field transformation: "),
    ("jobPars", ["a"], C.CONVERSIONFAILURE, "field jobPars: "),
    ("jobPars", "a\0b", C.CONVERSIONFAILURE, "field jobPars: the text has a NUL character"),
    ("jobPars", "a\ud800", C.CONVERSIONFAILURE, "field jobPars: character 2 of the text is none of Unicode"),
    ("jobPars", "x" * (COMMAND_LIMIT + 1), C.CONVERSIONFAILURE, "field jobPars: 131072 characters"),
    ("jobPars", "é" * (COMMAND_LIMIT // 2 + 1), C.CONVERSIONFAILURE, "field jobPars: "),
    ("jobPars", "x" * 50_000_000, C.CONVERSIONFAILURE, "field jobPars: 50000000 characters"),
    ("coreCount", "many", C.CONVERSIONFAILURE, "field coreCount: 'many' is not a number"),
    ("coreCount", [8], C.CONVERSIONFAILURE, "field coreCount: [8] is not a number"),
    ("coreCount", 10**30, C.CONVERSIONFAILURE, "field coreCount: 1000"),
    ("attemptNr", "first", C.CONVERSIONFAILURE, "field attemptNr: 'first' is not a number"),
    ("attemptNr", "²", C.CONVERSIONFAILURE, "field attemptNr: '²' is not a number"),
    ("maxWalltime", {}, C.CONVERSIONFAILURE, "field maxWalltime: "),
    ("minRamCount", "nan", C.CONVERSIONFAILURE, "field minRamCount: "),
    ("debug", "perhaps", C.CONVERSIONFAILURE, "field debug: 'perhaps' is neither true nor false"),
    ("loopingCheck", 7, C.CONVERSIONFAILURE, "field loopingCheck: "),
    ("taskID", {"a": 1}, C.CONVERSIONFAILURE, "field taskID: "),
    ("jobName", "a\0", C.CONVERSIONFAILURE, "field jobName: "),
    ("claim_id", ["c"], C.CONVERSIONFAILURE, "field claim_id: "),
    ("outFiles", ["out.txt"], C.CONVERSIONFAILURE, "field outFiles: a text with names is needed, but"),
    ("outFiles", "a,,b", C.NOTDEFINED, "field outFiles: one of the 3 names is empty"),
    ("outFiles", "../../etc/passwd", C.BADOUTPUTFILENAME, "field outFiles: '../../etc/passwd' is no valid file name"),
    ("outFiles", "/etc/passwd", C.BADOUTPUTFILENAME, "field outFiles: "),
    ("outFiles", "..", C.BADOUTPUTFILENAME, "field outFiles: "),
    ("outFiles", ".hidden", C.BADOUTPUTFILENAME, "field outFiles: "),
    ("outFiles", "-rf", C.BADOUTPUTFILENAME, "field outFiles: "),
    ("outFiles", "a;b", C.BADOUTPUTFILENAME, "field outFiles: "),
    ("outFiles", "a b", C.BADOUTPUTFILENAME, "field outFiles: "),
    ("outFiles", "a\nb", C.BADOUTPUTFILENAME, "field outFiles: "),
    ("outFiles", "out.txt\n", C.BADOUTPUTFILENAME, "field outFiles: "),
    ("outFiles", "a\0b", C.CONVERSIONFAILURE, "field outFiles: the text has a NUL character"),
    ("outFiles", "a\ud800", C.CONVERSIONFAILURE, "field outFiles: character 2 of the text is none of Unicode"),
    ("outFiles", "$HOME", C.BADOUTPUTFILENAME, "field outFiles: "),
    ("outFiles", "x" * 256, C.LFNTOOLONG, "field outFiles: LFN 'xxx"),
    ("outFiles", "é" * 128, C.LFNTOOLONG, "field outFiles: LFN "),
    ("outFiles", "a,a,job254.log.tgz", C.CONVERSIONFAILURE, "field outFiles: a is there twice"),
    ("outFiles", "../*.root", C.BADOUTPUTFILENAME, "field outFiles: "),
    ("outFiles", "a[bc].root", C.BADOUTPUTFILENAME, "field outFiles: "),
    ("logFile", "*.log.tgz", C.BADOUTPUTFILENAME, "field logFile: "),
    ("inFiles", "*.root", C.CONVERSIONFAILURE, "field inFiles: '*.root' is no valid file name"),
    ("jobPars", "<ZIP_MAP>z.zip</ZIP_MAP>", C.CONVERSIONFAILURE, "field jobPars: ZIP_MAP: 'z.zip' is not of the form"),
    ("jobPars", "<ZIP_MAP>:a</ZIP_MAP>", C.CONVERSIONFAILURE, "field jobPars: ZIP_MAP: ':a' is not of the form"),
    ("jobPars", "<ZIP_MAP>z.zip:a</ZIP_MAP>", C.CONVERSIONFAILURE, "field jobPars: ZIP_MAP: archive 'z.zip' is none"),
    ("jobPars", "<ZIP_MAP>out.txt:../a</ZIP_MAP>", C.BADOUTPUTFILENAME, "field jobPars: '../a' is no valid file name"),
    ("jobPars", "<ZIP_MAP>out.txt:/etc/passwd</ZIP_MAP>", C.BADOUTPUTFILENAME, "field jobPars: "),
    ("jobPars", f"<ZIP_MAP>out.txt:{'x' * 256}</ZIP_MAP>", C.LFNTOOLONG, "field jobPars: LFN 'xxx"),
    ("jobPars", "<ZIP_MAP>out.txt:out.txt</ZIP_MAP>", C.CONVERSIONFAILURE, "field jobPars: ZIP_MAP: 'out.txt' is an"),
    ("jobPars", "<ZIP_MAP>out.txt:a out.txt:b</ZIP_MAP>", C.CONVERSIONFAILURE, "field jobPars: ZIP_MAP: archive 'out"),
    ("scopeOut", "../x", C.CONVERSIONFAILURE, "field scopeOut: '../x' is no valid scope"),
    ("scopeOut", "a/b", C.CONVERSIONFAILURE, "field scopeOut: "),
    ("scopeOut", "user..x", C.CONVERSIONFAILURE, "field scopeOut: "),
    ("scopeOut", "a,b,c", C.NOTSAMELENGTH, "field scopeOut has 3 values for 1 files"),
    ("ddmEndPointOut", "A,B,C", C.NOTSAMELENGTH, "field ddmEndPointOut has 3 values for 2 files"),
    ("ddmEndPointOut", "../A", C.CONVERSIONFAILURE, "field ddmEndPointOut: '../A' is no valid storage name"),
    ("realDatasets", "a,b,c", C.NOTSAMELENGTH, "field realDatasets has 3 values for 2 files"),
    ("logFile", "../log.tgz", C.BADOUTPUTFILENAME, "field logFile: "),
    ("logFile", {"a": 1}, C.CONVERSIONFAILURE, "field logFile: a text is needed, but it is dict"),
    ("logFile", True, C.CONVERSIONFAILURE, "field logFile: a text is needed, but it is bool"),
    ("scopeLog", "a b", C.CONVERSIONFAILURE, "field scopeLog: "),
]  # fmt: skip

BAD_INPUTS = [
    ("inFiles", "../in0.root,in1.root", C.CONVERSIONFAILURE, "field inFiles: '../in0.root' is no valid file name"),
    ("inFiles", "in0.root,in0.root", C.CONVERSIONFAILURE, "field inFiles: in0.root is there twice"),
    ("inFiles", "in0.root,", C.NOTDEFINED, "field inFiles: one of the 2 names is empty"),
    ("inFiles", "a,b,c", C.NOTSAMELENGTH, "field scopeIn has 2 values for 3 files"),
    ("inFiles", "x" * 256, C.LFNTOOLONG, "field inFiles: LFN "),
    ("scopeIn", "mc,../x", C.CONVERSIONFAILURE, "field scopeIn: '../x' is no valid scope"),
    ("scopeIn", "a,b,c", C.NOTSAMELENGTH, "field scopeIn has 3 values for 2 files"),
    ("GUID", "a,b,c", C.NOTSAMELENGTH, "field GUID has 3 values for 2 files"),
    ("fsize", "1,big", C.CONVERSIONFAILURE, "field fsize: 'big' is no file size in bytes"),
    ("fsize", "1,-2", C.CONVERSIONFAILURE, "field fsize: '-2' is no file size in bytes"),
    ("fsize", "1,2.5", C.CONVERSIONFAILURE, "field fsize: "),
    ("fsize", "1,²", C.CONVERSIONFAILURE, "field fsize: '²' is no file size in bytes"),
    ("fsize", "1," + "9" * 19, C.CONVERSIONFAILURE, "field fsize: '999"),
    ("fsize", "1," + "9" * 5000, C.CONVERSIONFAILURE, "field fsize: '999"),
    ("fsize", [1, 2], C.CONVERSIONFAILURE, "field fsize: a text is needed, but it is list"),
    ("fsize", "1,2,3", C.NOTSAMELENGTH, "field fsize has 3 values for 2 files"),
    ("checksum", "ad:1,ad:xyz", C.CONVERSIONFAILURE, "field checksum: 'ad:xyz' is no checksum"),
    ("checksum", "ad:1,sha1:00", C.CONVERSIONFAILURE, "field checksum: 'sha1:00' is no checksum"),
    ("ddmEndPointIn", "A,B;C", C.CONVERSIONFAILURE, "field ddmEndPointIn: 'B;C' is no valid storage name"),
    ("realDatasetsIn", "a,b,c", C.NOTSAMELENGTH, "field realDatasetsIn has 3 values for 2 files"),
]


def refused(raw: dict[str, Json], code: int, said: str) -> None:
    with pytest.raises(PilotException) as raised:
        JobData(raw)
    assert (raised.value.code, raised.value.diag[: len(said)]) == (code, said)
    assert raised.value.diag.isprintable() and len(raised.value.diag) < 300


@pytest.mark.parametrize(("field", "raw", "code", "said"), BAD, ids=lambda value: repr(value)[:40])
def test_a_bad_field_has_its_code_and_its_name(field: str, raw: Json, code: int, said: str) -> None:
    # One storage and one dataset for all files, so that a wrong number of files is not what is found first.
    good = definition(**{"ddmEndPointOut": "SITE_DISK", "realDatasets": "vo.ds", field: None})
    refused({**good, **({} if raw is None else {field: raw})}, code, said)


@pytest.mark.parametrize(("field", "raw", "code", "said"), BAD_INPUTS, ids=lambda value: repr(value)[:40])
def test_a_bad_field_of_the_inputs_has_its_code_and_its_name(field: str, raw: Json, code: int, said: str) -> None:
    same: dict[str, Json] = (
        {}
        if field != "inFiles" or raw == "a,b,c"
        else dict.fromkeys(("scopeIn", "GUID", "fsize", "checksum", "ddmEndPointIn", "realDatasetsIn"))
    )
    refused({**with_inputs(2, **same), field: raw}, code, said)


def test_a_limit_of_the_settings_holds_for_names() -> None:
    with pytest.raises(PilotException, match="12 are allowed") as raised:
        JobData(definition(), lfn_limit=12)
    assert raised.value.code == C.LFNTOOLONG


# ---- what is left of a bad definition


def test_a_refused_job_can_still_be_reported_with_its_log() -> None:
    job = JobData.refused(definition(outFiles="../x,job254.log.tgz", claim_id="c1"), "254", 2)
    assert (job.jobid, job.attemptnr, job.claim, job.corecount) == ("254", 2, "c1", 1)
    assert [spec.lfn for spec in job.logdata] == ["job254.log.tgz"]
    assert (job.indata, job.outdata, job.jobparams) == ([], [], "")


@pytest.mark.parametrize("change", [{"logFile": "../x"}, {"logFile": 5.5}, {"outFiles": 7}, {"claim_id": ["x"]}])
def test_a_refused_job_whose_log_is_bad_too_has_none(change: dict[str, Json]) -> None:
    assert JobData.refused({**definition(), **change}, "254", 1).jobid == "254"


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [(1, 1), ("2", 2), (None, 0), ("x", 0), ("²", 0), ([], 0), (-1, 0), ("9" * 5000, 0), (True, 0), (1.5, 0)],
)
def test_an_identity_is_found_whatever_the_attempt_is(raw: Json, wanted: int) -> None:
    assert job_identity({"PandaID": 254, "attemptNr": raw}) == ("254", wanted)


def test_without_a_number_there_is_no_identity() -> None:
    with pytest.raises(NotDefined, match="field PandaID is missing"):
        job_identity({})


# ---- whatever comes

FIELDS = sorted(
    {*GOLDEN["definitions"]["success"], "claim_id", "debug", "loopingCheck", "container_name", "allowNoOutput"}
)
evil = st.sampled_from(
    ["../x", "a\0b", "\ud800", ";id", "\n", "NULL", "", ",", ",,", "9" * 5000, "²", "{}", "--overwriteQueueData={",
     "http://", "\x1b[0m", "%2e%2e/", "x" * 300]
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(FIELDS), json_values | evil, max_size=10))
def test_garbage_is_understood_or_refused_by_name_and_never_anything_else(garbage: dict[str, Json]) -> None:
    raw = {**definition(), **garbage}
    try:
        jobid, attempt = job_identity(raw)
    except PilotException:
        return
    try:
        job = JobData(raw)
    except PilotException as exc:
        assert "field " in exc.diag
        JobData.refused(raw, jobid, attempt)
        return
    for spec in (*job.indata, *job.outdata, *job.logdata):
        assert "/" not in spec.lfn and not spec.lfn.startswith(".")
        assert "/" not in spec.scope and ".." not in spec.scope
    json.dumps(job.jobparams.encode().decode())


@given(st.dictionaries(st.text(max_size=10), json_values, max_size=10))
def test_what_is_no_definition_at_all_is_refused(garbage: dict[str, Json]) -> None:
    with pytest.raises(PilotException):
        JobData(garbage)


# ---- names and checksums one by one


@pytest.mark.parametrize(
    "name", ["f.root", "a+b", "mc16.1:ev.pool.root.1", "x" * 255, "_a", "1", "a#b", "a%20b", "a=b@c~d"]
)
def test_a_name_of_the_field_is_taken(name: str) -> None:
    assert check_lfn(name, "x", 255, output=True) == name


@pytest.mark.parametrize("scope", ["", "mc16_13TeV", "user.jdoe", "group.phys-higgs", "a" * 100])
def test_a_scope_of_the_field_is_taken(scope: str) -> None:
    assert check_scope(scope, "x") == scope


@pytest.mark.parametrize("scope", [".", "..", "a.", ".a", "a..b", "a/b", "a" * 101, "a\n", "-a", "a b", "é"])
def test_any_other_scope_is_refused(scope: str) -> None:
    with pytest.raises(ConversionFailure, match="field x: "):
        check_scope(scope, "x")


@pytest.mark.parametrize("name", ["", "SITE_DISK", "CERN-PROD_DATADISK", "a.b"])
def test_a_storage_name_of_the_field_is_taken(name: str) -> None:
    assert check_endpoint(name, "x") == name


@pytest.mark.parametrize("name", ["-a", ".a", "a/b", "a b", "a\n", "a;b"])
def test_any_other_storage_name_is_refused(name: str) -> None:
    with pytest.raises(ConversionFailure, match="field x: "):
        check_endpoint(name, "x")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", {}),
        ("ad:0a1b2c3d", {"adler32": "0a1b2c3d"}),
        ("ad:1b2c", {"adler32": "00001b2c"}),
        ("AD:0A1B2C3D", {"adler32": "0a1b2c3d"}),
        ("adler32:1", {"adler32": "00000001"}),
        ("md5:" + "0" * 32, {"md5": "0" * 32}),
        ("md:" + "a" * 32, {"md5": "a" * 32}),
        ("A" * 32, {"md5": "a" * 32}),
    ],
)
def test_a_checksum_is_read_in_all_its_forms(text: str, wanted: dict[str, str]) -> None:
    assert parse_checksum(text, "x") == wanted


@pytest.mark.parametrize("text", ["ad:", "ad:123456789", "ad:xyz", "md5:abc", "0a1b2c3d", ":", "crc:00", "ad:1\n"])
def test_any_other_checksum_is_refused(text: str) -> None:
    with pytest.raises(ConversionFailure, match=r"field x: .* is no checksum"):
        parse_checksum(text, "x")
