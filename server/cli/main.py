"""The command `pilotkit`: the group and what all of it has in common."""

from __future__ import annotations

import os
import sys
from typing import Final

import click

from pilot import __version__
from server.cli.config import config
from server.cli.daemon import daemon
from server.cli.datasets import datasets
from server.cli.db import db
from server.cli.debug import debug
from server.cli.demo import demo
from server.cli.errors import EXIT_INTERRUPTED
from server.cli.harvester import harvester
from server.cli.job import job
from server.cli.jobs import jobs, kill, submit
from server.cli.log import log
from server.cli.metrics import metrics
from server.cli.nodes import node
from server.cli.options import address_options
from server.cli.queues import queue
from server.cli.recover import recover
from server.cli.retries import retries
from server.cli.serve import serve
from server.cli.shares import shares
from server.cli.sites import site
from server.cli.storages import storage
from server.cli.task import task
from server.cli.token import token
from server.cli.users import user

HELP: Final = """Run and use a pilotkit dispatcher.

\b
Examples:
  pilotkit serve                      start a server here
  pilotkit queue add queues.json      describe a queue to it
  pilotkit submit job.json            give it work
  pilotkit jobs                       see how it goes

\b
Exit codes:
  0  done
  1  the server refused, or there is no such job or queue
  2  wrong options, or a file that cannot be read
  3  no server answers
  4  job --wait: the job did not finish
  5  job --wait: it is not over yet
"""


@click.group(help=HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="pilotkit")
@address_options
def pilotkit() -> None:
    """The group; its help is HELP."""


for command in (
    serve,
    daemon,
    db,
    queue,
    storage,
    submit,
    jobs,
    job,
    datasets,
    log,
    debug,
    kill,
    shares,
    node,
    token,
    user,
    config,
    retries,
    task,
    site,
    harvester,
    metrics,
    recover,
    demo,
):
    pilotkit.add_command(command)


def main() -> None:
    """Run the command line and leave with its exit code."""
    try:
        code = pilotkit.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        click.echo("pilotkit: interrupted", err=True)
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output left ("pilotkit jobs | head"): nothing more to say to anybody
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


if __name__ == "__main__":
    main()
