"""Stage-out outside a pilot: python -m pilot.scripts.stageout REQUEST.json (see docs/copytools.md)."""

from __future__ import annotations

import sys

from pilot.common.missing import tell_missing


def main() -> int:
    """The exit code of the script."""
    try:
        from pilot.api.data import StageOutClient
        from pilot.scripts import staging
    except ModuleNotFoundError as exc:
        return tell_missing("stageout", exc)
    return staging.main(StageOutClient)


if __name__ == "__main__":
    sys.exit(main())
