"""How fast files move, beside the tools of the field in the same run, and how much memory the pilot needs for it."""

from __future__ import annotations

import mmap
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from pilot.api.data import StageInClient, Tools
from pilot.copytool import tools as copytools
from pilot.info.filespec import FileSpec
from pilot.info.replica import Replica
from pilot.util.filehandling import calculate_checksum
from pilot.util.guarded import Launcher
from pilot.util.watch import Limits
from tests.bench.table import Row
from tests.unit.pilot import builders
from tests.xrootd import XRootD, running_xrootd

BIG = 1_000_000_000
SMALL, MANY = 1_000_000, 200
# Pairs of runs: what is compared takes turns, since the machine is not the same from one second to the next.
PAIRS = 7
MB = 2**20
# A process like the pilot brings files in or takes them out, and tells how much more memory the bigger one has needed.
_MEASURED = """
import sys
from pathlib import Path
from tests.bench.data import peak_growth
print(peak_growth(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *sys.argv[4:]))
"""


def rows() -> list[Row]:
    """All of it, with a real XRootD server."""
    with running_xrootd() as server, tempfile.TemporaryDirectory(prefix="pilotkit-bench-") as temporary:
        # In storage where the server may read it, on a disk like that of the job.
        write(server.data / "big", BIG)
        work = Path(temporary)
        return [
            *one_big_file(server, work / "big"),
            *many_small_files(server, work / "small"),
            checksum_speed(server.data / "big"),
            *memory(server, work / "memory"),
        ]


def write(path: Path, size: int) -> str:
    """A file of random bytes; returns its adler32."""
    checksum = 1
    with path.open("wb") as sink:
        for left in range(size, 0, -MB):
            block = os.urandom(min(left, MB))
            checksum = zlib.adler32(block, checksum)
            sink.write(block)
    path.chmod(0o644)
    return f"{checksum:08x}"


def one_big_file(server: XRootD, work: Path) -> list[Row]:
    """Stage-in of 1 GB with its checksum against xrdcp with its own."""
    work.mkdir()
    # Both know the checksum that they are going to get.
    known = {"adler32": calculate_checksum(str(server.data / "big"))}

    def ours() -> None:
        stage_in(server, "xrdcp", work, [("big", "big", BIG, known)])

    def plain() -> None:
        xrdcp("--cksum", f"adler32:{known['adler32']}", server.root("big"), str(work / "big"))

    pilot, tool = taking_turns(ours, plain, lambda: (work / "big").unlink())
    return [
        Row(
            f"stage-in of {BIG // 10**9} GB over XRootD with checksum", f"{BIG / pilot / 1e6:.0f} MB/s",
            f"{tool / pilot:.0%} of `xrdcp --cksum` ({BIG / tool / 1e6:.0f} MB/s); {PAIRS} of each by turns", "≥ 95 %",
        )
    ]  # fmt: skip


def many_small_files(server: XRootD, work: Path) -> list[Row]:
    """200 files of 1 MB against one xrdcp after the other."""
    work.mkdir()
    files = []
    for number in range(MANY):
        server.put(f"small/{number}", os.urandom(SMALL))
        checksum = calculate_checksum(str(server.data / "small" / str(number)))
        files.append((f"small/{number}", f"small{number}", SMALL, {"adler32": checksum}))

    def ours() -> None:
        stage_in(server, "xrdcp", work, files)

    def plain() -> None:
        for source, name, _, known in files:
            xrdcp("--cksum", f"adler32:{known['adler32']}", server.root(source), str(work / name))

    def clear() -> None:
        for path in work.iterdir():
            path.unlink()

    pilot, tool = taking_turns(ours, plain, clear, pairs=3)
    return [
        Row(
            f"stage-in of {MANY} files of {SMALL // 10**6} MB", f"{pilot:.2f} s",
            f"{tool / pilot:.1f} × as fast as one `xrdcp` after the other ({tool:.1f} s)", "≥ 5 ×",
        )
    ]  # fmt: skip


def checksum_speed(path: Path) -> Row:
    """The checksum of a file in the page cache against zlib's of the same bytes: mapped, and read as one."""

    def ours() -> None:
        calculate_checksum(str(path))

    def plain() -> None:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            zlib.adler32(mapped)

    def read() -> None:
        zlib.adler32(path.read_bytes())

    plain()
    pilot, floor = taking_turns(ours, plain, lambda: None)
    again, whole = taking_turns(ours, read, lambda: None)
    return Row(
        "adler32 of a cached file", f"{BIG / pilot / 1e9:.2f} GB/s",
        f"{floor / pilot:.0%} of zlib's over the mapped file ({BIG / floor / 1e9:.2f} GB/s), "
        f"{whole / again:.0%} of reading the file at once and zlib's over that", "≥ 90 %",
    )  # fmt: skip


def memory(server: XRootD, folder: Path) -> list[Row]:
    """How much a pilot's memory grows with a file of 1 GB, on its way in and out."""
    grown = {}
    server.put("small-one", os.urandom(SMALL))
    for tool in ("mv", "https", "xrdcp"):
        base = {"mv": f"{server.data}/", "https": server.http(""), "xrdcp": server.root("")}[tool]
        for direction in ("in", "out"):
            work = folder / f"{tool}-{direction}"
            work.mkdir(parents=True)
            names = ("small-one", "big") if direction == "in" else ("out-small", "out-big")
            if direction == "out":
                write(work / names[0], SMALL)
                write(work / names[1], BIG)
            command = [sys.executable, "-c", _MEASURED, tool, direction, str(work), *(base + name for name in names)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            grown[f"{tool} {direction}"] = float(done.stdout)
            shutil.rmtree(work)
            for name in ("out-small", "out-big"):
                (server.data / name).unlink(missing_ok=True)
    said = ", ".join(f"{way} {growth:.1f}" for way, growth in grown.items())
    return [
        Row(
            f"growth of the pilot's memory with a file of {BIG // 10**9} GB", f"{max(grown.values()):.1f} MB at most",
            f"peak of RSS less that with 1 MB, in MB: {said}", "flat",
        )
    ]  # fmt: skip


def peak_growth(tool: str, direction: str, work: Path, small: str, big: str) -> float:
    """In a process of its own: MB of RSS that the transfer of a big file needs beyond those of a small one."""

    def peak(url: str) -> int:
        # Peak of RSS (VmHWM, kB) from here on: proc(5), clear_refs.
        Path("/proc/self/clear_refs").write_text("5")
        name = url.rpartition("/")[2]
        spec = FileSpec(name, "input" if direction == "in" else "output", surl=url)
        module, transfer = copytools.load(tool), builders.transfer(work, limits=Limits(300.0, 3600.0, 1e6))
        (module.copy_in if direction == "in" else module.copy_out)([spec], transfer)
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

    # Modules and threads that every transfer needs are no growth with the size: the first one does not count.
    peak(small)
    least = peak(small)
    return (peak(big) - least) / 1024


def stage_in(server: XRootD, tool: str, work: Path, files: Sequence[tuple[str, str, int, dict[str, str]]]) -> None:
    """Bring files in with the pilot's client. files: place in storage, name, size, checksum."""
    queue = builders.infosys({"acopytools": {"default": [tool]}, "astorages": {"default": ["A"]}}, {})
    client = StageInClient(
        queue, logger=builders.LOG, settings=builders.file_settings(), workdir=work,
        tools=Tools(Launcher(), dict(os.environ)),
    )  # fmt: skip
    client.transfer(
        [
            FileSpec(name, scope="b", filesize=size, checksum=known, replicas=[Replica("A", server.root(source))])
            for source, name, size, known in files
        ]
    )


def xrdcp(*words: str) -> None:
    """Plain xrdcp."""
    subprocess.run(["xrdcp", "--nopbar", *words], check=True, stdout=subprocess.DEVNULL)


def taking_turns(
    ours: Callable[[], None], other: Callable[[], None], clear: Callable[[], None], pairs: int = PAIRS
) -> tuple[float, float]:
    """Median seconds of both, one after the other, each first as often as the other; clear() after each."""
    seconds: dict[Callable[[], None], list[float]] = {ours: [], other: []}
    for number in range(pairs):
        for body in (ours, other) if number % 2 else (other, ours):
            begun = time.perf_counter()
            body()
            seconds[body].append(time.perf_counter() - begun)
            clear()
    return statistics.median(seconds[ours]), statistics.median(seconds[other])
