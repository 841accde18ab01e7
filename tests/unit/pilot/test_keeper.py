"""The keeper of credentials: when it renews, what it replaces, what it refuses, and that it never tells a secret."""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from pilot.common.errorcodes import ErrorCodes
from pilot.control.keeper import ANY_PROXY, Keeper
from pilot.control.kept import Life, may_replace, pause_after, renewal_at
from pilot.user.generic.proxy import verify_proxy
from pilot.util.https import Credentials, RequestFailed
from pilot.util.proxy import read_proxy
from tests.unit.pilot.builders import SETTINGS
from tests.unit.pilot.test_tokens import jwt
from tests.x509 import USER_NAME, X509

C = ErrorCodes
HOUR = 3600.0
TOKEN_SETTINGS = replace(SETTINGS.token, renewal_pause=0.01)
ENDLESS = float("inf")


# ---- the decisions


@pytest.mark.parametrize(
    ("life", "fraction", "not_before", "wanted"),
    [
        (Life(100.0, 300.0), 0.5, 0.0, 200.0),
        (Life(100.0, 300.0), 0.0, 0.0, 100.0),
        (Life(100.0, 300.0), 1.0, 0.0, 300.0),
        (Life(100.0, 300.0), 0.5, 250.0, 250.0),
        (Life(100.0, 300.0), 0.5, 150.0, 200.0),
        (Life(300.0, 100.0), 0.5, 0.0, 300.0),
        (Life(100.0, 0.0), 0.5, 0.0, ENDLESS),
        (Life(), 0.5, 1e9, ENDLESS),
    ],
)
def test_a_renewal_is_due_when_its_part_of_the_life_has_passed_and_the_pause_is_over(
    life: Life, fraction: float, not_before: float, wanted: float
) -> None:
    assert renewal_at(life, fraction, not_before) == wanted


@pytest.mark.parametrize(
    ("failures", "left", "wanted"),
    [
        (0, 9e9, 0.0), (1, 9e9, 10.0), (2, 9e9, 20.0), (4, 9e9, 80.0), (7, 9e9, 600.0), (5000, 9e9, 600.0),
        (4, ENDLESS, 80.0), (4, 100.0, 50.0), (4, 10.0, 10.0), (4, -5.0, 10.0), (1, 1.0, 10.0),
    ],
)  # fmt: skip
def test_the_pause_doubles_with_every_failure_up_to_its_maximum_and_leaves_time_for_another_try(
    failures: int, left: float, wanted: float
) -> None:
    assert pause_after(failures, 10.0, 600.0, left) == wanted


@pytest.mark.parametrize(
    ("life", "other", "wanted"),
    [
        (Life(0, 20), Life(0, 10), True),
        (Life(0, 10), Life(0, 10), False),
        (Life(0, 0), Life(0, 10), True),
        (Life(0, 10), Life(0, 0), False),
        (Life(0, 0), Life(0, 0), False),
    ],
)
def test_what_has_no_end_outlives_what_has_one(life: Life, other: Life, wanted: bool) -> None:
    assert life.outlives(other) is wanted


def test_only_a_plain_file_of_ones_own_is_replaced_where_it_is(tmp_path: Path) -> None:
    plain, link = tmp_path / "plain", tmp_path / "link"
    plain.write_text("x")
    link.symlink_to(plain)
    assert may_replace(plain)
    assert not may_replace(link)
    assert not may_replace(tmp_path / "gone")
    assert not may_replace(tmp_path)


# ---- the keeper


class Server:
    """Gives what it is told to give, and notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.gives: list[str | Exception] = []

    def _give(self, *asked: str) -> str:
        self.asked.append(asked)
        given = self.gives.pop(0) if self.gives else RequestFailed("the server is not there", temporary=True)
        if isinstance(given, Exception):
            raise given
        return given

    def renew_token(self, client_name: str, timeout: float) -> str:
        return self._give("token", client_name)

    def get_access_token(self, client_name: str, timeout: float) -> str:
        return self._give("access", client_name)

    def get_proxy(self, role: str, dn: str, timeout: float) -> str:
        return self._give("proxy", role, dn)


def token(name: str, begins: float, ends: float) -> str:
    """A token with a life relative to now (s)."""
    now = time.time()
    return jwt({"iat": now + begins, "exp": now + ends, "sub": name})


class Desk:
    """Keepers of one test, the tokens they have shown, and what they have logged."""

    def __init__(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.folder = folder
        self.server = Server()
        self.shown: list[str] = []
        self.log = caplog
        self.keepers: list[Keeper] = []
        caplog.set_level(logging.DEBUG)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def keeper(
        self,
        shown: str = "",
        proxy: Path | None = None,
        environ: Mapping[str, str] | None = None,
        attach: bool = True,
        **changes: object,
    ) -> Keeper:
        path = self.write("token", shown) if shown else None
        found = Credentials(shown, "vo.pilot", str(proxy or ""), "", str(path or ""))
        how = {name: changes.pop(name) for name in ("named", "renew", "check") if name in changes}
        settings = replace(TOKEN_SETTINGS, **changes)  # type: ignore[arg-type]
        made = Keeper(found, environ or {}, settings, logging.getLogger("pilot.test"), **how)  # type: ignore[arg-type]
        self.keepers.append(made)
        if attach:
            made.attach(self.server, self.shown.append)
        return made


@pytest.fixture
def desk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Desk]:
    made = Desk(tmp_path, caplog)
    yield made
    for keeper in made.keepers:
        keeper.close()


def verify(hours: float, path: str) -> tuple[int, str]:
    return verify_proxy(hours, path)


def test_a_token_past_half_of_its_life_is_renewed_in_its_file_and_shown_from_then_on(desk: Desk) -> None:
    old, new = token("old", -60, 50), token("new", 0, 200)
    keeper = desk.keeper(old)
    desk.server.gives = [new]
    wait = keeper.refresh()
    assert desk.shown == [new]
    path = desk.folder / "token"
    assert path.read_text() == f"{new}\n" and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert 90 < wait <= 100
    assert old not in desk.log.text and new not in desk.log.text
    keeper.refresh()
    assert desk.server.asked == [("token", "")]


@pytest.mark.parametrize("is_opaque", [True, False])
def test_a_token_without_end_or_before_half_of_its_life_is_left_alone(desk: Desk, is_opaque: bool) -> None:
    keeper = desk.keeper("opaque-token" if is_opaque else token("young", -10, 1000))
    assert 0 < keeper.refresh() <= SETTINGS.token.proxy_check
    assert desk.server.asked == [] and desk.shown == []


def test_with_notokenrenewal_nothing_is_renewed(desk: Desk) -> None:
    keeper = desk.keeper(token("old", -60, 50), renew=False)
    keeper.refresh(eager=True)
    assert desk.server.asked == [] and not keeper.readmit()


def test_a_renewal_that_fails_is_tried_again_and_costs_nothing(desk: Desk) -> None:
    old, new = token("old", -60, 50), token("new", 0, 200)
    keeper = desk.keeper(old, renewal_pause=0.01)
    deadline = time.monotonic() + 30
    desk.server.gives = [RequestFailed("busy", temporary=True), RequestFailed("no", temporary=False), new]
    while not desk.shown and time.monotonic() < deadline:
        time.sleep(min(keeper.refresh(), 0.05))
    assert desk.shown == [new] and len(desk.server.asked) == 3
    assert "could not be renewed: busy" in desk.log.text


@pytest.mark.parametrize("sent", ["", "two words", "\u00e9", -50.0, 40.0])
def test_what_the_server_sends_is_only_taken_when_it_is_a_token_that_ends_later(desk: Desk, sent: str | float) -> None:
    old = token("old", -60, 50)
    keeper = desk.keeper(old)
    desk.server.gives = [sent if isinstance(sent, str) else token("sent", -100, sent)]
    keeper.refresh()
    assert desk.shown == [] and (desk.folder / "token").read_text() == old


def test_a_file_that_somebody_else_replaces_is_read_again(desk: Desk) -> None:
    keeper = desk.keeper(token("old", -10, 50))
    fresh = token("fresh", 0, 5000)
    desk.write("beside", fresh).replace(desk.folder / "token")
    keeper.refresh()
    assert desk.shown == [fresh] and desk.server.asked == []
    desk.write("beside", token("stale", -100, 20)).replace(desk.folder / "token")
    keeper.refresh()
    assert desk.shown == [fresh]


def test_a_token_behind_a_link_is_kept_in_a_copy_that_is_removed_at_the_end(desk: Desk) -> None:
    old, new = token("old", -60, 50), token("new", 0, 200)
    real = desk.write("real", old)
    (desk.folder / "bt").symlink_to(real)
    keeper = desk.keeper(environ={"BEARER_TOKEN_FILE": str(desk.folder / "bt")}, storage_client_name="store")
    path = Path(keeper.tool_environment()["BEARER_TOKEN_FILE"])
    assert path != desk.folder / "bt" and path.read_text() == old
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    desk.server.gives = [new]
    keeper.refresh()
    assert path.read_text() == f"{new}\n" and real.read_text() == old and desk.server.asked == [("access", "store")]
    keeper.close()
    assert not path.parent.exists()


def test_a_token_for_storage_is_fetched_when_the_server_keeps_one(desk: Desk, tmp_path: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": str(tmp_path), "BEARER_TOKEN": "inline"}
    keeper = desk.keeper(environ=environ, storage_client_name="store")
    desk.server.gives = [token("s", 0, 200)]
    keeper.refresh()
    env = keeper.tool_environment()
    assert Path(env["BEARER_TOKEN_FILE"]).read_text().startswith("e30.") and "BEARER_TOKEN" not in env
    assert desk.shown == []


# ---- proxies


def test_a_proxy_is_renewed_for_its_own_name_and_role_and_replaced_atomically(desk: Desk, x509: X509) -> None:
    old = desk.folder / "proxy"
    old.write_bytes(x509.proxy(hours=0.02, voms=False).read_bytes())
    fresh = x509.proxy(voms=False).read_text()
    keeper = desk.keeper(proxy=old, named=True)
    desk.server.gives = [fresh]
    keeper.refresh(eager=True)
    assert desk.server.asked == [("proxy", "", USER_NAME)]
    assert old.read_text() == fresh and stat.S_IMODE(old.stat().st_mode) == 0o600
    assert desk.shown == [""]
    assert keeper.verdict(verify, "") is None
    assert "PRIVATE" not in desk.log.text
    assert sorted(path.name for path in desk.folder.iterdir()) == ["proxy"]


def test_a_reader_sees_the_old_or_the_new_proxy_and_never_half_of_one(desk: Desk, x509: X509) -> None:
    path = desk.folder / "proxy"
    proxies = [x509.proxy(hours=hours, voms=False).read_bytes() for hours in (0.02, 1, 2, 3)]
    path.write_bytes(proxies[0])
    keeper = desk.keeper(proxy=path, named=True, least_life=1e9)
    seen: set[bytes] = set()
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for proxy in proxies[1:]:
            desk.server.gives = [proxy.decode()]
            assert keeper.readmit()
    finally:
        over.set()
        reader.join()
    assert seen <= set(proxies)
    assert read_proxy(path).ends > time.time() + 2.9 * HOUR


def test_a_proxy_of_somebody_else_is_not_taken(
    desk: Desk, x509: X509, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cert, key = x509.certificate("other", "/DC=test/DC=site/CN=Other")
    path = desk.folder / "proxy"
    path.write_bytes(x509.proxy(hours=0.02, voms=False).read_bytes())
    before = path.read_bytes()
    keeper = desk.keeper(proxy=path, named=True)
    desk.server.gives = [cert.read_text() + key.read_text()]
    keeper.refresh(eager=True)
    assert path.read_bytes() == before and "the proxy of /DC=test/DC=site/CN=Other" in desk.log.text


def test_a_certificate_that_is_no_proxy_is_never_asked_for(desk: Desk, x509: X509) -> None:
    path = desk.write("user", x509.user_cert.read_text() + x509.user_key.read_text())
    desk.keeper(proxy=path, named=True, least_life=1e9).refresh(eager=True)
    assert desk.server.asked == []


@pytest.mark.parametrize(
    ("hours", "needed", "code"),
    [
        (12, "", 0),
        (12, ANY_PROXY, 0),
        (0.5, "", C.PROXYTOOSHORT),
        (-1, "", C.CERTIFICATEHASEXPIRED),
        (12, "atlas", C.NOVOMSPROXY),
        (12, "any", C.NOVOMSPROXY),
    ],
)
def test_a_proxy_that_does_not_do_for_a_job_is_refused(
    desk: Desk, x509: X509, hours: float, needed: str, code: int
) -> None:
    keeper = desk.keeper(proxy=x509.proxy(hours=hours, voms=False), named=True)
    keeper.refresh(eager=True)
    found = keeper.verdict(verify, needed)
    assert (found.code if found else 0) == code
    if found is not None and hours == 0.5:
        assert "it could not be renewed: the server is not there" in found.diag
    unchecked = desk.keeper(proxy=x509.proxy(hours=hours, voms=False), named=True, check=False)
    assert unchecked.verdict(verify, needed) is None


def test_a_short_proxy_that_the_server_renews_is_good_enough(desk: Desk, x509: X509) -> None:
    path = desk.folder / "proxy"
    path.write_bytes(x509.proxy(hours=0.01, voms=False).read_bytes())
    keeper = desk.keeper(proxy=path, named=True)
    desk.server.gives = [x509.proxy(hours=0.02, voms=False).read_text()]
    keeper.refresh(eager=True)
    assert keeper.verdict(verify, "") is None and keeper.time_left() == ENDLESS


def test_without_a_proxy_only_a_queue_that_needs_one_is_refused(desk: Desk) -> None:
    keeper = desk.keeper()
    assert keeper.verdict(verify, "") is None and keeper.time_left() == ENDLESS
    for needed in (ANY_PROXY, "any", "atlas"):
        found = keeper.verdict(verify, needed)
        assert found is not None and found.code == C.NOPROXY


def test_a_proxy_that_merely_lies_there_is_used_while_it_is_good_and_else_passed_over(desk: Desk, x509: X509) -> None:
    good = desk.keeper(proxy=x509.proxy(voms=False))
    assert good.credentials.certificate and good.time_left() == ENDLESS
    bad = desk.keeper(proxy=x509.proxy(voms=False, expired=True))
    assert bad.credentials.certificate == "" and bad.verdict(verify, "") is None
    assert "is not used: the proxy of" in desk.log.text
    found = bad.verdict(verify, ANY_PROXY)
    assert found is not None and found.code == C.NOPROXY and "ended" in found.diag


@pytest.mark.parametrize(("ends", "code"), [(0, 0), (5000, 0), (100, C.PROXYTOOSHORT), (-100, C.CERTIFICATEHASEXPIRED)])
def test_a_token_that_does_not_last_is_refused_and_one_of_unknown_end_is_not(
    desk: Desk, ends: float, code: int
) -> None:
    keeper = desk.keeper(token("t", -5000, ends) if ends else "opaque")
    keeper.refresh(eager=True)
    found = keeper.verdict(verify, "")
    assert (found.code if found else 0) == code
    assert ("ended" in keeper.complaint()) is (code == C.CERTIFICATEHASEXPIRED)


def test_the_time_left_is_that_of_what_ends_first_and_is_not_renewed(desk: Desk, x509: X509) -> None:
    keeper = desk.keeper(token("t", -10, 5000), proxy=x509.proxy(hours=1, voms=False), named=True)
    assert HOUR - 60 < keeper.time_left() <= HOUR
    unchecked = desk.keeper(token("t", -10, 5000), proxy=x509.proxy(hours=1, voms=False), named=True, check=False)
    assert 4900 < unchecked.time_left() <= 5000


# ---- after the server has turned the pilot away


def test_a_pilot_that_is_turned_away_looks_for_a_newer_token_and_asks_for_one(desk: Desk) -> None:
    keeper = desk.keeper(token("old", -10, 5000))
    assert not keeper.readmit()
    assert desk.server.asked == [("token", "")]
    desk.write("beside", token("fresh", 0, 6000)).replace(desk.folder / "token")
    assert keeper.readmit() and len(desk.server.asked) == 1
    assert not keeper.readmit()


def test_the_end_of_a_token_is_told_once_before_and_once_when_it_has_come(desk: Desk) -> None:
    keeper = desk.keeper(token("t", -100, 50), attach=False)
    assert keeper._token is not None
    for _ in range(3):
        keeper.refresh()
    assert desk.log.text.count("the pilot's token ends at") == 1
    keeper._token.life = replace(keeper._token.life, ends=time.time() - 1)
    for _ in range(3):
        keeper.refresh()
    assert desk.log.text.count("the pilot's token ended at") == 1


# ---- tools


def test_tools_get_the_files_that_are_kept_and_nothing_for_the_dispatcher(desk: Desk, x509: X509) -> None:
    storage = desk.write("bt", "storage-token")
    proxy = x509.proxy(voms=False)
    environ = {
        "BEARER_TOKEN_FILE": str(storage), "PANDA_AUTH_TOKEN": "/secret", "OIDC_AUTH_ORIGIN": "x", "HOME": "/h",
        "X509_USER_PROXY": "/elsewhere",
    }  # fmt: skip
    env = desk.keeper("sesame", proxy=proxy, environ=environ).tool_environment("/ca")
    assert env == {
        "BEARER_TOKEN_FILE": str(storage), "HOME": "/h", "X509_USER_PROXY": str(proxy), "X509_CERT_DIR": "/ca",
    }  # fmt: skip
    assert os.path.exists(env["X509_USER_PROXY"])
