"""The build of the pilotkit distribution. Name and dependencies are in pyproject.toml.

What lies beside the packages in a checkout goes into the wheel as well, so that an installed pilotkit is whole:

    pilot.py                  stays beside the package pilot/, as in a checkout: Python prefers a package to a module of
                              the same name, so "import pilot" means the package for both
    default.cfg, wrappers/*   to pilot/launch/, because names as common as these do not belong into site-packages;
                              pilot.util.config and "pilotkit demo" look there when there is no checkout around them
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
LAUNCH = Path("pilot", "launch")


def version() -> str:
    """The version, read as text: setuptools' own way would import pilot.py, which it finds before the package."""
    found = re.search(r'^__version__ = "(.+)"$', (ROOT / "pilot" / "__init__.py").read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit('pilot/__init__.py has no line __version__ = "..."')
    return found.group(1)


def launch_files() -> dict[Path, Path]:
    """Every file of the launch layer: its place in the checkout -> its place in the wheel, both relative."""
    wrappers = sorted(path.relative_to(ROOT) for path in (ROOT / "wrappers").iterdir() if path.is_file())
    return {
        Path("pilot.py"): Path("pilot.py"),
        **{path: LAUNCH / path for path in (Path("default.cfg"), *wrappers)},
    }


class BuildWithLaunchFiles(build_py):
    """Collects the packages as always, then the launch files."""

    def run(self) -> None:
        """Build; an editable installation needs no copies, since it is the checkout."""
        super().run()
        if not self.editable_mode:
            for source, target in launch_files().items():
                destination = Path(self.build_lib, target)
                destination.parent.mkdir(parents=True, exist_ok=True)
                self.copy_file(str(ROOT / source), str(destination))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """What the build makes, for whoever installs from it."""
        copies = [] if self.editable_mode else [str(Path(self.build_lib, target)) for target in launch_files().values()]
        return [*super().get_outputs(include_bytecode), *copies]

    def get_source_files(self) -> list[str]:
        """What the build reads: this is how the launch files get into a source distribution."""
        return [*super().get_source_files(), *map(str, launch_files())]


setup(version=version(), cmdclass={"build_py": BuildWithLaunchFiles})
