"""The documented names of pilot.util.auxiliary, https, monitoring, loopingjob and jobmetrics: they do what is said."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs

import pytest

import pilot.user
from pilot.common import orders
from pilot.common.errorcodes import ERRORS, ErrorCodes
from pilot.common.exception import is_python3
from pilot.info.jobdata import JobData
from pilot.user.generic import setup
from pilot.util import auxiliary, config, constants, container, https, jobmetrics, loopingjob, monitoring
from tests.unit.pilot.builders import definition
from tests.unit.pilot.webserver import Answer, WebServer
from tests.x509 import X509

C = ErrorCodes


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("X509_USER_PROXY", "X509_CERT_DIR", "GTAG", "PANDA_JSID", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


# ---- auxiliary: error codes, text, objects


def test_exit_codes_are_translated_both_ways() -> None:
    assert auxiliary.shell_exit_code(exit_code=C.NOLOCALSPACE) == 69 and auxiliary.shell_exit_code(0) == 0
    assert auxiliary.convert_to_pilot_error_code(exit_code=69) == C.NOLOCALSPACE
    known = auxiliary.get_error_code_translation_dictionary()
    assert known[C.NOLOCALSPACE] == (69, ERRORS[C.NOLOCALSPACE].message) and C.LOOPINGJOB not in known
    assert all(auxiliary.shell_exit_code(code) == shell for code, (shell, _) in known.items())


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("abcdef", "abcdef"), ("abcdefg", "abc|efg"), ("", "")],
)
def test_only_the_middle_of_long_text_is_cut(text: str, wanted: str) -> None:
    assert auxiliary.cut_output(text, cutat=3, separator="|") == wanted
    assert auxiliary.cut_output("x" * 2048) == "x" * 2048 and "\n[...]\n" in auxiliary.cut_output("x" * 2049)


def test_values_are_found_in_text() -> None:
    catchall = "nopenfiles=5,MEM=2;allow, bindmounts=/a"
    assert [auxiliary.get_key_value(catchall, key) for key in ("nopenfiles", "MEM", "bindmounts", "open", "EM")] == [
        "5", "2", "/a", "", "",
    ]  # fmt: skip
    assert auxiliary.get_pid_from_command("gdb --pid 19114 -ex 'generate-core-file'") == 19114
    assert auxiliary.get_pid_from_command("gdb --pid %") is None
    assert auxiliary.get_pid_from_command("kill 5", pattern=r"kill (\d+)") == 5
    assert auxiliary.is_string("") and not auxiliary.is_string(b"")
    assert is_python3() and auxiliary.is_python3() and container.is_python3()


def test_the_size_of_an_object_is_that_of_all_it_holds() -> None:
    class Node:
        def __init__(self, load: object) -> None:
            self.load = load
            self.me = self

    small, large = auxiliary.get_size(Node("")), auxiliary.get_object_size(Node([{"a": "x" * 5000}, ("y" * 5000,)]))
    assert 10000 < large - small < 12000
    twice = ["z" * 5000] * 2
    assert auxiliary.get_size(twice) < 6000 and auxiliary.get_object_size(twice, {id(twice[0])}) < 1000


# ---- auxiliary: this pilot, this node


def test_the_environment_tells_who_this_is(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert auxiliary.get_pilot_id() == auxiliary.get_job_scheduler_id() == "unknown"
    for name, value in (("GTAG", "g"), ("PANDA_JSID", "j"), ("SLURM_JOB_ID", "77")):
        monkeypatch.setenv(name, value)
    assert (auxiliary.get_pilot_id(), auxiliary.get_job_scheduler_id()) == ("g", "j")
    assert auxiliary.get_batchsystem_jobid() == "77"
    user = subprocess.run(["whoami"], capture_output=True, text=True, check=False).stdout.strip()
    assert not user or auxiliary.whoami() in (user, os.environ.get("USER"), os.environ.get("LOGNAME"))


def test_memory_is_read_from_ps(caplog: pytest.LogCaptureFixture) -> None:
    line = "usatlas1 13917 1.5 0.0 1324968 152832 ? Sl 09:33 2:55 /bin/python2 .."
    assert auxiliary.extract_memory_usage_value(f"USER PID %CPU %MEM VSZ RSS TTY\n{line}") == 152832
    assert auxiliary.extract_memory_usage_value("nothing") == 0
    code, stderr, stdout = auxiliary.get_memory_usage(os.getpid())
    assert (code, stderr) == (0, "") and auxiliary.extract_memory_usage_value(stdout) > 1000
    with caplog.at_level(logging.INFO):
        auxiliary.show_memory_usage()
        auxiliary.pilot_version_banner()
        auxiliary.display_architecture_info()
    assert "kB resident" in caplog.text and "pilotkit" in caplog.text and "Linux" in caplog.text


def test_what_the_cpu_can_do_is_read_from_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nflags\t\t: fpu avx avx2 sse4_2 hypervisor\n")
    monkeypatch.setattr(auxiliary, "_CPUINFO", info)
    assert auxiliary.has_instruction_sets(["AVX", "AVX2", "SSE4_2", "XXX"]) == "AVX|AVX2|SSE4_2"
    assert auxiliary.has_instruction_set("avx2") == "avx2" and not auxiliary.has_instruction_set("av")
    assert auxiliary.is_virtual_machine() is True
    info.unlink()
    assert auxiliary.is_virtual_machine() is False and auxiliary.has_instruction_set("AVX") == ""


def test_hardware_is_what_lshw_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert auxiliary.list_hardware() == "" and auxiliary.get_display_info() == ("", "")
    lshw = tmp_path / "lshw"
    lshw.write_text(
        f"#!{shutil.which('sh', path=os.defpath)}\n"
        'echo "  *-display $2"\necho "       product: GD 5446 [1013:B8]"\necho "       vendor: Cirrus Logic [1013]"\n'
    )
    lshw.chmod(0o755)
    assert auxiliary.get_display_info() == ("GD 5446", "Cirrus Logic") and "product" in auxiliary.list_hardware()


def test_a_core_file_is_found_by_pid_or_command(here: Path) -> None:
    (here / "a").mkdir()
    (here / "a" / "core.12").touch()
    assert (
        auxiliary.locate_core_file(pid=12) == auxiliary.locate_core_file(cmd="gdb --pid 12") == str(here / "a/core.12")
    )
    assert auxiliary.locate_core_file(pid=13) == auxiliary.locate_core_file("ls") == auxiliary.locate_core_file() == ""


# ---- https


def test_credentials_are_looked_for_in_the_documented_order(
    here: Path, monkeypatch: pytest.MonkeyPatch, x509: X509
) -> None:
    assert https.cacert_default_location() == f"/tmp/x509up_u{os.getuid()}"
    usual = https.cacert_default_location()
    assert https.cacert() == (usual if Path(usual).is_file() else None)
    for name in ("option", "proxy"):
        (here / name).touch()
    monkeypatch.setenv("X509_USER_PROXY", str(here / "proxy"))
    assert https.cacert(Namespace(cacert="")) == str(here / "proxy")
    assert https.cacert(Namespace(cacert=str(here / "option"))) == str(here / "option")
    monkeypatch.setenv("X509_CERT_DIR", str(here))
    assert https.capath() == str(here)
    (here / "d").mkdir()
    assert https.capath(Namespace(capath=str(here / "d"))) == str(here / "d")
    monkeypatch.setenv("X509_CERT_DIR", str(here / "option"))
    assert https.capath() in (None, "/etc/grid-security/certificates")


def test_a_request_is_answered_with_json_text_or_nothing(
    web: WebServer, here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    web.route("/json", Answer({"a": [1]}))
    web.route("/text", Answer(b"plain"))
    web.route("/no", Answer(b"not for you", status=403))
    assert https.request(f"{web.url}/json", {"job": "1 & 2", "more": "x"}) == {"a": [1]}
    asked = web.asked[-1]
    assert asked.method == "POST" and parse_qs(asked.body.decode()) == {"job": ["1 & 2"], "more": ["x"]}
    assert asked.headers["accept"] == "application/json" and asked.headers["user-agent"].startswith("pilotkit/")
    assert "authorization" not in asked.headers
    assert https.request(f"{web.url}/text", plain=True, secure=False) == "plain" and web.asked[-1].method == "GET"
    assert https.request(f"{web.url}/text") is None and "not JSON" in caplog.text
    assert https.request(f"{web.url}/no") is None and "403" in caplog.text


# ---- monitoring, loopingjob, jobmetrics


class Queue:
    maxwdir, maxinputsize = 3, 0


def test_limits_are_those_of_queue_and_settings() -> None:
    queue = Queue()
    assert monitoring.get_local_size_limit_stdout() == 2097152 * 1024
    assert monitoring.get_local_size_limit_stdout(bytes=False) == 2097152
    assert monitoring.get_max_allowed_work_dir_size(queue) == 3 * 2**20
    assert monitoring.get_max_input_size(queue) == 14336 * 2**20
    queue.maxinputsize = 7
    assert monitoring.get_max_input_size(queue, megabyte=True) == 7
    assert loopingjob.get_looping_job_limit() == 7200


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("ImportError: No module named _ctypes", C.NOCTYPES),
        ("OSError: [Errno 28] No space left on device", C.NOLOCALSPACE),
        ("RuntimeError: can't start new thread", C.RESOURCEUNAVAILABLE),
        ("KeyError: 'x'", C.INTERNALPILOTPROBLEM),
    ],
)
def test_the_text_of_an_exception_has_a_code(text: str, code: int) -> None:
    assert monitoring.get_exception_error_code(text) == code


def test_too_little_space_is_told(here: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small_disk)
    assert monitoring.check_local_space() == monitoring.check_local_space(initial=False) == C.NOLOCALSPACE


def test_scores_are_the_kernels(caplog: pytest.LogCaptureFixture) -> None:
    assert monitoring.get_score(os.getpid()).isdigit() and monitoring.get_score(2**22 + 1) == "UNKNOWN"
    with caplog.at_level(logging.INFO):
        monitoring.display_oom_info(2**22 + 1)
    assert f"payload (pid {2**22 + 1}) UNKNOWN, pilot {monitoring.get_score(os.getpid())}" in caplog.text


def test_a_core_file_is_made_of_what_is_below_us_alone(
    here: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    loopingjob.create_core_dump(1, str(here))
    loopingjob.create_core_dump()
    assert caplog.text.count("no core file") == 2
    (here / "gdb").write_text(f'#!{shutil.which("sh")}\nfor last; do :; done\n: > "${{last#generate-core-file }}"\n')
    (here / "gdb").chmod(0o755)
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            monkeypatch.setenv("PATH", f"{here}:{os.environ['PATH']}")
            loopingjob.create_core_dump(child.pid, ".")
        finally:
            child.kill()
    assert (here / f"core.{child.pid}").exists()


def test_a_figure_is_a_pair_or_nothing() -> None:
    assert jobmetrics.get_job_metrics_entry("nEvents", 5) == "nEvents=5 "
    assert [jobmetrics.get_job_metrics_entry("n", value) for value in (None, "", 0)] == [""] * 3


def test_figures_of_a_job_are_those_of_the_experiments_plugin() -> None:
    job = JobData(definition(coreCount=4, maxCpuCount=60))
    assert jobmetrics.get_job_metrics(job) == "coreCount=4 cpuLimit=60"


def test_figures_of_a_plugin_that_lies_in_a_folder_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "aquarium").mkdir()
    (tmp_path / "aquarium" / "__init__.py").write_text("")
    (tmp_path / "aquarium" / "jobmetrics.py").write_text(
        "def get_job_metrics(job, metrics=None):\n    return 'fish=3'\n"
    )
    monkeypatch.setattr(pilot.user, "__path__", list(pilot.user.__path__))
    settings = config.read("")
    own = replace(settings, experiment=replace(settings.experiment, name="aquarium", path=str(tmp_path)))
    monkeypatch.setattr(jobmetrics, "read", lambda: own)
    try:
        assert jobmetrics.get_job_metrics(object()) == "fish=3"
    finally:
        for name in [name for name in sys.modules if name.startswith("pilot.user.aquarium")]:
            del sys.modules[name]
        delattr(pilot.user, "aquarium")


def test_the_certificate_is_shown_only_when_the_request_is_to_be_secure(
    here: Path, monkeypatch: pytest.MonkeyPatch, x509: X509
) -> None:
    for name, cert, key in (("host", x509.host_cert, x509.host_key), ("user", x509.user_cert, x509.user_key)):
        (here / name).write_text(cert.read_text() + key.read_text())
    monkeypatch.setenv("X509_USER_PROXY", str(here / "user"))
    monkeypatch.setenv("X509_CERT_DIR", str(x509.ca_dir))
    server = WebServer(str(here / "host"), str(x509.ca_file))
    try:
        server.route("/", Answer({}))
        assert https.request(f"{server.url}/", {"a": 1}) == {} and server.asked[-1].peer
        assert https.request(f"{server.url}/", {"a": 1}, secure=False) == {} and not server.asked[-1].peer
        monkeypatch.setenv("X509_CERT_DIR", str(here))
        assert https.request(f"{server.url}/") is None and len(server.asked) == 2
    finally:
        server.close()


# ---- transformations, constants


def test_a_transformation_is_downloaded_from_allowed_places_alone(
    web: WebServer, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.route("/trf/user/run.sh", Answer(b"#!/bin/sh\necho ran\n"))
    monkeypatch.setattr("pilot.user.generic.transforms.get_valid_base_urls", lambda order=None: [f"{web.url}/trf"])
    assert setup.get_analysis_trf(f"{web.url}/trf/user/run.sh", str(here)) == (0, "", "run.sh")
    assert subprocess.run(["./run.sh"], capture_output=True, check=True).stdout == b"ran\n"
    for url in (f"{web.url}/other/run.sh", f"{web.url}/trf/../run.sh", f"{web.url}/trf/none.sh", "run.sh"):
        code, why, name = setup.get_analysis_trf(url, str(here))
        assert (code, name) == (C.TRFDOWNLOADFAILURE, "") and why
    assert web.paths() == ["/trf/user/run.sh", "/trf/none.sh"]


def test_a_script_is_downloaded_under_a_name(web: WebServer, here: Path) -> None:
    web.route("/s", Answer(b"#!/bin/sh\n"))
    assert setup.download_transform(f"{web.url}/s", "mine", str(here)) == (True, "")
    assert os.access(here / "mine", os.X_OK)
    fine, why = setup.download_transform(f"{web.url}/none", "x", str(here))
    assert not fine and "cannot be downloaded" in why
    fine, why = setup.download_transform(f"{web.url}/s", "no/dir", str(here))
    assert not fine and "cannot be written" in why


def test_the_moments_for_utilities_are_the_pilots_own() -> None:
    assert constants.UTILITY_BEFORE_PAYLOAD == orders.UTILITY_BEFORE_PAYLOAD
    named = {name: value for name, value in vars(orders).items() if name.startswith("UTILITY_")}
    assert named and all(getattr(constants, name) == value for name, value in named.items())
