"""What processes are doing at this moment, for the log of a job that is ended: state, where in the kernel they wait."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

# A log is read by people: so many processes, so many frames of each, so many characters of a command.
_PROCESSES = 40
_FRAMES = 12
_COMMAND = 160
# What container runtimes call those of their own processes that hand every signal on to all that runs in the container.
_RUNTIMES = ("Apptainer runtime parent", "Singularity runtime parent", "appinit", "sinit")


def describe_processes(pids: Sequence[int]) -> list[str]:
    """A line for each process, and below it the kernel's stack where it may be read (as root only)."""
    lines = []
    for pid in pids[:_PROCESSES]:
        folder = Path("/proc", str(pid))
        before, _, after = _text(folder / "stat").rpartition(")")
        if not after:
            continue
        command = _text(folder / "cmdline").replace("\0", " ").strip() or f"[{before.partition('(')[2]}]"
        shown = "".join(c if c.isprintable() else "?" for c in command[:_COMMAND])
        waits = _text(folder / "wchan")
        where = f", waits in {waits}" if waits not in ("", "0") else ""
        # How soon the kernel would choose it when memory runs out, of 1000 at most as a rule.
        score = _text(folder / "oom_score").strip() or "unknown"
        state, threads = after.split()[0], after.split()[17]
        lines.append(f"pid {pid}, state {state}, {threads} thread(s), OOM score {score}{where}: {shown}")
        lines += [f"    {frame}" for frame in _text(folder / "stack").splitlines()[:_FRAMES]]
    if len(pids) > _PROCESSES:
        lines.append(f"and {len(pids) - _PROCESSES} more processes")
    return lines


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal (SigCgt in proc(5)); others would die of it."""
    for line in _text(Path("/proc", str(pid), "status")).splitlines():
        if line.startswith("SigCgt:"):
            with suppress(ValueError):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def hands_on(pid: int) -> bool:
    """Whether a process is a container runtime's, which seems to handle every signal and gives it to others."""
    return _text(Path("/proc", str(pid), "cmdline")).partition("\0")[0].startswith(_RUNTIMES)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
