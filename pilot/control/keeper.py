"""The keeper of the pilot's credentials: it reads them again when their files change, renews them at half their life,
and says before a job is asked for whether they last.

It has no thread of its own: the monitor calls it when the next thing is due, the job controller before each getJob, and
the reporter when the server has turned an update away. No credential itself ever reaches the log.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Callable

from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import NoGridProxy, PilotException
from pilot.control.kept import (
    MISSING,
    Issuer,
    Kept,
    Life,
    may_replace,
    pause_after,
    proxy_life,
    renewal_at,
    token_life,
)
from pilot.util import credentials
from pilot.util.config import TokenSettings
from pilot.util.https import Credentials
from pilot.util.proxy import date_of, parse_proxy, read_proxy, verdict

# What needs_proxy in a queue's catchall says for a proxy of any kind, when it does not name a VO.
ANY_PROXY = "True"
# Two looks are never closer than this (s), whatever lives the server gives.
_LEAST_PAUSE = 0.05
_STORAGE_TOKEN = "the token for storage"

# What the plugins' hook proxy.verify_proxy is: (hours that must be left, file) -> (error code or 0, what is wrong).
Verify = Callable[[float, str], "tuple[int, str]"]


class Keeper:
    """found: what the pilot shows to its dispatcher. named: whether its certificate was asked for by option or
    variable; one that merely lies in the usual place is only used as long as it is good. renew: False with
    --notokenrenewal; check: False with --noproxyverification. learn: called with the contents of
    each credential before it is used, so that it is known to be secret.

    credentials: `found` with the certificate's file as it is kept.
    """

    def __init__(
        self,
        found: Credentials,
        environ: Mapping[str, str],
        settings: TokenSettings,
        log: logging.Logger,
        *,
        named: bool = False,
        renew: bool = True,
        check: bool = True,
        learn: Callable[[bytes], None] = lambda contents: None,
    ) -> None:
        self._learn = learn
        self._environ = environ
        self._settings = settings
        self._log = log
        self._named = named
        self._renews = renew
        self._check = check
        # All that is asked of the server; and who renews, which may be nobody.
        self._server: Issuer | None = None
        self._issuer: Issuer | None = None
        self._use: Callable[[str], None] = lambda token: None
        self._folder: Path | None = None
        self._lock = threading.Lock()
        self._proxy_problem = ""
        self._certificate = self._keep_certificate(found.certificate)
        self._token = self._keep_token(found)
        self._storage = self._keep_storage_token()
        self._shown = [kept for kept in (self._token, self._certificate) if kept is not None]
        self._all = [*self._shown, *([self._storage] if self._storage else [])]
        self._told = self._contents()
        self.credentials = replace(found, certificate=str(self._certificate.path) if self._certificate else "")

    def attach(self, issuer: Issuer, use: Callable[[str], None]) -> None:
        """Renew from this server. use: called with the token to show from now on, also when only the proxy is new."""
        self._use = use
        self._server = issuer
        self._issuer = issuer if self._renews else None

    def close(self) -> None:
        """Remove the pilot's own copies."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def tool_environment(self, ca: str = "") -> dict[str, str]:
        """The environment of transfer tools: it stays the same while the files that it names are renewed."""
        certificate = str(self._certificate.path) if self._certificate else ""
        token = str(self._storage.path) if self._storage else ""
        return credentials.tool_environment(self._environ, certificate, token, ca)

    def places(self) -> list[Path]:
        """Files and folders that hold the pilot's credentials: nobody else is to see them."""
        folder = [self._folder] if self._folder is not None else []
        return [*folder, *(path for kept in self._all for path in (kept.source, kept.path))]

    def shown(self) -> str:
        """What the pilot shows to its dispatcher, in a line for the log; empty for nothing."""
        return " and ".join(f"{kept.name}{kept.until()}" for kept in self._shown)

    def refresh(self, eager: bool = False) -> float:
        """See to everything that is due; return the seconds until there is something to see to again.

        eager: renew now what would not last for a job.
        """
        with self._lock:
            for kept in self._all:
                self._read_again(kept)
                if self._is_due(kept, time.time(), eager):
                    self._renew(kept)
                self._warn(kept, time.time())
            self._tell()
            now = time.time()
            due = [self._renewal_at(kept) for kept in self._all if self._may_renew(kept)]
            ends = [kept.life.ends for kept in self._all if kept.life.ends > now]
            return max(_LEAST_PAUSE, min([self._settings.proxy_check, *(when - now for when in (*due, *ends))]))

    def fetch_proxy(self, role: str, dn: str) -> str:
        """A proxy of somebody else, for whom a job runs. role: as in getProxy, the pilot's own VO if empty.

        Raises NoGridProxy when the server has none for this pilot, or there is no server.
        """
        if self._server is None:
            raise NoGridProxy(f"there is no server to ask for the proxy of {dn}")
        own = parse_proxy(self._certificate.contents).vo if self._certificate and self._certificate.contents else ""
        try:
            proxy = self._server.get_proxy(role or own, dn, self._settings.renewal_timeout)
        except PilotException as exc:
            raise NoGridProxy(f"the proxy of {dn} with role {role or own or '(none)'}: {exc.diag}") from exc
        self._learn(proxy.encode())
        return proxy

    def readmit(self) -> bool:
        """The server has turned the pilot away: look for something better. Whether there is something new to show."""
        with self._lock:
            for kept in self._shown:
                self._read_again(kept)
            if self._contents() == self._told:
                for kept in self._shown:
                    if self._may_renew(kept) and time.time() >= kept.not_before:
                        self._renew(kept)
            return self._tell()

    def verdict(self, verify: Verify, needed: str) -> PilotException | None:
        """Why no job can be done with these credentials, or None.

        verify: the plugins' hook. needed: what the queue says in needs_proxy: nothing, ANY_PROXY, a VO, or `any` for
        VOMS attributes of whichever VO.
        """
        problem = self._proxy_verdict(verify, needed) if self._check else None
        if problem is not None or self._token is None:
            return problem
        kept, now = self._token, time.time()
        left, least = kept.life.left(now), self._least(kept)
        if left <= 0:
            text, code = f"{kept.name} ended at {date_of(kept.life.ends)}", ErrorCodes.CERTIFICATEHASEXPIRED
        elif left < least:
            text, code = f"{kept.name} ends in {left:.0f} s, {least:.0f} s are needed", ErrorCodes.PROXYTOOSHORT
        else:
            return None
        return PilotException(f"{text}{kept.why}", code=code)

    def time_left(self) -> float:
        """Seconds for which a job can count on the credentials: endless for those without end, or that are renewed."""
        now = time.time()
        counted = [self._token, self._certificate if self._check and self._named else None]
        return min([kept.life.left(now) for kept in counted if kept and not kept.is_renewed], default=float("inf"))

    def complaint(self) -> str:
        """A sentence about what the pilot shows to its dispatcher, when it has ended; else empty."""
        now = time.time()
        ended = [kept for kept in self._shown if kept.life.left(now) <= 0]
        return "; ".join(f"{kept.name} ended at {date_of(kept.life.ends)}{kept.why}" for kept in ended)

    def _proxy_verdict(self, verify: Verify, needed: str) -> PilotException | None:
        kept = self._certificate
        if kept is None:
            text = "the queue says needs_proxy, and the pilot has none"
            return NoGridProxy(f"{text}{self._proxy_problem}") if needed else None
        if needed in ("", ANY_PROXY):
            code, text = verify(self._least(kept) / 3600, str(kept.path))
            return PilotException(f"{text}{kept.why}", code=code) if code else None
        try:
            return verdict(read_proxy(kept.path), time.time(), self._least(kept), needed)
        except PilotException as exc:
            return exc

    def _least(self, kept: Kept) -> float:
        """Seconds that must be left of it. What the server renews lasts as long as it is renewed."""
        return 0.0 if kept.is_renewed else self._settings.least_life

    def _contents(self) -> list[bytes]:
        return [kept.contents for kept in self._shown]

    def _tell(self) -> bool:
        """Show the server what is new from the next request on. Whether there is something new."""
        contents = self._contents()
        if contents == self._told:
            return False
        self._told = contents
        self._use(self._token.contents.decode().strip() if self._token is not None else "")
        return True

    # ---- taking into keeping

    def _keep_certificate(self, path: str) -> Kept | None:
        if not path:
            return None
        renewable = False
        try:
            info = read_proxy(path)
            renewable = info.is_proxy
            problem = verdict(info, time.time())
        except PilotException as exc:
            problem = exc
        if problem is not None and not self._named:
            self._proxy_problem = f" ({path}: {problem.diag})"
            self._log.warning("%s is there, but is not used: %s", path, problem.diag)
            return None
        return self._keep("the pilot's proxy", Path(path), proxy_life, self._fetch_proxy if renewable else None)

    def _keep_token(self, found: Credentials) -> Kept | None:
        if not found.token:
            return None
        return self._keep("the pilot's token", Path(found.token_file), token_life, self._fetch_token)

    def _keep_storage_token(self) -> Kept | None:
        source = credentials.storage_token_file(self._environ, os.getuid())
        fetch = self._fetch_storage_token if self._settings.storage_client_name else None
        if source:
            return self._keep(_STORAGE_TOKEN, Path(source), token_life, fetch)
        if fetch is None or not self._renews:
            return None
        folder = self._own_folder(_STORAGE_TOKEN)
        path = folder / "storage_token" if folder else None
        return Kept(_STORAGE_TOKEN, path, path, token_life, fetch, life=MISSING) if path else None

    def _keep(
        self, name: str, source: Path, read: Callable[[bytes], Life], fetch: Callable[[Issuer, bytes], str] | None
    ) -> Kept:
        """One that will be renewed, and cannot be replaced where it is, is copied."""
        kept = Kept(name, source, source, read, fetch)
        if fetch is not None and self._renews and not may_replace(source):
            folder = self._own_folder(name)
            kept.path = folder / source.name if folder else source
            kept.fetch = fetch if folder else None
        self._read_again(kept)
        return kept

    def _own_folder(self, name: str) -> Path | None:
        """A folder that only this user may enter; None, with a line in the log, when there can be none."""
        try:
            self._folder = self._folder or Path(tempfile.mkdtemp(prefix="pilotkit-credentials-"))
        except OSError as exc:
            self._log.warning("%s will not be renewed, there is no place for it: %s", name, exc.strerror)
        return self._folder

    # ---- reading and renewing

    def _read_again(self, kept: Kept) -> None:
        is_first = not kept.contents
        try:
            fresh = kept.read_again()
            self._learn(kept.contents)
            if fresh and not is_first:
                self._log.info("%s was replaced by another%s", kept.name, kept.until())
        except OSError as exc:
            self._log.warning("%s cannot be kept at %s: %s", kept.name, kept.path, exc.strerror)

    def _may_renew(self, kept: Kept) -> bool:
        return self._issuer is not None and kept.fetch is not None

    def _renewal_at(self, kept: Kept) -> float:
        return renewal_at(kept.life, self._settings.renew_at, kept.not_before)

    def _is_due(self, kept: Kept, now: float, eager: bool) -> bool:
        if not self._may_renew(kept):
            return False
        is_short = eager and kept.life.left(now) < self._least(kept) and now >= kept.not_before
        return is_short or now >= self._renewal_at(kept)

    def _renew(self, kept: Kept) -> None:
        """Ask the server once. A failure is noted and tried again later: what is there may still be good."""
        if self._issuer is None or kept.fetch is None:
            return
        try:
            contents = kept.fetch(self._issuer, kept.contents).strip().encode() + b"\n"
            self._learn(contents)
            life = kept.read(contents)
            if not life.outlives(kept.life):
                raise ValueError("what the server sent ends no later")
            kept.adopt(contents, life, write=True)
        except (PilotException, ValueError, OSError) as exc:
            settings = self._settings
            kept.failures += 1
            left = kept.life.left(time.time())
            wait = pause_after(kept.failures, settings.renewal_pause, settings.proxy_check, left)
            kept.not_before = time.time() + wait
            kept.complaint = exc.diag if isinstance(exc, PilotException) else str(exc)
            self._log.warning("%s could not be renewed: %s; next try in %.1f s", kept.name, kept.complaint, wait)
            return
        kept.renewed = True
        self._log.info("%s is renewed%s", kept.name, kept.until())

    def _fetch_token(self, issuer: Issuer, present: bytes) -> str:
        return issuer.renew_token(self._settings.client_name, self._settings.renewal_timeout)

    def _fetch_storage_token(self, issuer: Issuer, present: bytes) -> str:
        return issuer.get_access_token(self._settings.storage_client_name, self._settings.renewal_timeout)

    def _fetch_proxy(self, issuer: Issuer, present: bytes) -> str:
        """Raises ValueError when the server sends that of somebody else."""
        info = parse_proxy(present)
        text = issuer.get_proxy(self._settings.proxy_role or info.role, info.identity, self._settings.renewal_timeout)
        fresh = parse_proxy(text.encode())
        if fresh.identity != info.identity:
            raise ValueError(f"the server sent the proxy of {fresh.identity} for that of {info.identity}")
        return text

    def _warn(self, kept: Kept, now: float) -> None:
        """Say it once when the end is near, and once when it has come. No payload is ended for it."""
        left = kept.life.left(now)
        level = 2 if left <= 0 else 1 if left < self._least(kept) else 0
        if level > kept.warned and kept.contents:
            kept.warned = level
            ends = "ended" if level == 2 else "ends"
            self._log.warning("%s %s at %s%s", kept.name, ends, date_of(kept.life.ends), kept.why)
