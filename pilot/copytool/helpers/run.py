"""Start a helper: python run.py NAME FD. FD is its end of a socket, on which `channel` says what is spoken.

It runs under whatever Python has the library that it is for, so nothing but our own package is put in that Python's
way, and nothing from the directory it is started in, which is the payload's.
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2]


def main() -> None:
    """Serve until the pilot closes its end."""
    name, descriptor = sys.argv[1], int(sys.argv[2])
    # The folder of this script, unless PYTHONSAFEPATH has kept it out.
    sys.path[:1] = [path for path in sys.path[:1] if Path(path).resolve() != FOLDER / "copytool" / "helpers"]
    spec = spec_from_file_location("pilot", FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)])
    assert spec is not None and spec.loader is not None  # a file that is there has both
    package = module_from_spec(spec)
    sys.modules["pilot"] = package
    spec.loader.exec_module(package)
    importlib.import_module("pilot.copytool.helpers.channel").serve(name, descriptor)


if __name__ == "__main__":
    main()
