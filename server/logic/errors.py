"""Errors of the dispatcher's own domain. They carry what they are about; only the routes know how HTTP says it."""

from __future__ import annotations


class DispatcherError(Exception):
    """Something that cannot be done, in words for the one who asked."""


class BadField(DispatcherError):
    """A field of a request has a value that cannot be used; nothing was changed.

    Attributes:
        field: its name as the caller wrote it.
        why: what is wrong with it, to follow the name in a sentence.
    """

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field} {why}")
        self.field = field
        self.why = why


class BadJob(DispatcherError):
    """A job cannot be submitted; none of the jobs of its submission was.

    Attributes:
        index: its place in the submission, from 0.
        field: the field that is wrong, as the submitter wrote it; empty if the job as a whole is.
        why: what is wrong with it.
    """

    def __init__(self, index: int, field: str, why: str) -> None:
        super().__init__(f"job {index}, field '{field}': {why}" if field else f"job {index} {why}")
        self.index = index
        self.field = field
        self.why = why


class NotFound(DispatcherError):
    """There is no such job, queue or file."""


class BadCredential(DispatcherError):
    """A token or certificate is not good, here or any more. The text says why, and never shows it."""


class NotAllowed(DispatcherError):
    """It exists, but this caller may not touch it."""


class Conflict(DispatcherError):
    """It cannot be done because of what is already there."""
