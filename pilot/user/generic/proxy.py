"""Generic experiment: whether a proxy will do."""

from __future__ import annotations

import os
import time

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import PilotException
from pilot.util.proxy import read_proxy, verdict


def verify_proxy(limit: float | None = None, x509: str | None = None) -> tuple[int, str]:
    """Whether a proxy, with its VOMS attributes if it has any, is good for so many hours (default: now).

    x509: its file (default: what X509_USER_PROXY names). Returns error code and diagnostics: (0, "") when it is good;
    NOPROXY, NOVOMSPROXY, CERTIFICATEHASEXPIRED, VOMSPROXYABOUTTOEXPIRE or PROXYTOOSHORT.
    """
    path = x509 or os.environ.get("X509_USER_PROXY", "")
    if not path:
        return ErrorCodes.NOPROXY, "X509_USER_PROXY names no proxy"
    try:
        problem = verdict(read_proxy(path), time.time(), (limit or 0.0) * 3600)
    except PilotException as exc:
        problem = exc
    return (problem.code, problem.diag) if problem is not None else (0, "")
