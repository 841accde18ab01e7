"""What other processes of the same user can read of a pilot's environment and memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_HIDER = """
import os, sys
from pilot.util.hiding import hide
done = hide({"SECRET_TOKEN"})
print(done, os.environ["SECRET_TOKEN"], flush=True)
sys.stdin.read()
"""


def _hiding() -> tuple[str, bytes, str]:
    """What the process says, its environment as root sees it, and who it belongs to."""
    env = {"PATH": os.environ["PATH"], "SECRET_TOKEN": "c4na7y", "PLAIN": "seen", "PYTHONPATH": os.getcwd()}
    process = subprocess.Popen(
        [sys.executable, "-c", _HIDER], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    with process, process.stdin, process.stdout:
        said = process.stdout.readline().strip()
        shown = Path(f"/proc/{process.pid}/environ").read_bytes() if os.geteuid() == 0 else b"PLAIN=seen"
        owner = Path(f"/proc/{process.pid}/environ").stat().st_uid
        process.stdin.close()
    return said, shown, str(owner)


def test_a_secret_is_in_the_environment_that_python_knows_and_not_in_the_one_that_others_see() -> None:
    said, shown, owner = _hiding()
    assert said == "True c4na7y"
    assert b"c4na7y" not in shown and b"PLAIN=seen" in shown
    # The kernel gives what may not be dumped to root, so that no other process of the user can open it.
    assert owner == "0"
