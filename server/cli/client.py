"""The HTTP client of the command line: /api/v1 and its envelope {"success", "message", "data"} (wire.md, section 2)."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import urlsplit

from server.cli.errors import BadInput, Refused, Unreachable

if TYPE_CHECKING:
    import requests

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Row: TypeAlias = dict[str, Json]

CONNECT_TIMEOUT: Final = 5.0  # s; a server that does not take the connection by then is not there for a person
READ_TIMEOUT: Final = 60.0  # s; the longest answer is a submission of thousands of jobs
PROTOCOL_ERROR: Final = "what answers at {url} is not a pilotkit server ({what}); set PILOTKIT_URL or give --url"


class Client:
    """One server, one kept-alive connection.

    Args:
        url: the server's address, http://host:port; a path after it is ignored, as PanDA's clients do.
        token: bearer token; empty for an open server.

    Raises (every call):
        Unreachable: nothing, or no server of ours, answers.
        Refused: the server said no; the message is its own.
    """

    def __init__(self, url: str, token: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadInput(f"'{url}' is not a server address; write it as http://host:25080")
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._host = parts.hostname
        self._token = token
        self._opened: requests.Session | None = None

    def get(self, method: str, parameters: dict[str, str | int | list[str]] | None = None) -> Json:
        """Call GET /api/v1/<method>; returns the envelope's data."""
        return self._data(self._send("GET", method, params=parameters))[0]

    def post(self, method: str, body: Json) -> Json:
        """Call POST /api/v1/<method> with a JSON body; returns the envelope's data."""
        return self._data(self._send("POST", method, json=body))[0]

    def post_with_message(self, method: str, body: Json) -> tuple[Json, str]:
        """As post, for calls whose message tells more than the data."""
        return self._data(self._send("POST", method, json=body))

    def upload(self, path: Path, name: str) -> None:
        """Put a file into the server's sandbox cache under a name (client.md, section 1.2)."""
        with path.open("rb") as content:
            self._data(self._send("POST", "file_server/upload_cache_file", files={"file": (name, content)}))

    def close(self) -> None:
        """Close the connection."""
        if self._opened is not None:
            self._opened.close()

    def _session(self) -> requests.Session:
        import requests  # here, not above: 0.1 s that `pilotkit --help` need not wait for

        if self._opened is None:
            self._opened = requests.Session()
            self._opened.trust_env = not _is_loopback(self._host)  # a site's proxy knows nothing of our own machine
            self._opened.headers["Accept"] = "application/json"
            if self._token:
                self._opened.headers["Authorization"] = f"Bearer {self._token}"
        return self._opened

    def _send(
        self,
        verb: str,
        method: str,
        params: dict[str, str | int | list[str]] | None = None,
        json: Json = None,
        files: dict[str, tuple[str, object]] | None = None,
    ) -> requests.Response:
        import requests

        try:
            return self._session().request(
                verb,
                f"{self.url}/api/v1/{method}",
                params=params,
                json=json,
                files=files,  # type: ignore[arg-type]  # requests' own type for file objects is private
                timeout=(CONNECT_TIMEOUT, READ_TIMEOUT),
                allow_redirects=False,
            )
        except requests.ReadTimeout as error:
            raise Unreachable(f"the server at {self.url} did not answer within {READ_TIMEOUT:.0f} s") from error
        except (requests.ConnectionError, requests.Timeout) as error:
            raise Unreachable(
                f"no server answers at {self.url}; start one with `pilotkit serve`, or set PILOTKIT_URL (or --url)"
            ) from error
        except requests.RequestException as error:  # an address no request can be made of
            raise BadInput(f"{self.url}: {error}") from error

    def _data(self, answer: requests.Response) -> tuple[Json, str]:
        """(data, message) of an answer."""
        try:
            envelope: Json = answer.json()
        except ValueError:
            envelope = None
        if answer.status_code in (401, 403):
            said = str(envelope.get("message") or "") if isinstance(envelope, dict) else _first_line(answer.text)
            raise Refused(
                f"the server at {self.url} does not let you do this ({said.rstrip('.') or 'no reason'}); "
                "set PILOTKIT_TOKEN (or --token) to a token with the right role"
            )
        if not isinstance(envelope, dict) or "success" not in envelope:
            what = f"status {answer.status_code}: {_first_line(answer.text)}"
            if "X-Pilotkit" in answer.headers:
                raise Refused(f"the server at {self.url} could not do it ({what})")
            raise Unreachable(PROTOCOL_ERROR.format(url=self.url, what=what))
        message = str(envelope.get("message") or "")
        if not envelope["success"]:
            raise Refused(message or "the server refused without a reason")
        return envelope.get("data"), message


def rows(data: Json) -> list[Row]:
    """An answer that must be a list of objects. Raises Unreachable when it is not: then it is no server of ours."""
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise Unreachable(f"the server's answer is not a list of objects: {str(data)[:100]}")
    return [item for item in data if isinstance(item, dict)]


def row(data: Json) -> Row:
    """An answer that must be one object. Raises Unreachable when it is not."""
    if not isinstance(data, dict):
        raise Unreachable(f"the server's answer is not an object: {str(data)[:100]}")
    return data


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:200] or "no text"
