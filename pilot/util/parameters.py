"""Values from parameters and settings (documented names)."""

from __future__ import annotations

from pilot.util.config import read


def convert_to_int(parameter: object, default: int | None = None) -> int | None:
    """The whole number that a value is or says; `default` for what is none."""
    try:
        return int(parameter)  # type: ignore[call-overload, no-any-return]  # whatever int() takes
    except (TypeError, ValueError, OverflowError):
        return default


def get_maximum_input_sizes() -> int:
    """How large all inputs of a job may be together (MB), where the queue does not say: input_limit in [File]."""
    return read().file.input_limit
