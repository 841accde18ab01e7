"""`python -m server.daemon`: run the daemon with the settings of the environment (PILOTKIT_*)."""

from __future__ import annotations

import argparse
import logging
import sys

from server.daemon.config import Script, read_scripts
from server.daemon.runner import Runner
from server.daemon.worker import load
from server.db.database import DatabaseUnusable, complaint_about_url, shown_url
from server.db.migrate import migrate
from server.settings import ConfigurationError, Settings


def main(arguments: list[str] | None = None) -> int:
    """Run the daemon until it is stopped; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m server.daemon", description=__doc__)
    parser.add_argument("--watch-stdin", action="store_true", help="stop when standard input is closed")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        settings = Settings.from_environment()
        scripts = read_scripts(settings.daemon_config)
        settings.data_path().mkdir(parents=True, exist_ok=True)
        if complaint := complaint_about_url(settings.database_url()):
            raise DatabaseUnusable(f"The database {shown_url(settings.database_url())} cannot be used: {complaint}.")
        migrate(settings.database_url())
    except (ConfigurationError, DatabaseUnusable, OSError) as error:
        print(f"pilotkit daemon: {error}", file=sys.stderr)
        return 1
    Runner(settings, [script for script in scripts if _is_usable(script)], watch_stdin=options.watch_stdin).run()
    return 0


def _is_usable(script: Script) -> bool:
    """Whether we have a script's module; if not, one line says so. Loaded here, it is there for all workers."""
    try:
        load(script)
    except (ImportError, AttributeError) as error:
        print(f"pilotkit daemon: the script {script.name} is left out: {error}", file=sys.stderr, flush=True)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
