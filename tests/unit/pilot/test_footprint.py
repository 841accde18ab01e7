"""Memory that only the start needed is given back, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pilot.util import footprint

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import sys; sys.path.insert(0, %r)
import decimal, json, ssl, threading, zlib
from pilot.util.footprint import release_file_pages
def resident():
    with open("/proc/self/status") as stream:
        return {line.split(":")[0]: int(line.split()[1]) for line in stream if line.startswith("Rss")}
before = resident()
assert release_file_pages() > 5
after = resident()
assert after["RssFile"] < before["RssFile"] * 0.7, (before, after)
# All that was loaded still works, in other threads too.
def work():
    print(decimal.Decimal(2).sqrt(), len(json.dumps([1] * 10000)), zlib.adler32(b"x"))
thread = threading.Thread(target=work)
thread.start(); thread.join()
assert ssl.create_default_context().verify_mode == ssl.CERT_REQUIRED
assert release_file_pages() > 5
"""


def test_pages_of_files_are_given_back_and_all_still_works() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM % str(ROOT)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["1.414213562373095048801688724", "30000", "7929977"]


def test_only_clean_private_mappings_of_files_are_touched(tmp_path: Path) -> None:
    smaps = tmp_path / "smaps"
    kinds = [
        "00400000-00401000 rw-p 00000000 08:01 1 /usr/bin/python3",
        "00500000-00501000 r-xs 00000000 08:01 1 /dev/shm/shared",
        "00600000-00601000 r--p 00000000 00:00 0 [vvar]",
        "00700000-00701000 r--p 00000000 00:00 0",
    ]
    smaps.write_text("".join(f"{kind}\nAnonymous:             0 kB\n" for kind in kinds))
    assert footprint.release_file_pages(str(smaps)) == 0
    # What the loader has changed is in no file.
    smaps.write_text("00800000-00801000 r--p 00000000 08:01 1 /lib/libc.so\nAnonymous:             4 kB\n")
    assert footprint.release_file_pages(str(smaps)) == 0


def test_a_system_without_proc_keeps_what_it_has(tmp_path: Path) -> None:
    assert footprint.release_file_pages(str(tmp_path / "none")) == 0
