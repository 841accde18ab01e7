"""`pilotkit task`: all jobs of a task at once."""

from __future__ import annotations

import click

from server.cli.options import address_options, server


@click.group()
def task() -> None:
    """Tasks: hold back the jobs of one, and let them go."""


@task.command()
@click.argument("task_id", type=click.IntRange(1), metavar="TASK")
@click.option("--reason", default="", metavar="TEXT", help="Why; the history of each job says it.")
@address_options
def throttle(task_id: int, reason: str) -> None:
    """Take the jobs of TASK that no pilot has out of the queue. They are closed if nobody releases them in a week.

    \b
    Example:
      pilotkit task throttle 4711 --reason "too many failures"
    """
    with server() as client:
        number = client.post("job/throttle_task", {"task_id": task_id, "reason": reason})
    click.echo(f"task {task_id}: {number} jobs are throttled")


@task.command()
@click.argument("task_id", type=click.IntRange(1), metavar="TASK")
@address_options
def release(task_id: int) -> None:
    """Put the throttled jobs of TASK back into the queue.

    \b
    Example:
      pilotkit task release 4711
    """
    with server() as client:
        number = client.post("job/release_task", {"task_id": task_id})
    click.echo(f"task {task_id}: {number} jobs are released")
