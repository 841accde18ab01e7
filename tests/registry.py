"""A registry of container images for tests: Debian's docker-registry on loopback, and calls that put images into it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin

from tests.components import require_programs, running_daemon

PACKAGES = ("docker-registry",)
_CONFIG = """version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {data}}}}}
http: {{addr: 127.0.0.1:{port}}}
"""
_OCI = "application/vnd.oci.image"


@dataclass(frozen=True)
class Registry:
    """host: 127.0.0.1:PORT, as it stands in an image's address."""

    host: str

    def docker(self, name: str) -> str:
        """The address of an image, "name:tag"."""
        return f"docker://{self.host}/{name}"

    def put(self, name: str, folder: Path) -> None:
        """Make an image of one layer, with all that is in a folder. name: "name:tag"."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(folder, arcname=".")
        layer = gzip.compress(packed.getvalue())
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(packed.getvalue())]},
        }
        repository, _, tag = name.partition(":")
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": self._blob(repository, json.dumps(config).encode(), f"{_OCI}.config.v1+json"),
            "layers": [self._blob(repository, layer, f"{_OCI}.layer.v1.tar+gzip")],
        }
        self._call(
            "PUT", f"/v2/{repository}/manifests/{tag}", json.dumps(manifest).encode(), str(manifest["mediaType"])
        )

    def _blob(self, repository: str, contents: bytes, kind: str) -> dict[str, object]:
        digest = _digest(contents)
        place = self._call("POST", f"/v2/{repository}/blobs/uploads/", b"")
        self._call("PUT", f"{place}&digest={digest}" if "?" in place else f"{place}?digest={digest}", contents)
        return {"mediaType": kind, "digest": digest, "size": len(contents)}

    def _call(self, method: str, path: str, body: bytes, kind: str = "application/octet-stream") -> str:
        """One call; the address that it answers with."""
        request = urllib.request.Request(
            urljoin(f"http://{self.host}", path), body, {"Content-Type": kind}, method=method
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return str(answer.headers.get("Location", ""))


def _digest(contents: bytes) -> str:
    return f"sha256:{hashlib.sha256(contents).hexdigest()}"


@contextmanager
def running_registry() -> Iterator[Registry]:
    """A registry for the time of a block, with nothing in it."""
    require_programs(["docker-registry"], PACKAGES)
    with tempfile.TemporaryDirectory(prefix="pilotkit-registry-", dir="/tmp") as temporary:
        folder = Path(temporary)

        def command(port: int) -> list[str]:
            config = folder / "config.yml"
            config.write_text(_CONFIG.format(data=folder / "data", port=port))
            return ["docker-registry", "serve", str(config)]

        with running_daemon("registry", command, folder) as port:
            yield Registry(f"127.0.0.1:{port}")
