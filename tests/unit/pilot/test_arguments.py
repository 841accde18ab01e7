"""The command line: every option of the documents, in every spelling, with its default, or refused in one sentence."""

from __future__ import annotations

from dataclasses import fields

import pytest

from pilot.arguments import Arguments, parse

# Options with a value: flags, field, text given, value wanted, default.
VALUES = [
    (("--realtime-logging-server",), "realtime_logging_server", "logstash;http://h:1", "logstash;http://h:1", ""),
    (("--realtime-logname",), "realtime_logname", "n", "n", ""),
    (("-q", "--queue"), "queue", "Q2", "Q2", "Q"),
    (("-s", "--site"), "site", "S", "S", ""),
    (("-r", "--resource"), "resource", "R", "R", ""),
    (("-a", "--workdir"), "workdir", "/tmp/w", "/tmp/w", ""),
    (("-w", "--workflow"), "workflow", "generic", "generic", "generic"),
    (("-l", "--lifetime"), "lifetime", "600", 600, 324000),
    (("-L", "--leasetime"), "leasetime", "60", 60, 3600),
    (("-j", "--joblabel"), "joblabel", "user", "user", "ptest"),
    (("-i", "--versiontag"), "versiontag", "RC", "RC", "PR"),
    (("--job-type",), "job_type", "managed", "managed", ""),
    (("--country-group",), "country_group", "CH", "CH", ""),
    (("--working-group",), "working_group", "GP", "GP", ""),
    (("-R", "--resource-type"), "resource_type", "MCORE", "MCORE", ""),
    (("-v", "--getjobrequests"), "getjob_requests", "7", 7, 2),
    (("-x", "--getjobfailures"), "getjob_failures", "9", 9, 5),
    (("--url",), "url", "https://a:1", "https://a:1", ""),
    (("-p", "--port"), "port", "25080", 25080, 25443),
    (("--rucio-host",), "rucio_host", "http://r", "http://r", ""),
    (("--cacert",), "cacert", "/c", "/c", ""),
    (("--capath",), "capath", "/d", "/d", ""),
    (("--queuedata-url",), "queuedata_url", "file:///q", "file:///q", ""),
    (("--storagedata-url",), "storagedata_url", "/s", "/s", ""),
    (("--config",), "config", "my.cfg", "my.cfg", ""),
    (("--pilot-user",), "pilot_user", "generic", "generic", ""),
    (("--stageout-attempts",), "stageout_attempts", "3", 3, 1),
    (("--input-dir",), "input_dir", "/i", "/i", ""),
    (("--input-destination-dir",), "input_destination_dir", "/i", "/i", ""),
    (("--output-dir",), "output_dir", "/o", "/o", ""),
    (("--redirect-stdout",), "redirect_stdout", "/dev/null", "/dev/null", ""),
    (("-g", "--baseurls"), "baseurls", "https://x/trf", "https://x/trf", ""),
    (("--hpc-resource",), "hpc_resource", "titan", "titan", ""),
    (("--job",), "job", "job.json", "job.json", ""),
    (("--autopsy",), "autopsy", "/run", "/run", ""),
]

# Booleans: flags, field, default.
BOOLEANS = [
    (("-d", "--debug"), "debug", False),
    (("--allow-other-country",), "allow_other_country", False),
    (("--allow-same-user",), "allow_same_user", True),
    (("-t", "--noproxyverification"), "no_proxyverification", False),
    (("-u", "--verifypayloadproxy"), "verify_payloadproxy", False),
    (("-y", "--notokenrenewal"), "no_tokenrenewal", False),
    (("-b", "--nocvmfs"), "nocvmfs", False),
    (("--cleanup",), "cleanup", True),
    (("--no-pilot-log",), "no_pilot_log", False),
    (("-k", "--noworkerpilotstatusupdate"), "no_workerstatus", False),
    (("--use-rucio-traces",), "use_rucio_traces", True),
    (("--shadow",), "shadow", False),
    (("--pod",), "pod", False),
    (("--use-realtime-logging",), "use_realtime_logging", False),
    (("--subscribe-to-msgsvc",), "subscribe_to_msgsvc", False),
]

# Options whose feature is still to come: how they are given, and their value when they are not.
REFUSED = [
    (["--harvester-workdir", "/h"], "harvester_workdir", ""),
    (["--harvester-datadir", "/h"], "harvester_datadir", ""),
    (["--harvester-eventstatusdump", "f"], "harvester_eventstatusdump", ""),
    (["--harvester-workerattributes", "f"], "harvester_workerattributes", ""),
    (["--harvester-submit-mode", "PUSH"], "harvester_submitmode", "PULL"),
    (["--hpc-mode", "onetoone"], "hpc_mode", "manytoone"),
    (["--es-executor-type", "raythena"], "es_executor_type", "generic"),
    (["--doctor"], "doctor", False),
    (["--fault", "x"], "fault", ""),
]


def given(*words: str) -> Arguments:
    return parse(["-q", "Q", *words])


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said on stderr of a command line that is refused; nothing may be said on stdout."""
    with pytest.raises(SystemExit) as left:
        parse(words)
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (2, "")
    return err


@pytest.mark.parametrize(("flags", "field", "text", "value", "default"), VALUES, ids=lambda value: str(value)[:30])
def test_an_option_takes_its_value_in_every_spelling(
    flags: tuple[str, ...], field: str, text: str, value: object, default: object
) -> None:
    for flag in flags:
        assert getattr(given(flag, text), field) == value
        if flag.startswith("--"):
            underscored = "--" + flag[2:].replace("-", "_")
            assert getattr(given(underscored, text), field) == value
            assert getattr(given(f"{underscored}={text}"), field) == value
            assert getattr(given(f"{flag}={text}"), field) == value


def test_without_a_server_a_job_must_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["-z", "--job", "job.json"]).no_serverupdate
    assert "--job FILE" in refusal(["-q", "Q", "-z"], capsys)


@pytest.mark.parametrize(("flags", "field", "default"), BOOLEANS, ids=lambda value: str(value)[:30])
def test_a_boolean_stands_bare_or_with_a_truth_value(flags: tuple[str, ...], field: str, default: bool) -> None:
    words = {
        "True": True,
        "true": True,
        "1": True,
        "yes": True,
        "False": False,
        "false": False,
        "no": False,
        "0": False,
    }
    for flag in flags:
        assert getattr(given(flag), field) is True
        for word, wanted in words.items():
            assert getattr(given(flag, word), field) is wanted
            if flag.startswith("--"):
                assert getattr(given(f"--{flag[2:].replace('-', '_')}={word}"), field) is wanted
                assert getattr(given(f"{flag}={word}"), field) is wanted


def test_what_is_not_given_has_its_default() -> None:
    args = given()
    for _, field, _, _, default in VALUES:
        assert getattr(args, field) == default, field
    for _, field, default in [*BOOLEANS, *REFUSED]:
        assert getattr(args, field) == default, field


def test_no_option_is_left_out_of_these_tables() -> None:
    tested_alone = {"no_serverupdate"}
    assert {field.name for field in fields(Arguments)} - tested_alone == {
        row[1] for row in (*VALUES, *BOOLEANS, *REFUSED)
    }


@pytest.mark.parametrize(("words", "field", "default"), REFUSED, ids=lambda value: str(value))
def test_an_option_of_a_later_release_is_refused_in_one_sentence(
    words: list[str], field: str, default: object, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(["-q", "Q", *words], capsys)
    first, second = said.splitlines()
    assert first.startswith(f"pilot.py: {words[0] if words[0].startswith('--') else '--verifypayloadproxy'}: ")
    assert "not part of this release" in first and first.endswith(".")
    assert second == "`pilot.py --help` shows all options."


def test_an_option_of_a_later_release_may_be_given_with_its_default() -> None:
    args = given("--harvester-submit-mode=PULL", "--use-realtime-logging=False", "--pod", "False")
    assert (args.harvester_submitmode, args.use_realtime_logging, args.pod) == ("PULL", False, False)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "which queue? Give its name with -q QUEUE (or a job definition with --job FILE)."),
        (["-q", "Q", "-w", "stager", "-L", "0"], "--leasetime: must be 1 or more, but is 0."),
        (["-q", "Q", "-l", "0"], "--lifetime: must be 1 or more, but is 0."),
        (["-q", "Q", "-v", "-3"], "--getjobrequests: must be 1 or more, but is -3."),
        (["-q", "Q", "-x", "0"], "--getjobfailures: must be 1 or more, but is 0."),
        (["-q", "Q", "--stageout-attempts", "0"], "--stageout-attempts: must be 1 or more, but is 0."),
        (["-q", "Q", "-p", "0"], "--port: must be 1 to 65535, but is 0."),
        (["-q", "Q", "-p", "70000"], "--port: must be 1 to 65535, but is 70000."),
        (["-q", "Q", "-l", "long"], "argument -l/--lifetime: invalid int value: 'long'"),
        (["-q", "Q", "--cleanup=maybe"], "argument --cleanup: must be True or False, but is 'maybe'"),
        (["-q", "Q", "--harvester-submit-mode", "PUHS"], "'PUHS'"),
        (["-q", "Q", "--no-such-option"], "unrecognized arguments: --no-such-option"),
        (["-q", "Q", "--lifetim", "5"], "unrecognized arguments: --lifetim 5"),
        (["-q"], "argument -q/--queue: expected one argument"),
    ],
)
def test_a_wrong_command_line_is_refused_in_a_line(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first, _ = refusal(words, capsys).splitlines()
    assert first.startswith("pilot.py: ") and sentence in first


def test_a_job_from_a_file_needs_no_queue() -> None:
    assert parse(["--job", "job.json"]).queue == ""


def test_arguments_cannot_be_changed_later() -> None:
    with pytest.raises(AttributeError):
        given().queue = "other"  # type: ignore[misc]


def test_help_names_every_option_and_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse(["--help"])
    text = capsys.readouterr().out
    assert left.value.code == 0
    assert all(flag in text for flags, *_ in VALUES for flag in flags)
    assert "./pilot.py -q MY_QUEUE" in text


def test_an_underscore_in_a_value_stays() -> None:
    assert given("--working_group=my_group").working_group == "my_group"
    assert given("--workdir", "/tmp/a_b").workdir == "/tmp/a_b"
