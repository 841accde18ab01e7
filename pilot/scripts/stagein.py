"""Stage-in outside a pilot: python -m pilot.scripts.stagein REQUEST.json (see docs/copytools.md)."""

from __future__ import annotations

import sys

from pilot.api.data import StageInClient
from pilot.scripts import staging


def main() -> int:
    """The exit code of the script."""
    return staging.main(StageInClient)


if __name__ == "__main__":
    sys.exit(main())
