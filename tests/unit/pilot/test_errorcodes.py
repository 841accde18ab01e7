"""The error table: the numbers that servers, monitors and Harvester know, and the helpers around them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pilot.common.errorcodes import ERRORS, Blame, ErrorCodes, convert_to_pilot_error_code, describe, shell_exit_code

ROOT = Path(__file__).resolve().parents[3]

# From shell_exit_codes.csv of the specification: pilot code -> exit code of pilot.py.
SHELL_CODES = {
    0: 0,
    1377: 64,
    1008: 65,
    1199: 66,
    1103: 67,
    1177: 68,
    1163: 68,
    1373: 68,
    1098: 69,
    1301: 70,
    1116: 71,
    1117: 72,
    1186: 73,
    1330: 74,
    1332: 75,
    1342: 76,
    1331: 77,
    1359: 78,
    1318: 79,
    1382: 80,
    1213: 81,
    1385: 82,
    1386: 83,
    1200: 137,
    1201: 143,
    1202: 131,
    1203: 139,
    1204: 152,
    1206: 135,
    1207: 138,
    1208: 130,
}

# A sample over the whole range of codes: number, name, text and who is asked first.
KNOWN = [
    (1008, "GENERALERROR", "General pilot error, consult batch log", Blame.PILOT),
    (1098, "NOLOCALSPACE", "Not enough local space", Blame.SITE),
    (1099, "STAGEINFAILED", "Failed to stage-in file", Blame.STORAGE),
    (1144, "PANDAKILL", "This job was killed by panda server", Blame.USER),
    (1150, "LOOPINGJOB", "Looping job killed by pilot", Blame.PAYLOAD),
    (1201, "SIGTERM", "Job killed by signal: SIGTERM", Blame.BATCH),
    (1213, "REACHEDMAXTIME", "Reached batch system time limit", Blame.BATCH),
    (1235, "PAYLOADEXCEEDMAXMEM", "Payload exceeded maximum allowed memory", Blame.PAYLOAD),
    (1305, "PAYLOADEXECUTIONFAILURE", "Failed to execute payload", Blame.PAYLOAD),
    (1318, "COMMUNICATIONFAILURE", "Failed to communicate with server", Blame.SERVER),
    (
        1335,
        "MISSINGUSERCODE",
        "User code not available on PanDA server (resubmit task with --useNewCode)",
        Blame.SERVER,
    ),
    (1372, "APPTAINERNOTINSTALLED", "Apptainer: not installed", Blame.SITE),
    (1386, "PANDAQUEUENOTONLINE", "PanDA queue is not online", Blame.SITE),
]


def codes_of_the_class() -> dict[str, int]:
    return {name: getattr(ErrorCodes, name) for name in dir(ErrorCodes) if name.isupper()}


def test_there_are_147_codes_and_each_has_one_name() -> None:
    codes = codes_of_the_class()
    assert len(codes) == len(set(codes.values())) == len(ERRORS) == 147
    assert codes == {info.name: code for code, info in ERRORS.items()}
    assert all(code == info.code for code, info in ERRORS.items())


@pytest.mark.parametrize(("code", "name", "message", "blame"), KNOWN)
def test_a_known_code_has_its_name_text_and_blame(code: int, name: str, message: str, blame: Blame) -> None:
    info = describe(code)
    assert (info.code, info.name, info.message, info.blame) == (code, name, message, blame)
    assert getattr(ErrorCodes, name) == code


def test_every_error_tells_what_to_do_in_one_sentence() -> None:
    for info in ERRORS.values():
        assert 30 <= len(info.advice) <= 120, info
        assert info.advice[0].isupper(), info
        assert info.message == info.message.strip() and info.message, info


def test_few_errors_share_their_advice() -> None:
    # The same fault with another checksum, or the two names of the one container runtime.
    assert len({info.advice for info in ERRORS.values()}) >= 144


def test_the_blame_reads_as_a_plain_word() -> None:
    assert f"{Blame.SITE}" == str(Blame.SITE) == "site"
    assert {blame.value for blame in Blame} == {"payload", "site", "storage", "pilot", "server", "batch", "user"}
    assert {info.blame for info in ERRORS.values()} == set(Blame)


def test_a_code_that_is_not_in_the_table_is_described_all_the_same() -> None:
    info = describe(4711)
    assert (info.code, info.blame, info.shell_code) == (4711, Blame.PILOT, 1)
    assert "4711" in info.message and "not known" in info.message
    assert ErrorCodes.get_error_message(4711) == info.message


def test_the_negative_code_that_legacy_servers_are_sent_is_described_as_the_positive_one() -> None:
    assert describe(-1137) is ERRORS[1137]


def test_the_error_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        ERRORS[1] = ERRORS[1008]  # type: ignore[index]
    with pytest.raises(AttributeError):
        describe(1008).message = "x"  # type: ignore[misc]


@pytest.mark.parametrize(("code", "shell_code"), SHELL_CODES.items())
def test_an_error_with_an_exit_code_of_its_own_gets_it(code: int, shell_code: int) -> None:
    assert shell_exit_code(code) == shell_code


def test_every_other_error_ends_the_pilot_with_1() -> None:
    for code in {*ERRORS, 4711} - set(SHELL_CODES):
        assert shell_exit_code(code) == 1


@pytest.mark.parametrize(("code", "shell_code"), [pair for pair in SHELL_CODES.items() if pair[0] not in (1163, 1373)])
def test_an_exit_code_is_translated_back(code: int, shell_code: int) -> None:
    assert convert_to_pilot_error_code(shell_code) == code


def test_an_exit_code_that_several_errors_share_is_translated_to_the_first() -> None:
    assert convert_to_pilot_error_code(68) == ErrorCodes.NOVOMSPROXY


@pytest.mark.parametrize("shell_code", [1, 2, 99, 255, -9])
def test_an_exit_code_without_an_error_of_its_own_is_a_general_error(shell_code: int) -> None:
    assert convert_to_pilot_error_code(shell_code) == ErrorCodes.GENERALERROR


def test_errors_are_added_in_order_and_the_first_text_stays() -> None:
    errors = ErrorCodes()
    codes, diags = errors.add_error_code(errors.STAGEINFAILED, msg="no route to host")
    assert errors.add_error_code(errors.STAGEOUTFAILED, codes, diags) == (codes, diags)
    errors.add_error_code(errors.STAGEINFAILED, codes, diags, msg="again")
    assert codes == [1099, 1137]
    assert diags == ["no route to host", "Failed to stage-out file"]


def test_an_error_with_priority_comes_first() -> None:
    codes, diags = [1137], ["Failed to stage-out file"]
    ErrorCodes.add_error_code(1144, codes, diags, priority=True)
    assert codes == [1144, 1137]
    assert diags[0] == "This job was killed by panda server"


def test_two_jobs_do_not_see_each_others_errors() -> None:
    ErrorCodes().add_error_code(1099)
    assert ErrorCodes().add_error_code(1137) == ([1137], ["Failed to stage-out file"])


def test_removing_an_error_takes_its_text_along() -> None:
    assert ErrorCodes.remove_error_code(1137, [1099, 1137, 1144], ["a", "b", "c"]) == ([1099, 1144], ["a", "c"])
    assert ErrorCodes.remove_error_code(1137, [1099], ["a"]) == ([1099], ["a"])
    assert ErrorCodes.remove_error_code(1137) == ([], [])


def test_the_report_of_all_errors_names_code_name_blame_and_text() -> None:
    report = ErrorCodes.report_errors([1099, 1137], ["no route to host", "quota"])
    assert report.splitlines() == [
        "2 error(s); the first is the one that is reported:",
        "  1. 1099 STAGEINFAILED (storage): no route to host",
        "  2. 1137 STAGEOUTFAILED (storage): quota",
    ]
    assert ErrorCodes.report_errors([], []) == "No errors."


@pytest.mark.parametrize("name", ["SIGTERM", "SIGQUIT", "SIGSEGV", "SIGXCPU", "SIGBUS", "SIGUSR1", "SIGINT"])
def test_a_kill_signal_has_its_code_by_name(name: str) -> None:
    code = ErrorCodes.get_kill_signal_error_code(name)
    assert describe(code).name == name
    assert shell_exit_code(code) == 128 + signal.Signals[name].value


def test_any_other_kill_signal_is_the_unknown_one() -> None:
    assert ErrorCodes.get_kill_signal_error_code("SIGKILL") == ErrorCodes.KILLSIGNAL
    assert ErrorCodes.get_kill_signal_error_code("put_error_codes") == ErrorCodes.KILLSIGNAL


def test_diagnostics_begin_with_the_standard_text_and_end_with_what_is_special() -> None:
    assert ErrorCodes.format_diagnostics(1099, "no route to host\n") == "Failed to stage-in file: no route to host"
    assert ErrorCodes.format_diagnostics(1099, "  ") == "Failed to stage-in file"
    assert ErrorCodes.format_diagnostics(1099, "Failed to stage-in file: x") == "Failed to stage-in file: x"


def test_diagnostics_that_are_too_long_keep_their_tail() -> None:
    text = ErrorCodes.format_diagnostics(1099, "a" * 1000 + "the reason")
    assert len(text) == 500  # what a server keeps
    assert text.startswith("Failed to stage-in file: ...a") and text.endswith("the reason")


def test_error_and_warning_are_taken_out_of_stderr() -> None:
    stderr = "starting\nWARNING: low disk\nAlgTool  WARNING odd value\nERROR  : no such image\nFATAL: giving up\n"
    assert ErrorCodes.extract_stderr_error(stderr) == "no such image"
    assert ErrorCodes.extract_stderr_warning(stderr) == "low disk"
    assert ErrorCodes.extract_stderr_error("MyAlg   ERROR bad value 7") == "bad value 7"
    assert ErrorCodes.extract_stderr_error("all well, no errors") == ""
    assert ErrorCodes.extract_stderr_warning("") == ""


def test_a_pattern_gives_its_group_or_all_that_it_matches() -> None:
    assert ErrorCodes.get_message_for_pattern([r"nothing", r"code (\d+)"], "exit code 7") == "7"
    assert ErrorCodes.get_message_for_pattern([r"code \d+"], "exit code 7") == "code 7"
    assert ErrorCodes.get_message_for_pattern([r"(optional)?code"], "code") == ""


def test_recoverable_are_the_stage_out_errors_and_no_error_at_all() -> None:
    assert [code for code in (0, *ERRORS) if ErrorCodes.is_recoverable(code)] == [0, 1137, 1141, 1152, 1181]
    assert ErrorCodes.is_recoverable()
    assert ErrorCodes.is_recoverable(-1137)
    assert ErrorCodes.put_error_codes == (1135, 1136, 1137, 1141, 1152, 1181)
    assert ErrorCodes.recoverable_error_codes == (0, 1135, 1136, 1137, 1141, 1152, 1181)


@pytest.mark.parametrize("exit_code", [1, 2, 3, 42, 127, 137, 255, -9, -15])
def test_a_payload_that_fails_without_a_known_pattern_is_an_execution_failure(exit_code: int) -> None:
    assert ErrorCodes.resolve_transform_error(exit_code, "something went wrong") == ErrorCodes.PAYLOADEXECUTIONFAILURE


@pytest.mark.parametrize("exit_code", [139, -11])
def test_a_payload_that_died_of_sigsegv_is_told_apart(exit_code: int) -> None:
    assert ErrorCodes.resolve_transform_error(exit_code, "") == ErrorCodes.PAYLOADSIGSEGV


def test_exit_code_0_is_no_error_whatever_stderr_says() -> None:
    assert ErrorCodes.resolve_transform_error(0, "FATAL:   std::bad_alloc") == 0


@pytest.mark.parametrize(
    ("stderr", "code"),
    [
        ("sh: 1: singularity: not found", 1325),
        ("/bin/bash: line 1: apptainer: command not found", 1372),
        ("FATAL:   while mounting: no loop devices available", 1307),
        (
            "FATAL:   could not open image /x.sif: failed to retrieve path: lstat /x.sif: no such file or directory",
            1360,
        ),
        ("ERROR  : Failed to create user namespace: user namespace disabled", 1345),
        ("ERROR  : Failed invoking the NEWUSER namespace runtime: Invalid argument", 1340),
        ("FATAL:   container creation failed: mount error: while mounting image: invalid argument", 1309),
        ("FATAL:   mount /a->/b: destination /b doesn't exist in container", 1308),
        ("ERROR  : fork failed: Resource temporarily unavailable", 1348),
        ("FATAL:   something new", 1306),
        ("terminate called after throwing an instance of 'std::bad_alloc'", 1223),
        ("Program received signal SIGSEGV: Segmentation fault - invalid memory reference.", 1328),
        ("reco_tf.py: error: unrecognized arguments: --foo", 1349),
    ],
)
def test_what_stderr_says_is_more_telling_than_the_exit_code(stderr: str, code: int) -> None:
    assert ErrorCodes.resolve_transform_error(255, f"first line\n{stderr}\nlast line") == code


@pytest.mark.parametrize("stderr", ["open: Resource temporarily unavailable", "my FATAL:   word", "no loop devices"])
def test_a_payload_that_prints_a_runtimes_words_itself_is_still_a_payload_failure(stderr: str) -> None:
    assert ErrorCodes.resolve_transform_error(1, stderr) == ErrorCodes.PAYLOADEXECUTIONFAILURE


def test_errors_need_the_standard_library_alone() -> None:
    code = "import sys, pilot.common.exception; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    # -S leaves out the site-packages folder, and with it everything that is not Python's own
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not {"requests", "psutil", "logging", "server"} & set(done.stdout.split())
