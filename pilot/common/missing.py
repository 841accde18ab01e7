"""What a program of ours says on a node whose Python lacks a module that it needs."""

from __future__ import annotations

import sys

from pilot.common.errorcodes import ErrorCodes, shell_exit_code


def tell_missing(program: str, error: ModuleNotFoundError) -> int:
    """Say on stderr what to install; returns the exit code for that."""
    advice = "install it, or start this with a Python that has it"
    print(f"{program}: {sys.executable} has no module {error.name}: {advice}", file=sys.stderr)
    return shell_exit_code(ErrorCodes.MIDDLEWAREIMPORTFAILURE)
