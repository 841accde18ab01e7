"""Stage-in outside a pilot: python -m pilot.scripts.stagein REQUEST.json (see docs/copytools.md)."""

from __future__ import annotations

import sys

from pilot.common.missing import tell_missing


def main() -> int:
    """The exit code of the script."""
    try:
        from pilot.api.data import StageInClient
        from pilot.scripts import staging
    except ModuleNotFoundError as exc:
        return tell_missing("stagein", exc)
    return staging.main(StageInClient)


if __name__ == "__main__":
    sys.exit(main())
