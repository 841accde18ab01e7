"""gfal2 as Debian has it: commands, and a module for its own Python (PyPI's gfal2-python does not build against it)."""

from __future__ import annotations

from tests.components import require_programs

# The Debian packages that these tests need; .ci/suite.py installs them where it may.
PACKAGES = (
    "gfal2-util-scripts",
    "python3-gfal2",
    "python3-gfal2-util",
    "gfal2-plugin-file",
    "gfal2-plugin-http",
    "gfal2-plugin-xrootd",
)
# gfal-copy starts the first python on the PATH, and the one of a virtual environment knows no gfal2.
ENVIRON = {"GFAL_PYTHONBIN": "/usr/bin/python3"}
# Where Debian's module gfal2 lies: only for the CPython that Debian itself has (3.11).
MODULES = "/usr/lib/python3/dist-packages"


def require_gfal() -> None:
    """Skip where gfal2 is not installed, and fail where CI=true promises that it is."""
    require_programs(["gfal-copy"], PACKAGES)
