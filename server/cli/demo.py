"""`pilotkit demo`: the demonstration (server/demo/) as a command."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Run a real chain of jobs, from events to a fit.")
@click.option("--events", type=click.IntRange(100, 10_000_000), default=25_000, show_default=True, help="Events a job.")
@click.option("--jobs", type=click.IntRange(1, 100), default=4, show_default=True, help="Jobs that generate events.")
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the whole work folder (server, storage, logs) in this new folder.",
)
def demo(events: int, jobs: int, keep: Path | None) -> None:
    """Run a real chain of jobs: generate Z to mu mu events, then fit their mass.

    Starts a server of its own in a temporary folder, submits all jobs at once, starts pilots as a batch system would,
    and shows what came out. Needs the extra "demo" (pip install 'pilotkit[demo]') and less than a minute. The plot,
    the histogram and the logs are copied to ./demo-output. Exits with 1 if anything is not as it should be.

    \b
    Example:
      pilotkit demo --jobs 6 --keep /tmp/demo
    """
    from server.demo.run import run_demo  # here: what only this command needs

    raise SystemExit(run_demo(events=events, jobs=jobs, keep=keep))
