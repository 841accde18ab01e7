"""Generic experiment: where transformations come from."""

from __future__ import annotations

import posixpath
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException, TrfDownloadFailure
from pilot.util.lazynames import lazily

if TYPE_CHECKING:
    from pilot.user.generic.transforms import *  # noqa: F403
else:
    __getattr__ = lazily(__name__, "pilot.user.generic.transforms")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\Z")


def get_valid_base_urls(order: str | None = None) -> list[str]:
    """Base URLs below which transformations may lie besides the server's own /trf, where nobody names others.

    order: one that is to be the first.
    """
    return [order] if order else []


def prepare_transformation(
    transformation: str, workdir: Path, base_urls: Sequence[str], fetch: Callable[[str], bytes]
) -> str:
    """Make a job's transformation callable in its directory and return how it is called.

    A URL must lie below one of the base URLs; it is downloaded and made executable. Anything else is a command: a
    path in the job's directory or on the node, or a name on the path. Raises TrfDownloadFailure,
    PilotException(TRANSFORMNOTFOUND, CHMODTRF).
    """
    if transformation.startswith(("http://", "https://")):
        return _download(transformation, workdir, base_urls, fetch)
    found = (workdir / transformation).exists() if "/" in transformation else shutil.which(transformation)
    if not found:
        text = f"transformation {transformation} is neither a URL nor a command on this node"
        raise PilotException(text, code=ErrorCodes.TRANSFORMNOTFOUND)
    return transformation


def is_below(url: str, base_urls: Sequence[str]) -> bool:
    """Whether a URL lies below one of the base URLs: same scheme and host, and a path that does not climb out again."""
    parts = urlsplit(url)
    # Clients and servers undo the quoting of dots before they follow them.
    path = posixpath.normpath(unquote(parts.path))
    for base in base_urls:
        allowed = urlsplit(base)
        root = allowed.path.rstrip("/") + "/"
        if (
            (parts.scheme, parts.netloc) == (allowed.scheme, allowed.netloc)
            and f"{path}/".startswith(root)
            and path != root[:-1]
        ):
            return True
    return False


def _download(url: str, workdir: Path, base_urls: Sequence[str], fetch: Callable[[str], bytes]) -> str:
    if not is_below(url, base_urls):
        raise TrfDownloadFailure(
            f"{url} lies below none of the allowed base URLs ({', '.join(base_urls)}); see --baseurls"
        )
    name = posixpath.basename(urlsplit(url).path)
    if not _NAME.match(name):
        raise TrfDownloadFailure(f"{url}: '{name}' is no valid name for a script")
    try:
        script = fetch(url)
    except PilotException as exc:
        raise TrfDownloadFailure(exc.diag) from exc
    if not script:
        raise TrfDownloadFailure(f"{url} is empty")
    path = workdir / name
    try:
        path.write_bytes(script)
        path.chmod(0o755)
    except OSError as exc:
        raise PilotException(f"{path} could not be made executable: {exc.strerror}", code=ErrorCodes.CHMODTRF) from exc
    return f"./{name}"
