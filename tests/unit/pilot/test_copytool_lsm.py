"""The site's own transfer scripts: small real ones, that work, fail with words, hang, and ignore orders to end."""

from __future__ import annotations

import os
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.copytool import lsm
from pilot.copytool.common import Transfer
from pilot.copytool.errors import Kind, kind_of
from pilot.info.filespec import FileSpec
from pilot.util.watch import Limits
from tests.unit.pilot import builders

C = ErrorCodes
CONTENTS = b"events " * 1000
ADLER = {"adler32": f"{zlib.adler32(CONTENTS):08x}"}
# Scripts for a storage that is a directory: the URL is root://host/<path>.
GET = '#!/bin/sh\nset -e\ncp "/${1#root://*/}" "$2"\n'
PUT = (
    '#!/bin/sh\nset -e\nwhile [ $# -gt 2 ]; do echo "$1 $2" >> "$LSM_NOTES"; shift 2; done\ncp "$1" "/${2#root://*/}"\n'
)


class Site:
    """Scripts in a directory, storage in another, and a job's directory."""

    def __init__(self, place: Path) -> None:
        self.bin, self.work, self.store = place / "bin", place / "work", place / "store"
        for folder in (self.bin, self.work, self.store):
            folder.mkdir()
        self.notes = place / "notes"
        self.script("lsm-get", GET)
        self.script("lsm-put", PUT)

    def script(self, name: str, text: str, folder: Path | None = None) -> None:
        path = (folder or self.bin) / name
        path.write_text(text)
        path.chmod(0o755)

    def transfer(self, **changes: Any) -> Transfer:
        environ = {"PATH": f"{self.bin}:{os.environ['PATH']}", "LSM_NOTES": str(self.notes)}
        return builders.transfer(self.work, **{"environ": environ, **changes})

    def surl(self, name: str = "f.root") -> str:
        return f"root://host/{self.store}/{name}"

    def stored(self, **changes: Any) -> FileSpec:
        (self.store / "f.root").write_bytes(CONTENTS)
        return FileSpec("f.root", surl=self.surl(), **changes)

    def made(self) -> FileSpec:
        (self.work / "f.root").write_bytes(CONTENTS)
        return FileSpec("f.root", "output", surl=self.surl(), guid="GUID-1")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def fails(code: int, call: Callable[[], None], *said: str) -> PilotException:
    with pytest.raises(PilotException) as raised:
        call()
    assert raised.value.code == code, raised.value
    assert all(text in raised.value.diag for text in said), raised.value.diag
    return raised.value


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_in_and_its_figures_are_noted(site: Site) -> None:
    spec = site.stored(filesize=len(CONTENTS), checksum=ADLER)
    lsm.copy_in([spec], site.transfer())
    assert (site.work / "f.root").read_bytes() == CONTENTS and left(site.work) == ["f.root"]
    assert (spec.status, spec.turl, spec.checksum) == ("transferred", spec.surl, ADLER)


def test_a_file_goes_out_and_the_script_is_told_size_checksum_and_guid(site: Site) -> None:
    spec = site.made()
    lsm.copy_out([spec], site.transfer())
    assert (site.store / "f.root").read_bytes() == CONTENTS
    assert site.notes.read_text().splitlines() == [
        f"--size {len(CONTENTS)}",
        f"--checksum adler32:{ADLER['adler32']}",
        "--guid GUID-1",
    ]
    assert (spec.status, spec.filesize, spec.checksum) == ("transferred", len(CONTENTS), ADLER)


@pytest.mark.parametrize(
    ("known", "code", "said"),
    [
        ({"filesize": 5}, C.STAGEINFAILED, ("has 7000 bytes, the catalogue says 5",)),
        ({"checksum": {"adler32": "00000001"}}, C.GETADMISMATCH, (ADLER["adler32"], "the catalogue says 00000001")),
        ({"checksum": {"md5": "0" * 32}}, C.GETMD5MISMATCH, ("the catalogue says 0000",)),
    ],
)
def test_a_wrong_file_is_named_with_both_values_and_not_kept(
    site: Site, known: dict[str, Any], code: int, said: tuple[str, ...]
) -> None:
    fails(code, lambda: lsm.copy_in([site.stored(**known)], site.transfer()), *said)
    assert left(site.work) == []


@pytest.mark.parametrize(
    ("end", "inward", "outward", "said"),
    [
        ("cp /nonexistent/f .", 1331, 1137, "the file is not there (exit code 1: cp: cannot stat"),
        ("echo 'open: Permission denied' >&2; exit 7", 1338, 1383, "access is denied (exit code 7: open: Permission"),
        ("echo 'write: No space left on device'; exit 2", 1098, 1333, "there is no space left (exit code 2"),
        ("echo 'connect: Connection refused'; exit 3", 1099, 1137, "the server cannot be reached (exit code 3"),
        ("exit 201", 1099, 1137, "it failed (exit code 201: it said nothing)"),
        ("kill -9 $$", 1099, 1137, "it failed (signal 9"),
        ("exec site-mover", 1342, 1342, "the transfer tool is not installed (exit code 127"),
    ],
)
def test_a_script_that_fails_is_understood_by_its_words(
    site: Site, end: str, inward: int, outward: int, said: str
) -> None:
    for name in ("lsm-get", "lsm-put"):
        site.script(name, f"#!/bin/sh\n{end}\n")
    fails(inward, lambda: lsm.copy_in([site.stored()], site.transfer()), site.surl(), said)
    assert left(site.work) == []
    fails(outward, lambda: lsm.copy_out([site.made()], site.transfer()), site.surl(), said)


def test_a_script_that_says_yes_and_makes_nothing_is_not_believed(site: Site) -> None:
    site.script("lsm-get", "#!/bin/sh\n")
    fails(C.STAGEINFAILED, lambda: lsm.copy_in([site.stored()], site.transfer()), "but has made no file")


def test_missing_scripts_are_an_error_that_says_what_to_install(site: Site) -> None:
    (site.bin / "lsm-get").unlink()
    nowhere = site.transfer(environ={"PATH": str(site.bin)})
    fails(1342, lambda: lsm.copy_in([site.stored()], nowhere), "command lsm-get is not on the PATH", "the site's own")
    options = {"setup": "/nonexistent"}
    wrong = site.transfer(environ={"PATH": str(site.bin)}, options=options)
    fails(1342, lambda: lsm.copy_in([site.stored()], wrong), "neither in /nonexistent (the queue's setup) nor on")


def test_the_queues_setup_may_be_a_directory_or_a_file_to_source(site: Site, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    (site.bin / "lsm-get").rename(elsewhere / "lsm-get")
    setup = tmp_path / "set up.sh"
    setup.write_text(f"PATH='{elsewhere}':$PATH; echo ready\n")
    for found in (str(elsewhere), str(setup)):
        lsm.copy_in([site.stored()], site.transfer(options={"setup": found}))
        (site.work / "f.root").unlink()


def test_no_shell_looks_into_names(site: Site, tmp_path: Path) -> None:
    setup = tmp_path / "setup.sh"
    setup.write_text("")
    site.script("lsm-get", '#!/bin/sh\nprintf "%s" "$1" > "$2"\n')
    surl = f"root://host/$(touch {tmp_path}/bad);`touch {tmp_path}/bad`\n'\""
    lsm.copy_in([FileSpec("f.root", surl=surl)], site.transfer(options={"setup": str(setup)}))
    assert (site.work / "f.root").read_text() == surl
    assert not (tmp_path / "bad").exists()


# ---- what hangs

# It starts a process that gets away from it, and both ignore TERM.
STUBBORN = '#!/bin/sh\ntrap "" TERM\necho half > "$2"\n(trap "" TERM; setsid sleep 1000) &\nsleep 1000; sleep 1000\n'


def test_a_script_without_progress_is_stopped_with_all_its_processes(site: Site) -> None:
    site.script("lsm-get", STUBBORN)
    begun = time.monotonic()
    slow = site.transfer(limits=Limits(1.5, 1000.0, 1e6))
    error = fails(C.STAGEINTIMEOUT, lambda: lsm.copy_in([site.stored()], slow), "stopped, no byte moved for")
    assert kind_of(error) is Kind.STALLED
    assert time.monotonic() - begun < 60
    assert left(site.work) == []  # the fixtures see to it that no process is left


def test_a_stage_out_without_progress_is_stopped_too(site: Site) -> None:
    site.script("lsm-put", "#!/bin/sh\necho waiting for tape\nsleep 1000\n")
    slow = site.transfer(limits=Limits(1.5, 1000.0, 1e6))
    fails(C.STAGEOUTTIMEOUT, lambda: lsm.copy_out([site.made()], slow), "no byte moved", "waiting for tape")


def test_a_script_that_moves_bytes_without_end_is_stopped_at_its_limit(site: Site) -> None:
    site.script("lsm-get", '#!/bin/sh\nwhile :; do echo x >> "$2"; sleep 0.2; done\n')
    slow = site.transfer(limits=Limits(1000.0, 2.0, 1e6))
    fails(C.STAGEINTIMEOUT, lambda: lsm.copy_in([site.stored(filesize=100)], slow), "the limit for 100 bytes")
    assert left(site.work) == []


def test_a_script_that_is_slow_but_goes_on_is_let_be(site: Site) -> None:
    copy = 'cp "/${1#root://*/}" "$2"'
    site.script("lsm-get", f'#!/bin/sh\nfor i in $(seq 20); do printf x >> "$2"; sleep 0.2; done\n{copy}\n')
    lsm.copy_in([site.stored(checksum=ADLER)], site.transfer(limits=Limits(3.0, 1000.0, 1e6)))
    assert (site.work / "f.root").read_bytes() == CONTENTS


def test_a_cancelled_transfer_ends_soon_and_leaves_nothing(site: Site) -> None:
    site.script("lsm-get", STUBBORN)
    cancel = threading.Event()
    timer = threading.Timer(0.7, cancel.set)
    timer.start()
    try:
        moving = site.transfer(cancelled=cancel.is_set)
        error = fails(C.STAGEINFAILED, lambda: lsm.copy_in([site.stored()], moving), "f.root was cancelled")
    finally:
        timer.join()
    assert kind_of(error) is Kind.CANCELLED and left(site.work) == []


def test_messages_without_end_do_not_fill_the_disk(site: Site) -> None:
    site.script("lsm-get", "#!/bin/sh\nexec yes 'all is well, all is well, all is well, all is well, all is well'\n")
    fails(C.STAGEINTIMEOUT, lambda: lsm.copy_in([site.stored()], site.transfer()), "writes messages without end")
