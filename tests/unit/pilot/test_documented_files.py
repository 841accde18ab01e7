"""The documented names of pilot.util.filehandling that plugins and scripts use: they do what chapter 7.3.2 says."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from pilot.common.exception import FileHandlingFailure, MKDirFailure, NoSuchFile, PilotException
from pilot.util import filehandling as files

ROOT = Path(__file__).parents[3]

# How a core dump begins (ELF, ET_CORE).
CORE = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x04\x00" + bytes(100)

# Modules of documented names that a pilot, whose memory a site pays for, does without.
FOR_OTHERS = {
    *(f"pilot.util.{name}" for name in (
        "auxiliary", "disk", "filesearch", "filetools", "harvester", "jobmetrics", "loopingjob", "monitoring",
        "monitoringtime", "nodetools", "parameters", "processtools", "requesting", "timer", "timing",
    )),
    "pilot.control.jobtools",
    "pilot.user.generic.transforms",
    "pilot.info.datasources",
}  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_pilot_itself_loads_none_of_these_names() -> None:
    asked = "import sys, pilot.workflow.start, pilot.workflow.generic; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "pilot.util.filehandling" in loaded.split()
    assert not FOR_OTHERS & set(loaded.split())


def test_a_name_that_no_document_has_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'pilot\.util\.filehandling' has no attribute 'no_such_name'"):
        getattr(files, "no_such_name")  # noqa: B009  # the type checker knows that it is not there


# ---- checksums and sizes


@pytest.mark.parametrize("name", ["adler32", "adler", "ad32", "ad"])
def test_adler32_goes_by_all_its_names(here: Path, name: str) -> None:
    Path("f").write_bytes(b"hello\n")
    assert files.calculate_checksum("f", name) == files.calculate_adler32_checksum("f") == "084b021f"


@pytest.mark.parametrize("name", ["md5", "md5sum", "md"])
def test_md5_goes_by_all_its_names(here: Path, name: str) -> None:
    Path("f").write_bytes(b"")
    assert (
        files.calculate_checksum("f", name) == files.calculate_md5_checksum("f") == "d41d8cd98f00b204e9800998ecf8427e"
    )


def test_another_checksum_is_not_implemented_and_a_pilot_error(here: Path) -> None:
    for family in (NotImplementedError, PilotException):
        with pytest.raises(family, match="sha256"):
            files.calculate_checksum("f", "sha256")
    with pytest.raises(FileHandlingFailure):
        files.calculate_checksum("f")


@pytest.mark.parametrize(
    ("checksum", "kind", "value"),
    [
        ("084b021f", "ad32", "084b021f"),
        ("D41D8CD98F00B204E9800998ECF8427E", "md5", "D41D8CD98F00B204E9800998ECF8427E"),
        ({"adler32": "084b021f"}, "ad32", "084b021f"),
        ({"md5": "d41d"}, "md5", "d41d"),
        ("084b021", "unknown", "084b021"),
        ("notahex!", "unknown", "notahex!"),
        ({"sha1": "1"}, "unknown", "1"),
        ({}, "unknown", ""),
    ],
)
def test_a_checksum_tells_its_type_and_value(checksum: str | dict[str, str], kind: str, value: str) -> None:
    assert (files.get_checksum_type(checksum), files.get_checksum_value(checksum)) == (kind, value)


def test_sizes_are_bytes_and_nothing_for_what_is_not_there(here: Path) -> None:
    Path("f").write_bytes(b"x" * 1000)
    assert files.get_local_file_size("f") == 1000 and files.get_local_file_size("g") is None
    assert files.add_to_total_size("f", 5) == 1005 and files.add_to_total_size("g", 5) == 5
    assert files.get_disk_usage() == files.get_disk_usage(str(here)) >= 1000


# ---- reading and writing


def test_files_are_written_and_read_in_every_mode(here: Path) -> None:
    assert files.write_file("f", "grün") is True
    assert files.read_file("f") == "grün" and files.read_file("f", "rb") == "grün".encode()
    files.write_file("f", b"\xff", mode="ab")
    with pytest.raises(FileHandlingFailure, match="f cannot be read"):
        files.read_file("f")
    files.write_file("n", 5)
    assert files.read_file("n") == "5"
    for call in (
        lambda: files.read_file("none"),
        lambda: files.write_file("no/dir", ""),
        lambda: files.write_file("f", "text", mode="wb"),
        lambda: files.open_file("f", "?"),
    ):
        with pytest.raises(FileHandlingFailure):
            call()


def test_a_unique_file_leaves_others_alone(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    files.write_file("out.txt", "1")
    files.write_file("out.txt", "2", unique=True)
    with caplog.at_level(logging.INFO):
        files.write_file("out.txt", "3", unique=True, mute=False)
    assert [Path(name).read_text() for name in ("out.txt", "out-1.txt", "out-2.txt")] == ["1", "2", "3"]
    assert files.get_nonexistant_path("out.txt") == "out-3.txt" and files.get_nonexistant_path("new") == "new"
    assert "wrote out-2.txt" in caplog.text


def test_json_is_written_as_asked_and_read_back(here: Path) -> None:
    assert files.write_json("j", {"b": [1], "a": None}) is True
    assert files.read_file("j") == '{\n    "a": null,\n    "b": [\n        1\n    ]\n}'
    files.write_json("j", {"b": 1, "a": 2}, sort_keys=False, indent=0, separators=(",", ":"))
    assert files.read_file("j") == '{\n"b":1,\n"a":2\n}'
    assert files.is_json("j")
    files.write_json("l", [1, "x"])
    assert files.read_list("l") == [1, "x"] and not files.is_json("l")
    with pytest.raises(FileHandlingFailure, match="holds no list"):
        files.read_list("j")


def test_bytes_become_text_wherever_they_are() -> None:
    assert files.convert({b"Max": {b"a": [b"1", ("x", b"y")]}, "n": 3}) == {"Max": {"a": ["1", ("x", "y")]}, "n": 3}
    assert files.convert("hello") == "hello"


def test_a_table_becomes_columns(here: Path) -> None:
    Path("t").write_text("Time\tpss\n1\t10\n2\t20\nhalf a li")
    assert files.get_table_from_file("t") == {"Time": [1.0, 2.0], "pss": [10.0, 20.0]}
    Path("w").write_text("a b\n")
    assert files.get_table_from_file("w", header="x y", separator=" ", convert_to_float=False) == {
        "x": ["a"],
        "y": ["b"],
    }


def test_a_file_is_dumped_into_the_log(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    Path("f").write_text("one\ntwo\n")
    with caplog.at_level(logging.INFO):
        assert files.dump("f") == "one\ntwo\n"
    assert "one\ntwo" in caplog.text
    assert files.dump("f", "head -1") == "one\n"
    Path("odd; touch hit").write_text("x")
    assert files.dump("odd; touch hit", "head -1") == "x" and not Path("hit").exists()
    with pytest.raises(FileHandlingFailure):
        files.dump("none")


@pytest.mark.parametrize(("loglevel", "form"), [(0, "| INFO     | name"), (1, "level=INFO     event=name")])
def test_logging_goes_to_a_file_in_one_of_two_forms(here: Path, loglevel: int, form: str) -> None:
    code = f"""
import logging
from pilot.util.filehandling import establish_logging
establish_logging(debug=False, loglevel={loglevel})
establish_logging(debug=False, filename="second.txt", loglevel={loglevel})
log = logging.getLogger("name")
log.info("for people")
log.debug("not for them")
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert not Path("pilotlog.txt").read_text()
    lines = Path("second.txt").read_text().splitlines()
    assert len(lines) == 1 and form in lines[0] and "for people" in lines[0]


# ---- copying, moving, naming


def test_files_are_copied_and_moved_or_it_is_said_why_not(here: Path) -> None:
    files.write_file("a", "1")
    os.mkdir("d")
    files.copy("a", "b")
    files.copy("a", "d")
    files.move("a", "c")
    assert sorted(os.listdir(here)) == ["b", "c", "d"] and os.listdir("d") == ["a"]
    for act in (files.copy, files.move):
        with pytest.raises(NoSuchFile):
            act("a", "x")
        with pytest.raises(FileHandlingFailure):
            act("b", "no/dir")


def test_links_extensions_and_directories(here: Path) -> None:
    files.create_symlink("/target", "link")
    files.create_symlink("/other", "link")
    assert os.readlink("link") == "/target"
    assert files.update_extension("a/b.txt", ".json") == files.update_extension("a/b.log", "json") == "a/b.json"
    files.mkdirs("x/y")
    assert os.stat("x/y").st_mode & 0o777 == 0o770
    files.mkdirs("z", chmod=0o700)
    assert os.stat("z").st_mode & 0o777 == 0o700
    with pytest.raises(MKDirFailure):
        files.mkdirs("x/y")
    name = files.get_pilot_work_dir("/base")
    assert name.startswith(f"/base/PanDA_Pilot2_{os.getpid()}_") and not os.path.exists(name)


def test_the_copied_pilot_runs(here: Path) -> None:
    os.mkdir("w")
    assert files.copy_pilot_source("w") == ""
    said = subprocess.run([sys.executable, "w/pilot.py", "--version"], capture_output=True, text=True, check=True)
    assert "." in said.stdout
    assert "could not be copied" in files.copy_pilot_source("w")


# ---- removing and packing


def test_what_is_removed_is_gone_and_what_is_not_is_told(here: Path) -> None:
    for name in ("a", "b", "c"):
        files.touch(name)
    assert (files.remove("a"), files.remove("a")) == (0, -1)
    assert files.remove_files(str(here), ["b", "none"]) == 0 and os.listdir(here) == ["c"]
    os.makedirs("d/e")
    assert files.remove_files(str(here), ["c", "d"]) == -1 and not os.path.exists("c")
    assert files.rmdirs("d") and files.remove_dir_tree("d") == 0
    os.mkdir("t")
    os.symlink("t", "l")
    assert files.remove_dir_tree("l") == -1 and not files.rmdirs("l") and os.path.isdir("t")
    with pytest.raises(FileHandlingFailure):
        files.touch("no/dir")


def test_only_empty_directories_are_removed(here: Path) -> None:
    os.makedirs("a/b/c")
    os.makedirs("d/e")
    files.touch("d/f")
    files.remove_empty_directories(".")
    assert sorted(os.listdir(".")) == ["d"] and os.listdir("d") == ["f"]


def test_core_dumps_are_removed_and_the_payloads_is_told(here: Path) -> None:
    for wanted, names in ((True, ("core.12", "core.13", "core")), (False, ("core.13",)), (False, ())):
        for name in (*names, "core.txt", "score.12"):
            Path(name).write_bytes(CORE)
        assert files.remove_core_dumps(".", pid=12) is wanted
        assert sorted(os.listdir(".")) == ["core.txt", "score.12"]
    Path("core.12").write_bytes(CORE)
    assert files.remove_core_dumps(".") is False


def test_what_only_has_a_core_dumps_name_stays(here: Path) -> None:
    Path("core.12").write_text("core values, no. 12")
    os.mkdir("core.13")
    os.symlink("/proc/self/exe", "core")
    assert files.remove_core_dumps(".", pid=12) is False and len(os.listdir(".")) == 3


def test_a_directory_is_packed_without_what_is_excluded(here: Path) -> None:
    os.makedirs("job/sub")
    for name in ("job/a", "job/b", "job/sub/c"):
        files.write_file(name, "1")
    assert files.tar_files("job", ["b"], "log.tgz") == 0
    assert files.tar_files("job", ["sub"], "log2.tgz", attempt=2) == 0
    with tarfile.open("job/log.tgz") as first, tarfile.open("job/log2.tgz") as second:
        assert sorted(first.getnames()) == ["job/a", "job/sub/c"]
        assert sorted(second.getnames()) == ["job_2/a", "job_2/b", "job_2/log.tgz"]
    assert files.tar_files("none", [], "log.tgz") == 1


# ---- looking for files, and into them


def test_lines_at_the_end_of_a_file(here: Path) -> None:
    Path("f").write_text("".join(f"line {n}\n" for n in range(20)))
    assert files.tail("f", 2) == "line 18\nline 19" and len(files.tail("f").splitlines()) == 10
    assert files.find_last_line("f") == "line 19" and files.find_last_line("none") == files.tail("none") == ""
    Path("long").write_text("x" * 200000 + "\n" + "y" * 100000 + "\n")
    assert files.tail("long", 2) == "x" * 200000 + "\n" + "y" * 100000 and files.tail("long", 0) == ""


def test_files_are_found_by_name_time_and_kind(here: Path) -> None:
    os.makedirs("d")
    Path("a.log").write_text("text")
    Path("d/b.log").write_text("text")
    Path("bin.dat").write_bytes(b"a\0b")
    os.utime("a.log", (1000, 1000))
    os.utime("d/b.log", (2000.7, 2000.7))
    assert files.get_files() == ["./a.log", "./d/b.log"] and files.get_files("*.dat") == ["./bin.dat"]
    assert files.find_text_files() == ["./a.log", "./d/b.log"]
    assert files.find_latest_modified_file(["a.log", "d/b.log", "gone"]) == ("d/b.log", 2000)
    assert files.find_latest_modified_file([])[0] == ""
    assert files.verify_file_list(["none", "a.log"]) == ["a.log"]
    assert files.get_valid_path_from_list(["none", "a.log", "d"]) == "a.log"
    assert files.get_valid_path_from_list(["none"]) == ""
    assert files.locate_file(f"{here}/**/b.*") == f"{here}/d/b.log" and files.locate_file("**/core.1") == ""
    assert files.find_executable("sh").endswith("/sh") and files.find_executable("no-such-command") == ""


def test_patterns_and_messages_are_found_in_a_file(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    Path("f").write_bytes(b"INFO all well\nERROR St9bad_alloc\r\nFATAL end \xff\n")
    assert files.grep(["St9bad_alloc", "^FATAL"], "f") == ["ERROR St9bad_alloc", "FATAL end �"]
    assert files.scan_file("f", ["all well", "x"], warning_message="look there") is True
    assert "look there" in caplog.text
    assert files.scan_file("f", ["a.l well"]) is False and files.scan_file("f", []) is False
    with pytest.raises(FileHandlingFailure):
        files.grep(["x"], "none")
