"""The guard: a tiny process between the pilot and a payload.

    python -I -S -c "... import guard; guard.main()" STATUS_FD MARK_FD GROUPS [GROUP HOME ...] COMMAND [ARGUMENT ...]

Standard input is a pipe from the pilot. When it closes, however the pilot died, the guard ends every descendant of the
payload and then itself. It is a child subreaper: a process that double-forks to get away becomes the guard's own child.
It touches nothing but its own descendants. It imports next to nothing, because it is in memory as long as the payload.

MARK_FD is a pipe that the command finds as descriptor 9 (the highest that every shell can write to), or -1 for none.
GROUPS says how many control groups follow, each with the one that the guard itself belongs to. The pilot puts the guard
into them while its Python starts, which hides the milliseconds that the kernel takes to move a process; the command is
born in there, and the guard goes home. By its groups the command is ended.

What the pilot may write to the pipe, a line each:

    go             the guard is where the command is to be born: start it
    stop SECONDS   TERM to all descendants, KILL to those left after so many seconds
    kill           KILL at once
    settle         the payload is there to stay: give back the memory that only the start needed

What the guard writes to STATUS_FD, a line each:

    started PID                        the payload's first process exists (it is its own process group)
    failed ERRNO                       the command could not be executed
    exit STATUS                        its first process ended; STATUS as of waitpid(2)
    done USER SYSTEM MAXRSS LEFT LOST  nothing is left. CPU seconds of the whole tree, largest resident set of one
                                       process (kB), how many processes had outlived the first, how many could not be
                                       killed
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
# Signals a batch system may send to all processes it knows: what happens to the payload is for the pilot to say.
IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
# Python ignores these two for itself; a payload expects the default.
PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)
# What the pilot says when the command is to start.
GO = b"go\n"
# The command's own descriptor for its mark: shells take one digit only, and programs use the low ones.
MARK = 9
# Time between two passes over processes that were killed but are not gone yet (s). It grows from the first to the
# second, since a process in an uninterruptible state may need long.
PASS_MIN, PASS_MAX = 0.002, 0.25
# After this many passes new processes are still being born: stop them all before killing, so that none can fork.
FREEZE_AFTER = 3
# A process that survives KILL for so long (s) is stuck in the kernel or belongs to somebody else: it is reported
# instead.
GIVE_UP_AFTER = 20.0


def children_of(pid: int) -> list[int]:
    """Pids of the children of all threads of `pid`; empty when it is gone."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children") as stream:
                found.extend(int(word) for word in stream.read().split())
        except FileNotFoundError:
            if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
                return children_by_scan(pid)
        except OSError:
            continue
    return found


def children_by_scan(pid: int) -> list[int]:
    """The same for kernels without /proc/PID/task/TID/children: read the parent of every process."""
    found: list[int] = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as stream:
                    # The command's name, in parentheses, may hold anything, blanks and parentheses too.
                    parent = int(stream.read().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            if parent == pid:
                found.append(int(name))
    return found


def descendants(root: int) -> list[int]:
    """All processes below `root`."""
    found: list[int] = []
    todo = children_of(root)
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo.extend(children_of(pid))
    return found


def send(pids: list[int], number: int) -> int:
    """Send a signal to processes that exist and are ours; return how many there were."""
    reached = 0
    for pid in pids:
        try:
            os.kill(pid, number)
            reached += 1
        except OSError:
            pass
    return reached


def write(path: str, text: str) -> bool:
    """Write to a file of the kernel's; return whether it took it."""
    try:
        with open(path, "w") as stream:
            stream.write(text)
    except OSError:
        return False
    return True


def enter_group(directory: str, pid: int) -> bool:
    """Put a process into a control group; return whether it was taken."""
    return write(f"{directory}/cgroup.procs", str(pid))


def end_group(directory: str) -> int:
    """KILL to all that is in a control group and in those below it; return how many processes were told so.

    At once where the kernel can (cgroup.kill, Linux 5.14); else one after the other, while none can be born where the
    group counts processes.
    """
    if write(f"{directory}/cgroup.kill", "1"):
        return 0
    write(f"{directory}/pids.max", "0")
    return sum(send(members(folder), signal.SIGKILL) for folder, _, _ in os.walk(directory))


def members(directory: str) -> list[int]:
    """Pids of the processes in a control group; empty when it is gone."""
    try:
        with open(f"{directory}/cgroup.procs") as stream:
            return [int(word) for word in stream.read().split()]
    except OSError:
        return []


def remove_group(directory: str) -> bool:
    """Remove a control group with those that were made below it; return whether it is gone. It must be empty."""
    for folder, _, _ in os.walk(directory, topdown=False):
        try:
            os.rmdir(folder)
        except OSError:
            continue
    return not os.path.exists(directory)


def settle() -> None:
    """Give back what only the start has needed."""
    # It lies beside this module, which is how the guard finds it; the pilot imports it by its full name.
    import footprint  # type: ignore[import-not-found]

    footprint.release_file_pages()


class Guard:
    """State of the guard: its payload's first process, and what was reaped so far."""

    def __init__(self, status_fd: int, groups: dict[str, str]) -> None:
        self.status_fd = status_fd
        self.homes = groups
        self.groups = list(groups)
        self.main = 0
        self.main_ended = False
        self.max_rss = 0
        self.user = 0.0
        self.system = 0.0

    def say(self, text: str) -> bool:
        """One line to the pilot; return whether it could be told. A pilot that is gone cannot."""
        try:
            os.write(self.status_fd, (text + "\n").encode())
        except OSError:
            return False
        return True

    def start(self, command: list[str]) -> None:
        """Fork and execute the payload. Returns when its program runs or could not be executed."""
        read_end, write_end = os.pipe()
        guard_pid = os.getpid()
        self.main = os.fork()
        if self.main == 0:
            try:
                os.setpgid(0, 0)
                for number in IGNORED + PYTHON_IGNORES:
                    signal.signal(number, signal.SIG_DFL)
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                # If the guard itself is killed, the kernel kills the payload's first process.
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                if os.getppid() != guard_pid:
                    os._exit(1)
                os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
                os.execvp(command[0], command)
            except OSError as exc:
                os.write(write_end, str(exc.errno).encode())
            finally:
                os._exit(127)
        os.close(write_end)
        problem = os.read(read_end, 16).decode()
        os.close(read_end)
        self.go_home()
        self.say(f"failed {problem}" if problem else f"started {self.main}")

    def go_home(self) -> None:
        """Leave the command's control groups. One that cannot be left cannot be ended either, but by the pilot."""
        self.groups = [group for group, home in self.homes.items() if enter_group(home, os.getpid())]

    def reap(self) -> bool:
        """Collect every child that has ended; return whether any child is left."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self.max_rss = max(self.max_rss, usage.ru_maxrss)
            self.user += usage.ru_utime
            self.system += usage.ru_stime
            if pid == self.main:
                self.main_ended = True
                self.say(f"exit {status}")

    def sweep(self) -> int:
        """Kill until no descendant is left; return how many could not be killed."""
        deadline = time.monotonic() + GIVE_UP_AFTER
        pause, passes = PASS_MIN, 0
        for group in self.groups:
            end_group(group)
        while self.reap():
            pids = descendants(os.getpid())
            passes += 1
            if passes > FREEZE_AFTER:
                send(pids, signal.SIGSTOP)
                pids = descendants(os.getpid())
            send(pids, signal.SIGKILL)
            if time.monotonic() > deadline:
                return len(pids)
            # Not a wait for something that could be waited for: a killed process that is not our child sends no signal.
            time.sleep(pause)
            pause = min(pause * 2, PASS_MAX)
        return 0

    def watch(self, wakeup_fd: int) -> int:
        """Wait for the first process's end, or for the pilot's word; return how many outlived the first."""
        poll = select.poll()
        poll.register(0, select.POLLIN)
        poll.register(wakeup_fd, select.POLLIN)
        deadline: float | None = None
        orders = b""
        while True:
            alive = self.reap()
            if self.main_ended:
                return len(descendants(os.getpid())) if alive else 0
            timeout = None if deadline is None else max(0, int((deadline - time.monotonic()) * 1000) + 1)
            ready = dict(poll.poll(timeout))
            if wakeup_fd in ready:
                os.read(wakeup_fd, 512)
            if 0 in ready:
                received = os.read(0, 512)
                orders += received
                if not received or b"kill\n" in orders:
                    return 0
                while b"\n" in orders:
                    line, _, orders = orders.partition(b"\n")
                    if line == b"settle":
                        settle()
                    elif line.startswith(b"stop "):
                        deadline = time.monotonic() + float(line[5:])
                        pids = descendants(os.getpid())
                        send(pids, signal.SIGTERM)
                        # A stopped process only dies of TERM once it goes on.
                        send(pids, signal.SIGCONT)
            if deadline is not None and time.monotonic() >= deadline:
                return 0


def main() -> None:
    """Run the payload and report. See the module's text."""
    status_fd, mark, count = (int(word) for word in sys.argv[1:4])
    command = sys.argv[4 + 2 * count :]
    groups = dict(zip(sys.argv[4 : 4 + 2 * count : 2], sys.argv[5 : 4 + 2 * count : 2]))
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    if mark >= 0:
        if status_fd == MARK:
            status_fd = os.dup(status_fd)
        if mark != MARK:
            os.dup2(mark, MARK)
            os.close(mark)
    os.set_inheritable(status_fd, False)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wakeup_fd, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    guard = Guard(status_fd, groups)
    if os.read(0, len(GO)) != GO:
        return
    guard.start(command)
    left = guard.watch(wakeup_fd)
    lost = guard.sweep()
    # The guard's own time counts too: it is part of what the payload costs.
    user = guard.user + time.process_time()
    told = guard.say(f"done {user:.3f} {guard.system:.3f} {guard.max_rss} {left} {lost}")
    # A pilot that lives looks into the groups once more, and removes them itself.
    if not told:
        for group in groups:
            remove_group(group)
