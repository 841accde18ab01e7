"""A server that speaks Google Cloud Storage for tests: gcp-storage-emulator.

It has MD5 and CRC32C of every object and resumable uploads. What it lacks: it asks nobody for credentials, so that
nothing is ever denied; it takes any signature of a URL; it ignores if_generation_match: an upload always replaces.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.components import environment_of_the_suite, running_daemon


@dataclass(frozen=True)
class GS:
    """A server that answers. data: the directory with its buckets, of which it has `bucket`."""

    port: int
    data: Path
    bucket: str = "bucket"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        """What google-cloud-storage reads; with it the library wants no credentials."""
        return {"STORAGE_EMULATOR_HOST": self.url, "GOOGLE_CLOUD_PROJECT": "test"}

    def gs(self, name: str) -> str:
        """URL of a file."""
        return f"gs://{self.bucket}/{name}"

    def path(self, name: str) -> Path:
        """Where a file lies: to look at it or to damage it (the emulator then still tells the old checksums)."""
        return self.data / self.bucket / name


def require_gs() -> None:
    """Skip where the server's environment is not there, and fail where CI=true promises that it is."""
    environment_of_the_suite("object-stores")


@contextmanager
def running_gs() -> Iterator[GS]:
    """A server for the time of a block, at once."""
    programs = environment_of_the_suite("object-stores") / "bin"
    with tempfile.TemporaryDirectory(prefix="pilotkit-gs-", dir="/tmp") as folder:

        def command(port: int) -> list[str]:
            return [
                str(programs / "python"), str(programs / "gcp-storage-emulator"), "-d", f"{folder}/data", "start",
                "--host", "127.0.0.1", "--port", str(port), "--default-bucket", GS.bucket,
            ]  # fmt: skip

        with running_daemon("Google storage", command, Path(folder)) as port:
            yield GS(port, Path(folder, "data", ".cloudstorage"))
