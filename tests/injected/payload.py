"""Faults of payloads: what they end with, what they use too much of, and what they leave or do not leave behind."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

import pytest

from pilot.common.errorcodes import ErrorCodes as C
from tests.injected.fault import BY_KERNEL, BY_LIMIT, BY_PAYLOAD, BY_STAGEOUT, Fault, Scene
from tests.pilots import Pilot

# Looks at a payload every few tenths of a second, where a pilot takes a minute.
QUICK_MEMORY = "[Payload]\nmemory_check_first = 0.2\nmemory_check = 0.3\nmemory_check_near = 0.2\nmemory_samples = 3\n"
QUICK_LOOPING = "[Payload]\nmemory_check_first = 0.2\nlooping_check = 0.5\nlooping_limit = 2\nlooping_cpu = 0.1\n"
QUICK_SIZES = "[Payload]\nstdout_check = 0.2\noutput_check = 0.2\n"

_MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")


def exits(name: str, script: str, trans: int, *said: str, code: int = C.PAYLOADEXECUTIONFAILURE) -> Fault:
    """A payload that just ends."""
    return Fault(name, f"`{script}`", code, "payload", BY_PAYLOAD, said, script, trans=trans)


def step(command: str, args: str = "") -> str:
    """A command around the payload, as a job's definition has it."""
    return json.dumps({"command": command, "args": args})


def _slot_group(scene: Scene) -> None:
    """A control group as a batch system makes one for a slot, which kills at 150 MB."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    ours = next((line.split(":", 2)[2] for line in lines if line.split(":")[1] == "memory"), None)
    if os.geteuid() != 0 or ours is None or not os.access(_MEMORY_GROUPS, os.W_OK):
        pytest.skip("no memory control group of version 1 can be made here: that needs root and its controller")
    group = Path(f"{_MEMORY_GROUPS}{ours}") / f"pilotkit-test-{uuid.uuid4().hex[:8]}"
    group.mkdir()
    scene.stack.callback(group.rmdir)
    (group / "memory.limit_in_bytes").write_text(str(150 * 2**20))
    scene.env["PILOTKIT_TEST_GROUP"] = str(group)


def _enter_group(scene: Scene, pilot: Pilot) -> None:
    """Before the pilot has started anything."""
    Path(scene.env["PILOTKIT_TEST_GROUP"], "cgroup.procs").write_text(str(pilot.pid))
    pilot.wait()


def _disk_of_16_megabytes(scene: Scene) -> None:
    from tests.disks import small_disk

    disk = scene.stack.enter_context(small_disk(16))
    scene.options += ["-a", str(disk)]
    scene.settings += "[File]\nspace_to_start = 1000000\n"


FAULTS = (
    Fault(
        "a command before the payload fails", "pre-process `sh -c 'echo no licence >&2; exit 4'`",
        C.PREPROCESSFAILURE, "payload", BY_PAYLOAD, ("preprocess: exit code 4", "no licence"),
        job={"preprocess": step("sh", "-c 'echo no licence >&2; exit 4'")}, trans=4,
    ),
    Fault(
        "a command after the payload fails", "post-process `false`",
        C.POSTPROCESSFAILURE, "payload", BY_PAYLOAD, ("postprocess: exit code 1",),
        job={"postprocess": step("false")}, trans=1,
    ),
    exits("the payload says no", "echo this went wrong >&2; exit 3", 3, "exit code 3", "this went wrong"),
    exits("the payload says no, without a word", "exit 255", 255, "exit code 255"),
    exits("the payload calls what does not exist", "no-such-program --help", 127, "exit code 127", "not found"),
    exits(
        "the payload is a file that is no program", "printf '\\177ELF?' > p; chmod +x p; ./p", 126,
        "exit code 126", "Exec format error",
    ),
    exits("the payload is killed by somebody", "kill -9 $$", 137, "signal 9, not sent by the pilot"),
    exits("the payload aborts", "kill -ABRT $$", 134, "signal 6"),
    exits("the payload crashes", "kill -SEGV $$", 139, "signal 11", code=C.PAYLOADSIGSEGV),
    exits(
        "the payload's shell tells of a crash", "sh -c 'kill -SEGV $$'", 139, "exit code 139", code=C.PAYLOADSIGSEGV
    ),
    exits(
        "the system has no memory for the payload", "echo \"what(): std::bad_alloc\" >&2; exit 1", 1, "std::bad_alloc",
        code=C.BADALLOC,
    ),
    Fault(
        "the payload does not know its arguments", "argparse refuses `--evnets`", C.UNRECOGNIZEDTRFARGUMENTS, "user",
        BY_PAYLOAD, ("unrecognized arguments: --evnets",),
        program="import argparse; argparse.ArgumentParser().parse_args(['--evnets'])", trans=2,
    ),
    Fault(
        "the payload reports an error of its own", "jobReport.json with exitCode 65 and exitMsg, exit code 65",
        C.PAYLOADEXECUTIONFAILURE, "payload", BY_PAYLOAD, ("exit code 65",),
        """echo '{"exitCode": 65, "exitMsg": "no events left"}' > jobReport.json; exit 65""", trans=65, exe=65,
    ),
    Fault(
        "the payload leaves a job report that is none", "a jobReport.json that is cut, and exit code 4",
        C.PAYLOADEXECUTIONFAILURE, "payload", BY_PAYLOAD, ("exit code 4",),
        """echo '{"exitCode": 65, ' > jobReport.json; exit 4""", trans=4,
    ),
    Fault(
        "the payload uses more memory than its job may", "88 MB allocated, minRamCount 80", C.PAYLOADEXCEEDMAXMEM,
        "payload", BY_LIMIT,
        ("80 MB are allowed (minRamCount of the job)", "over it 3 time(s) in a row", "largest: python3"),
        program="import time; time.sleep(0.3); b = bytearray(b'x') * (88 * 2**20); time.sleep(60)",
        job={"minRamCount": 80}, settings=QUICK_MEMORY,
    ),
    Fault(
        "the kernel kills the payload for memory", "400 MB allocated in a control group of 150 MB",
        C.PAYLOADOUTOFMEMORY, "payload", BY_KERNEL,
        ("killed for memory in control group", "which may hold 150 MB"),
        program="import time; time.sleep(1); b = bytearray(b'x') * (400 * 2**20)",
        settings=QUICK_MEMORY, before=_slot_group, during=_enter_group, when="activated", trans=137,
    ),
    Fault(
        "the payload hangs", "a sleep, and a looping limit of 2 s", C.LOOPINGJOB, "payload", BY_LIMIT,
        ("no CPU time", "2 s are allowed"), "exec sleep 60", settings=QUICK_LOOPING,
    ),
    Fault(
        "the payload prints too much", "3 MB on stdout, 1 MB is the limit", C.STDOUTTOOBIG, "payload", BY_LIMIT,
        ("the payload's stdout and stderr have", "bytes, 1048576 are allowed"),
        "yes | head -c 3000000; exec sleep 60",
        settings=QUICK_SIZES + "stdout_limit = 1024\n",
    ),
    Fault(
        "the payload fills its work directory", "3 MB of scratch, maxwdir 1", C.USERDIRTOOLARGE, "payload", BY_LIMIT,
        ("the job's directory has", "the queue allows 1048576"),
        "head -c 3000000 /dev/zero > scratch; exec sleep 60", queue={"maxwdir": 1},
        settings=QUICK_SIZES,
    ),
    Fault(
        "an output grows too large", "200 kB in out.bin, 100 kB is the limit", C.OUTPUTFILETOOLARGE, "payload",
        BY_LIMIT,
        ("out.bin", "has 200000 bytes already, 100000 are allowed"),
        "head -c 200000 /dev/zero > part; mv part out.bin; exec sleep 60", job={"outFiles": "out.bin"},
        settings=QUICK_SIZES + "[File]\noutput_limit = 100000\n",
    ),
    Fault(
        "an output is too large at the end", "the same, by a payload that ends at once", C.OUTPUTFILETOOLARGE,
        "payload", BY_STAGEOUT, ("out.bin has 200000 bytes, 100000 are allowed",), "head -c 200000 /dev/zero > out.bin",
        job={"outFiles": "out.bin"}, settings="[File]\noutput_limit = 100000\n",
    ),
    Fault(
        "an output was not made", "`true`, with an output missing.txt", C.MISSINGOUTPUTFILE, "payload", BY_STAGEOUT,
        ("the payload has not made missing.txt", "its directory holds"), job={"outFiles": "missing.txt"},
    ),
    Fault(
        "an output is empty", "`touch empty.txt`", C.EMPTYOUTPUTFILE, "payload", BY_STAGEOUT, ("empty.txt is empty",),
        "touch empty.txt", job={"outFiles": "empty.txt"},
    ),
    Fault(
        "an output is a link to a file of the node", "`ln -s /etc/passwd out.txt`", C.MISSINGOUTPUTFILE, "payload",
        BY_STAGEOUT, ("out.txt is a link that leads out of the job's directory",), "ln -s /etc/passwd out.txt",
        job={"outFiles": "out.txt"},
    ),
    Fault(
        "the payload removes its own directory", "`rm -rf` of it", C.MISSINGOUTPUTFILE, "payload", BY_STAGEOUT,
        ("the job's directory cannot be looked into",), 'rm -rf "$PWD"', job={"outFiles": "out.txt"},
    ),
    Fault(
        "an output that the job report names is the pilot's own", "jobReport.json with payload.stdout as output",
        C.BADOUTPUTFILENAME, "user", BY_STAGEOUT, ("payload.stdout", "one of the pilot's own files"),
        """echo '{"files": {"output": [{"subFiles": [{"name": "payload.stdout"}]}]}}' > jobReport.json""",
    ),
    Fault(
        "a pattern of outputs matches nothing but the pilot's own files", "`true`, with an output payload.*",
        C.MISSINGOUTPUTFILE, "payload", BY_STAGEOUT, ("the payload has not made payload.*",),
        job={"outFiles": "payload.*"},
    ),
    Fault(
        "the payload fills the disk", "a work disk of 16 MB", C.NOLOCALSPACE, "site", BY_PAYLOAD,
        ("bytes are free on the work disk"), "exec head -c 40000000 /dev/zero > scratch",
        before=_disk_of_16_megabytes, trans=1, shell=69, log=False,
    ),
)  # fmt: skip
