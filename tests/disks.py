"""A small disk that gets full, for tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# s; mounting takes milliseconds.
_PATIENCE = 30


@contextmanager
def small_disk(megabytes: float) -> Iterator[Path]:
    """The directory of a file system of so many MB in memory, for the time of a block. Everybody may write to it.

    Skips where mounting is not allowed, which takes root and is kept from root in many containers.
    """
    with tempfile.TemporaryDirectory(prefix="pilotkit-disk-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        disk = Path(folder, "disk")
        disk.mkdir()
        options = f"size={int(megabytes * 1_000_000)},mode=1777"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "pilotkit-disk", str(disk)],
            capture_output=True, text=True, timeout=_PATIENCE, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            pytest.skip(f"a small disk cannot be mounted here ({done.stderr.strip()}): this test needs root")
        try:
            yield disk
        finally:
            subprocess.run(["umount", str(disk)], timeout=_PATIENCE, check=True)


def fill(disk: Path, leave: int = 0) -> None:
    """Fill a disk with one file, but for so many bytes."""
    size = shutil.disk_usage(disk).free - leave
    if size > 0:
        with (disk / "filler").open("wb") as sink:
            os.posix_fallocate(sink.fileno(), 0, size)
