"""Stage-out outside a pilot: python -m pilot.scripts.stageout REQUEST.json (see docs/copytools.md)."""

from __future__ import annotations

import sys

from pilot.api.data import StageOutClient
from pilot.scripts import staging


def main() -> int:
    """The exit code of the script."""
    return staging.main(StageOutClient)


if __name__ == "__main__":
    sys.exit(main())
