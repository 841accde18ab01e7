"""What goes wrong in a command: one sentence on stderr and an exit code that scripts can rely on."""

from __future__ import annotations

from typing import IO, Final

import click

# Exit codes of every command, stated in `pilotkit --help`.
EXIT_REFUSED: Final = 1  # the server said no, or there is no such job or queue
EXIT_USAGE: Final = 2  # wrong options or an unreadable file (click's own code)
EXIT_UNREACHABLE: Final = 3  # no server, or something else answers there
EXIT_JOB_FAILED: Final = 4  # job --wait: the job is over and not finished
EXIT_TIMEOUT: Final = 5  # job --wait: still not over
EXIT_INTERRUPTED: Final = 130  # Ctrl-C: 128 + SIGINT, as shells have it


class CommandError(click.ClickException):
    """A command cannot do what was asked; the message says what is wrong and what to do."""

    exit_code = EXIT_REFUSED

    def show(self, file: IO[str] | None = None) -> None:
        """Print the message; without click's "Error:", the command's name says enough."""
        click.echo(f"pilotkit: {self.message}", file=file, err=file is None)


class Refused(CommandError):
    """The server answered, and the answer is no."""


class BadInput(CommandError):
    """A file or value given on the command line cannot be used."""

    exit_code = EXIT_USAGE


class Unreachable(CommandError):
    """No server of ours at the address."""

    exit_code = EXIT_UNREACHABLE


class JobNotFinished(CommandError):
    """A job that was waited for ended otherwise."""

    exit_code = EXIT_JOB_FAILED


class StillRunning(CommandError):
    """A job that was waited for is not over in time."""

    exit_code = EXIT_TIMEOUT
