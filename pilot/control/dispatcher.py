"""The dispatcher's interface as the pilot uses it: one client for both generations of the wire.

Which generation a server speaks is found out once, with the first call that needs to know (wire.md, section 8).
Inside the pilot all bodies have the legacy names; pilot.info.wire translates.
"""

from __future__ import annotations

import math
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from pilot.info import wire
from pilot.util.https import HttpClient, Json, Reply, RequestFailed, RetryPolicy, with_retries

# Codes of a legacy answer (wire.md, section 3).
_SUCCESS, _TIMEOUT, _NO_JOBS, _DB_ERROR = 0, 10, 20, 30
# A token key is missing, or is not the one.
_KEY_WANTED = (80, 50)

# HTTP codes with which a server turns a request away before it looks at it.
_TOO_BUSY = (429, 503)

# s that the last word of a pilot may take; nobody waits for it.
_FAREWELL = 5.0

REQUEST_HEADER = "X-Pilotkit-Request"
CLAIM_HEADER = "X-Pilotkit-Claim"
CAPABILITIES_HEADER = "X-Pilotkit-Capabilities"
PREFER_HEADER = "X-Pilotkit-Prefer"
SERVER_HEADER = "x-pilotkit"


@dataclass(frozen=True)
class JobAnswer:
    """Answer to getJob: a definition, or why there is none and when to ask again (s, None: the server does not say)."""

    definition: dict[str, Json] | None = None
    reason: str = ""
    retry_after: float | None = None


@dataclass(frozen=True)
class UpdateAnswer:
    """Answer to updateJob: commands in order (tobekilled, debug ...), and the wished time to the next heartbeat (s)."""

    commands: tuple[str, ...] = ()
    next_heartbeat: float | None = None
    lease_end: str = ""


@dataclass(frozen=True)
class LogAnswer:
    """Answer to append_log: what became of the piece, and how long the log is now (bytes)."""

    result: str
    position: int


class Dispatcher:
    """Client of one dispatcher. Safe to use from several threads.

    http: the pilot's HTTP client. url: scheme://host:port.
    """

    def __init__(self, http: HttpClient, url: str, policy: RetryPolicy, stop: threading.Event) -> None:
        self.url = url.rstrip("/")
        self._http = http
        self._policy = policy
        self._stop = stop
        self._capabilities = ""
        self._preferred = ""
        self._api = ""
        self._api_lock = threading.Lock()
        self._request_id = ""
        self.is_pilotkit = False

    @property
    def api(self) -> str:
        """ "v1" or "legacy". Asks the server the first time; raises RequestFailed when no server answers."""
        with self._api_lock:
            if not self._api:
                self._api = self._find_api()
            return self._api

    def announce(self, capabilities: str) -> None:
        """What this node can do: it goes out with every question for a job."""
        self._capabilities = capabilities

    def get_job(self, request: Mapping[str, Json]) -> JobAnswer:
        """Ask for one job. `request` has the legacy names (wire.md, section 4).

        A request that failed on the way is repeated under the same request id, now and by the next call, which our
        server answers with the same job; a server that does not know request ids is only asked again when it cannot
        have handed out a job. For one thread only. Raises RequestFailed.
        """
        self._request_id = self._request_id or uuid.uuid4().hex
        headers = {REQUEST_HEADER: self._request_id}
        if self._capabilities:
            headers[CAPABILITIES_HEADER] = self._capabilities
        if self._preferred:
            headers[PREFER_HEADER] = self._preferred

        def once() -> JobAnswer:
            try:
                return self._get_job(request, headers)
            except RequestFailed as exc:
                if exc.temporary and exc.sent and exc.status not in _TOO_BUSY and not self.is_pilotkit:
                    text = f"{exc.diag} (not asked again: this server would hand out a second job)"
                    raise RequestFailed(text, temporary=False, status=exc.status) from exc
                raise

        try:
            answer = with_retries(once, self._policy, self._stop)
        except RequestFailed as exc:
            if not exc.temporary:
                self._request_id = ""
            raise
        self._request_id = ""
        task = number(answer.definition.get("taskID")) if answer.definition else None
        if task:  # the node may have its inputs and software in a cache now
            self._preferred = f"task={task:.0f}"
        return answer

    def get_key_pair(self, public_name: str, private_name: str) -> tuple[str, str]:
        """Two keys that the server keeps under these names, the public one first (wire.md, section 6).

        Raises RequestFailed, also when this pilot may not have them.
        """
        asked, names = {"publicKeyName": public_name, "privateKeyName": private_name}, ("publicKey", "privateKey")

        def once() -> tuple[str, str]:
            public, private = self._credentials("getKeyPair", "creds/get_key_pair", asked, names, None)
            return public.strip(), private.strip()

        return with_retries(once, self._policy, self._stop)

    def update_job(self, update: Mapping[str, Json], claim: str) -> UpdateAnswer:
        """Send one update, once. Raises RequestFailed; whether it is temporary stands in the exception."""
        headers = {CLAIM_HEADER: claim} if claim else {}
        if self.api == "v1":
            data = _envelope(self._v1("pilot/update_job", wire.update_to_v1(update), headers))
            answer = data if isinstance(data, dict) else {}
        else:
            answer = self._legacy("updateJob", update, headers)
        # A v1 server has said success in the envelope. A legacy answer without a code is not one of a dispatcher.
        code = number(answer.get("StatusCode", _SUCCESS if self.api == "v1" else None))
        if code is None:
            raise RequestFailed("the server's answer to the update has no StatusCode", temporary=True)
        if code in (_TIMEOUT, _DB_ERROR):
            raise RequestFailed(f"the server could not store the update (StatusCode {code:g})", temporary=True)
        if code != _SUCCESS:
            text = answer.get("errorDialog") or answer.get("ErrorDiag") or "no text"
            raise RequestFailed(f"the server refused the update (StatusCode {code:g}): {text}", temporary=False)
        command = str(answer.get("command") or "")
        return UpdateAnswer(
            commands=tuple(part for part in command.split(",") if part and part != "NULL"),
            next_heartbeat=number(answer.get("next_heartbeat")),
            lease_end=str(answer.get("lease_end") or ""),
        )

    def call_events(
        self, legacy: str, v1: str, arguments: Mapping[str, Json], claim: str, timeout: float
    ) -> dict[str, Json]:
        """One call of the event service, once. arguments: in legacy names; timeout: seconds.

        Returns the answer's values. Raises RequestFailed; whether it is temporary stands in the exception.
        """
        headers = {CLAIM_HEADER: claim} if claim else {}
        if self.api == "v1":
            data = _envelope(self._v1(v1, wire.events_to_v1(arguments), headers, timeout))
            return data if isinstance(data, dict) else {}
        answer = self._legacy(legacy, arguments, headers, timeout)
        code = number(answer.get("StatusCode"))
        if code != _SUCCESS:
            text = answer.get("errorDialog") or "no text"
            text = f"{legacy} was refused (StatusCode {answer.get('StatusCode')}): {text}"
            raise RequestFailed(text, temporary=code in (None, _TIMEOUT, _DB_ERROR), status_code=code)
        return answer

    def append_log(self, piece: Mapping[str, Json], claim: str, timeout: float) -> LogAnswer:
        """Send a piece of a job's live log, once, within `timeout` seconds. Raises RequestFailed."""
        if self.api != "v1" or not self.is_pilotkit:
            text = f"{self.url} keeps no live log; name a server that does with --realtime-logging-server"
            raise RequestFailed(text, temporary=False)
        data = _envelope(self._v1("pilot/append_log", piece, {CLAIM_HEADER: claim}, timeout))
        position = number(data.get("position")) if isinstance(data, dict) else None
        return LogAnswer(_text_of(data, "result"), int(position or 0))

    def update_worker_status(self, status: Mapping[str, Json]) -> None:
        """Tell that the worker's pilot has started or finished. Raises RequestFailed."""
        # A pilot that leaves does not stay for a server that is silent.
        timeout = _FAREWELL if self._stop.is_set() else None

        def once() -> None:
            if self.api == "v1":
                _envelope(self._v1("pilot/update_worker_status", wire.worker_to_v1(status), {}, timeout))
            else:
                self._legacy("updateWorkerPilotStatus", status, {}, timeout)

        with_retries(once, self._policy, self._stop)

    def renew_token(self, client_name: str, timeout: float) -> str:
        """A fresh token for this pilot: our server renews the one it is shown, another is asked for client_name's.

        timeout: seconds for each request. Raises RequestFailed.
        """
        if self.api == "v1" and self.is_pilotkit:
            data = _envelope(self._v1("creds/renew_token", {}, {}, timeout))
            return _text_of(data, "token")
        if not client_name:
            text = f"{self.url} cannot renew the token it is shown, and no client_name is set in section [Token]"
            raise RequestFailed(text, temporary=False, sent=False)
        return self.get_access_token(client_name, timeout)

    def get_access_token(self, client_name: str, timeout: float) -> str:
        """The token that the server keeps for a client. One that wants a token key is asked for it.

        timeout: seconds for each request. Raises RequestFailed.
        """
        asked = {"client_name": client_name}
        try:
            return self._credential("get_access_token", "creds/get_access_token", asked, "userProxy", timeout)
        except RequestFailed as exc:
            if exc.status_code not in _KEY_WANTED:
                raise
        key = self._credential("get_token_key", "creds/get_token_key", asked, "tokenKey", timeout)
        keyed = {**asked, "token_key": key}
        return self._credential("get_access_token", "creds/get_access_token", keyed, "userProxy", timeout)

    def get_proxy(self, role: str, dn: str, timeout: float) -> str:
        """The proxy in PEM that the server keeps for a name. role: `vo` or `vo:/vo/Role=...`. Raises RequestFailed."""
        return self._credential("getProxy", "creds/get_proxy", {"role": role, "dn": dn}, "userProxy", timeout)

    def _credential(self, legacy: str, v1: str, arguments: Mapping[str, str], key: str, timeout: float) -> str:
        """One value that the server keeps. key: its legacy name."""
        return self._credentials(legacy, v1, arguments, (key,), timeout)[0]

    def _credentials(
        self, legacy: str, v1: str, arguments: Mapping[str, str], keys: Sequence[str], timeout: float | None
    ) -> list[str]:
        """Several of them. All names are the legacy ones."""
        if self.api == "v1":
            query = urlencode({wire.snake_case(name): value for name, value in arguments.items()})
            url = f"{self.url}/api/v1/{v1}?{query}"
            answer = self._note(self._http.get(url, accept="application/json", timeout=timeout)).json()
            data = _envelope(answer if isinstance(answer, dict) else {})
            return [_text_of(data, wire.snake_case(key)) for key in keys]
        answer = self._legacy(legacy, arguments, {}, timeout)
        code = number(answer.get("StatusCode"))
        if code != _SUCCESS:
            text = answer.get("errorDialog") or "no text"
            raise RequestFailed(
                f"{legacy} was refused (StatusCode {answer.get('StatusCode')}): {text}",
                temporary=code in (_TIMEOUT, _DB_ERROR),
                status_code=code,
            )
        return [_text_of(answer, key) for key in keys]

    def _get_job(self, request: Mapping[str, Json], headers: Mapping[str, str]) -> JobAnswer:
        if self.api == "v1":
            return self._acquire_job(request, headers)
        # Servers before pilotkit refuse arguments they do not know.
        known = {name: value for name, value in request.items() if name != "remaining_time" or self.is_pilotkit}
        answer = self._legacy("getJob", known, headers)
        code = number(answer.get("StatusCode"))
        if code == _SUCCESS and answer.get("PandaID"):
            return JobAnswer(definition=answer)
        if code == _NO_JOBS:
            return _no_job(answer, str(answer.get("errorDialog") or "no jobs in PanDA"))
        text = answer.get("errorDialog") or ("the job has no PandaID" if code == _SUCCESS else "no text")
        temporary = code in (_TIMEOUT, _DB_ERROR)
        raise RequestFailed(f"getJob was refused (StatusCode {answer.get('StatusCode')}): {text}", temporary=temporary)

    def _acquire_job(self, request: Mapping[str, Json], headers: Mapping[str, str]) -> JobAnswer:
        answer = self._v1("pilot/acquire_jobs", wire.getjob_to_v1(request), headers)
        data = answer.get("data")
        found = data if isinstance(data, dict) else {}
        jobs = found.get("jobs")
        if answer.get("success") and isinstance(jobs, list) and jobs and isinstance(jobs[0], dict):
            # Whether the lease stands beside the job or around it, it is read from one place.
            around: dict[str, Json] = {
                name: found[name] for name in ("claim_id", "lease_end", "next_heartbeat") if name in found
            }
            return JobAnswer(definition={**around, **jobs[0]})
        message = str(answer.get("message") or found.get("errorDialog") or "")
        code = number(found.get("StatusCode"))
        if answer.get("success") or code == _NO_JOBS or _says_no_jobs(message, answer):
            return _no_job({**answer, **found}, message or "no jobs in PanDA")
        raise RequestFailed(
            f"acquire_jobs was refused: {message or 'no text'}", temporary=code in (_TIMEOUT, _DB_ERROR)
        )

    def _find_api(self) -> str:
        try:
            answer = self._note(self._http.get(f"{self.url}/api/v1/system/is_alive", accept="application/json")).json()
            if isinstance(answer, dict) and answer.get("success"):
                return "v1"
        except RequestFailed as exc:
            # A server that is overloaded or just starting says nothing about which API it has.
            if exc.status in _TOO_BUSY or (not exc.status and exc.sent is False):
                raise
        reply = self._note(self._http.get(f"{self.url}/server/panda/isAlive"))
        if b"alive=yes" in reply.body:
            return "legacy"
        text = f"{self.url} answers, but is no dispatcher: neither API says that it is alive"
        raise RequestFailed(text, temporary=False, sent=False)

    def _v1(
        self, method: str, body: Mapping[str, Json], headers: Mapping[str, str], timeout: float | None = None
    ) -> dict[str, Json]:
        return self._post(f"{self.url}/api/v1/{method}", body, False, headers, timeout)

    def _legacy(
        self, method: str, body: Mapping[str, Json], headers: Mapping[str, str], timeout: float | None = None
    ) -> dict[str, Json]:
        return self._post(f"{self.url}/server/panda/{method}", body, True, headers, timeout)

    def _post(
        self, url: str, body: Mapping[str, Json], packed: bool, headers: Mapping[str, str], timeout: float | None
    ) -> dict[str, Json]:
        reply = self._http.post_json(url, body, packed=packed, headers=headers, timeout=timeout)
        answer = self._note(reply).json()
        if not isinstance(answer, dict):
            raise RequestFailed(f"{url}: the answer is {type(answer).__name__}, not an object", temporary=True)
        return answer

    def _note(self, reply: Reply) -> Reply:
        self.is_pilotkit = self.is_pilotkit or SERVER_HEADER in reply.headers
        return reply


def _envelope(answer: Mapping[str, Json]) -> Json:
    """The data of a v1 envelope. Raises RequestFailed when it says no success."""
    if not answer.get("success"):
        data = answer.get("data")
        code = number(data.get("StatusCode")) if isinstance(data, dict) else None
        text = answer.get("message") or "no text"
        temporary = code in (_TIMEOUT, _DB_ERROR)
        raise RequestFailed(f"the server refused the call: {text}", temporary=temporary, status_code=code)
    return answer.get("data")


def _text_of(data: Json, name: str) -> str:
    """A text that the data of an answer must have."""
    found = data.get(name) if isinstance(data, dict) else None
    if not isinstance(found, str) or not found:
        raise RequestFailed(f"the server's answer has no {name}", temporary=False)
    return found


def _says_no_jobs(message: str, answer: Mapping[str, Json]) -> bool:
    """v1 marks an empty queue as no success; its text, or our server's reason, tells it from an error."""
    return "reason" in answer or "no jobs" in message.lower()


def _no_job(answer: Mapping[str, Json], text: str) -> JobAnswer:
    return JobAnswer(reason=text, retry_after=number(answer.get("retry_after")))


def number(value: Json) -> float | None:
    """A number of an answer, which may have come as text; None for what is none, or endless."""
    try:
        found = float(value) if isinstance(value, (int, float, str)) else math.nan
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None
