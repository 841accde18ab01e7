#!/usr/bin/env python3
"""The pilot: what batch systems launch. `./pilot.py -q QUEUE` is enough; `./pilot.py --help` tells the rest."""

import sys

# Nodes still have older Pythons: this file must be readable for them, and say what is wrong.
if sys.version_info < (3, 9):  # noqa: UP036
    sys.exit("the pilot needs Python 3.9 or later, and this is %d.%d" % sys.version_info[:2])  # noqa: UP031


def main() -> int:
    """Parse the command line, run a pilot, return the exit code for the shell."""
    from pilot.arguments import parse

    args = parse(sys.argv[1:])
    try:
        from pilot.workflow.start import run_pilot
    except ModuleNotFoundError as exc:
        from pilot.common.missing import tell_missing

        return tell_missing("pilot.py", exc)
    return run_pilot(args)


if __name__ == "__main__":
    sys.exit(main())
