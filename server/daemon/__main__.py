"""`python -m server.daemon`: run the daemon with the settings of the environment (PILOTKIT_*)."""

from __future__ import annotations

import argparse
import sys

from server.daemon import service
from server.settings import ConfigurationError, Settings


def main(arguments: list[str] | None = None) -> int:
    """Run the daemon until it is stopped; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m server.daemon", description=__doc__)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--watch-stdin", action="store_true", help="stop when standard input is closed")
    how.add_argument("--in-background", action="store_true", help="say on standard input when it is ready")
    options = parser.parse_args(arguments)
    try:
        settings = Settings.from_environment()
        service.run(settings, watch_stdin=options.watch_stdin, in_background=options.in_background)
    except ConfigurationError as error:
        print(f"pilotkit daemon: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
