"""Functions with a time limit (documented names): in a process, which can be ended, or in a thread, which cannot."""

from __future__ import annotations

import functools
import multiprocessing
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from queue import Queue
from typing import TypeVar, Union

from pilot.common.exception import ExcThread

T = TypeVar("T")


class TimeoutException(Exception):
    """A function has not ended in time. timeout: its limit (s)."""

    def __init__(self, message: str, timeout: float | None = None, *args: object) -> None:
        """Take a text, the limit, and whatever else belongs to it."""
        super().__init__(message, *args)
        self.timeout = timeout
        self._message = message

    def __str__(self) -> str:
        """The text, and the limit."""
        return self._message if self.timeout is None else f"{self._message} (time limit: {self.timeout:g} s)"


class TimedProcess:
    """Runs a function in a process of its own, which is killed when its time is over.

    What the function returns or raises must be picklable; what it changes, it changes in its own process. Not for
    programs with threads that hold locks: the process begins as a copy of this one.
    """

    def __init__(self, timeout: float) -> None:
        """timeout: seconds."""
        self.timeout = timeout

    def run(
        self, func: Callable[..., T], args: Sequence[object], kwargs: Mapping[str, object], timeout: float | None = None
    ) -> T:
        """What the function returns, or raises. timeout: seconds, instead of its own. Raises TimeoutException."""
        limit = self.timeout if timeout is None else timeout
        # A function that was decorated, or defined within another, can only be handed on by forking.
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_answer, args=(theirs, func, args, kwargs), daemon=True)
        try:
            process.start()
            theirs.close()
            if not ours.poll(limit):
                raise TimeoutException(f"{_name(func)} has not ended in time", limit)
            succeeded, result = ours.recv()
        except EOFError:
            raise RuntimeError(f"the process of {_name(func)} has ended without a result") from None
        finally:
            ours.close()
            process.kill()
            process.join()
            process.close()
        if not succeeded:
            raise result
        return result  # type: ignore[no-any-return]  # as the function returned it


def _answer(pipe: Connection, func: Callable[..., T], args: Sequence[object], kwargs: Mapping[str, object]) -> None:
    try:
        answer: tuple[bool, object] = (True, func(*args, **kwargs))
    # The process's top: whatever it was goes to whoever waits for it.
    except BaseException as exc:
        traceback.print_exc()
        answer = (False, exc)
    pipe.send(answer)


class TimedThread:
    """Runs a function in a thread, which cannot be ended: after its time it goes on, and nobody waits for it."""

    def __init__(self, timeout: float) -> None:
        """timeout: seconds."""
        self.timeout = timeout

    def execute(
        self, func: Callable[..., T], args: Sequence[object], kwargs: Mapping[str, object]
    ) -> tuple[threading.Thread, Queue[T], Queue[BaseException]]:
        """Start the function; its thread, where its result will be, and where what it raises will be."""
        result: Queue[T] = Queue()
        raised: Queue[BaseException] = Queue()
        thread = ExcThread(raised, lambda: result.put(func(*args, **kwargs)), {}, _name(func))
        thread.daemon = True
        thread.start()
        return thread, result, raised

    def run(
        self, func: Callable[..., T], args: Sequence[object], kwargs: Mapping[str, object], timeout: float | None = None
    ) -> T:
        """What the function returns, or raises. timeout: seconds, instead of its own. Raises TimeoutException."""
        limit = self.timeout if timeout is None else timeout
        thread, result, raised = self.execute(func, args, kwargs)
        thread.join(limit)
        if thread.is_alive():
            raise TimeoutException(f"{_name(func)} has not ended in time", limit)
        if not raised.empty():
            raise raised.get()
        return result.get()


Timer = TimedProcess
AnyTimer = Union[type[TimedProcess], type[TimedThread]]


def timeout(seconds: float, timer: AnyTimer | None = None) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Decorate a function with a time limit (s). timer: TimedProcess, the default, or TimedThread.

    The function then raises TimeoutException when its time is over.
    """

    def decorate(func: Callable[..., T]) -> Callable[..., T]:
        @functools.wraps(func)
        def limited(*args: object, **kwargs: object) -> T:
            return (timer or Timer)(seconds).run(func, args, kwargs)

        return limited

    return decorate


def _name(func: Callable[..., object]) -> str:
    return str(getattr(func, "__name__", func))
