"""Tokens of a few seconds and jobs that are longer: no end of a credential costs a finished result (promise S5)."""

from __future__ import annotations

import json
import os
import re
import stat
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pilot.common.errorcodes import ErrorCodes, shell_exit_code
from pilot.util.proxy import read_proxy
from pilot.util.tokens import read_token
from tests import pilots
from tests.faults import Request, network
from tests.servers import RunningServer, running_server
from tests.site import QUEUE, Site, add_site
from tests.x509 import USER_NAME, VO, make_x509

ONCE = ("-v", "1")
OPERATOR, ROOT = "operator-token-1", "pilot-root-token"
TOKENS = {
    OPERATOR: {"name": "root", "roles": ["operator"]},
    ROOT: {"name": "site-a", "roles": ["pilot"]},
}
# A token lives so long (s), unless a test says otherwise; the jobs below take twice as long.
LIFETIME = 12
LONG_JOB = {"command": f"sleep {2 * LIFETIME}; echo done > kept.txt", "outputs": ["kept.txt"]}
SETTINGS = (
    "[Pilot]\nheartbeat = 1\nheartbeat_min = 1\nretry_delay = 0.05\nretry_delay_max = 0.2\nfinal_update_patience = 2\n"
    "[Token]\nrenewal_pause = 0.2\nleast_life = 1\n"
)
LOST = shell_exit_code(ErrorCodes.COMMUNICATIONFAILURE)


@dataclass(frozen=True)
class Place:
    """A dispatcher that issues short-lived tokens, its site, and the file with the pilot's token."""

    server: RunningServer
    site: Site
    token_file: Path

    @property
    def env(self) -> dict[str, str]:
        """The pilot's environment."""
        return {"PANDA_AUTH_TOKEN": str(self.token_file), "PANDA_AUTH_ORIGIN": "vo.pilot"}

    def issue(self) -> str:
        """A fresh token in the pilot's file, as a site would put it there: replaced, never half-written."""
        token = fresh_token(self.server.url)
        beside = self.token_file.with_name("beside")
        beside.write_text(token)
        beside.replace(self.token_file)
        return token


def fresh_token(url: str) -> str:
    answer = Site(url, Path(), ROOT).call("creds/renew_token", {})
    assert isinstance(answer, dict)
    return str(answer["token"])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("credentials")
    (folder / "tokens.json").write_text(json.dumps(TOKENS))
    environment = {
        "PILOTKIT_TOKENS": str(folder / "tokens.json"),
        "PILOTKIT_TOKEN_LIFETIME": str(LIFETIME),
        "PILOTKIT_RETRY_AFTER": "1",
    }
    with running_server(folder / "server", environment=environment) as server:
        yield Place(server, add_site(server.url, folder, OPERATOR), folder / "token")


def secrets_in(text: str) -> list[str]:
    """All JSON web tokens in a text."""
    return re.findall(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", text)


def test_a_job_that_is_longer_than_its_token_is_seen_through_on_renewed_ones(place: Place, tmp_path: Path) -> None:
    (jobid,) = place.site.submit(LONG_JOB)
    first = place.issue()
    pilot = pilots.run(place.server.url, QUEUE, tmp_path / "run", *ONCE, env=place.env, settings=SETTINGS)
    assert pilot.process.returncode == 0, pilot.log()
    assert place.site.wait_for(jobid)["jobStatus"] == "finished"
    assert pilot.log().count("the pilot's token is renewed") >= 2 and "could not be renewed" not in pilot.log()
    last = place.token_file.read_text().strip()
    assert read_token(last).ends > read_token(first).ends + LIFETIME
    assert stat.S_IMODE(place.token_file.stat().st_mode) == 0o600
    assert secrets_in(pilot.log()) == []


def test_renewals_that_fail_for_a_while_cost_nothing(place: Place, tmp_path: Path) -> None:
    (jobid,) = place.site.submit(LONG_JOB)
    refused: list[Request] = []

    def refuse(request: Request) -> object:
        if request.call == "renew_token" and len(refused) < 3:
            refused.append(request)
            return (500, 403, "drop")[len(refused) - 1]
        return None

    with network(place.server.url, refuse) as net:
        place.issue()
        pilot = pilots.run(net.url, QUEUE, tmp_path / "run", *ONCE, env=place.env, settings=SETTINGS)
    assert pilot.process.returncode == 0, pilot.log()
    assert place.site.wait_for(jobid)["jobStatus"] == "finished"
    assert len(refused) == 3 and pilot.log().count("could not be renewed") >= 3
    assert "the pilot's token is renewed" in pilot.log()


def test_a_result_whose_token_ended_is_in_the_spool_for_the_next_pilot(place: Place, tmp_path: Path) -> None:
    (jobid,) = place.site.submit(LONG_JOB)
    with network(place.server.url, lambda request: 500 if request.call == "renew_token" else None) as net:
        place.issue()
        pilot = pilots.run(net.url, QUEUE, tmp_path / "run", *ONCE, env=place.env, settings=SETTINGS)
        assert pilot.process.returncode == LOST, pilot.log()
        log = pilot.log()
        assert "not every outcome was taken by the server: the pilot's token ended at" in log
        assert "it could not be renewed" in log
        assert len(list((tmp_path / "run" / "pilotkit-spool").glob("*/*.update.json"))) == 1
        assert place.site.status(jobid) in ("running", "starting")
        place.issue()
        next_one = pilots.run(net.url, QUEUE, tmp_path / "run", *ONCE, env=place.env, settings=SETTINGS)
    assert "left by an earlier pilot, is delivered" in next_one.log()
    assert place.site.wait_for(jobid)["jobStatus"] == "finished"
    assert place.site.stored(jobid)[0].read_text() == "done\n"
    assert secrets_in(log + next_one.log()) == []


def test_a_token_that_the_site_keeps_fresh_is_read_again(place: Place, tmp_path: Path) -> None:
    (jobid,) = place.site.submit(LONG_JOB)
    place.issue()
    options = (*ONCE, "--notokenrenewal")
    with pilots.running(place.server.url, QUEUE, tmp_path / "run", *options, env=place.env, settings=SETTINGS) as pilot:
        while pilot.process.poll() is None:
            time.sleep(LIFETIME / 4)
            place.issue()
    assert pilot.process.returncode == 0, pilot.log()
    assert place.site.wait_for(jobid)["jobStatus"] == "finished"
    assert "the pilot's token was replaced by another" in pilot.log() and "renewed" not in pilot.log()


def test_a_pilot_whose_token_does_not_last_and_is_not_renewed_takes_no_job(place: Place, tmp_path: Path) -> None:
    (jobid,) = place.site.submit({"command": "true"})
    place.issue()
    settings = SETTINGS.replace("least_life = 1", "least_life = 3600")
    options = (*ONCE, "--notokenrenewal")
    pilot = pilots.run(place.server.url, QUEUE, tmp_path / "run", *options, env=place.env, settings=settings)
    assert pilot.process.returncode == shell_exit_code(ErrorCodes.PROXYTOOSHORT), pilot.log()
    assert "the pilot's token ends in" in pilot.log()
    assert place.site.status(jobid) == "activated"
    place.site.call("job/kill", {"job_ids": [jobid]})


def test_a_short_proxy_is_replaced_by_the_one_the_operator_keeps_on_the_server(place: Place, tmp_path: Path) -> None:
    x509 = make_x509(tmp_path / "x509")
    mine = x509.proxy(hours=0.1, voms=True)
    os.replace(mine, tmp_path / "proxy")
    folder = place.server.data / "credentials"
    folder.mkdir()
    (folder / "robot.pem").write_bytes(x509.proxy(hours=10, voms=True).read_bytes())
    entry = {"role": f"{VO}:/{VO}/Role=production", "dn": USER_NAME, "file": "robot.pem", "for": ["site-a"]}
    (folder / "credentials.json").write_text(json.dumps({"proxies": [entry]}))
    place.site.call("queue/set", {"name": QUEUE, "changes": {"catchall": f"needs_proxy={VO}"}})
    try:
        command = 'test -z "$X509_USER_PROXY" && ! env | grep -i -e proxy= -e token= && sleep 1'
        (jobid,) = place.site.submit({"command": command})
        env = {**place.env, "X509_USER_PROXY": str(tmp_path / "proxy"), "X509_CERT_DIR": str(x509.ca_dir)}
        settings = SETTINGS.replace("least_life = 1", "least_life = 3600")
        place.issue()
        pilot = pilots.run(place.server.url, QUEUE, tmp_path / "run", *ONCE, env=env, settings=settings)
        assert pilot.process.returncode == 0, pilot.log()
        assert place.site.wait_for(jobid)["jobStatus"] == "finished"
        assert "the pilot's proxy is renewed" in pilot.log() and "PRIVATE KEY" not in pilot.log()
        kept = read_proxy(tmp_path / "proxy")
        assert kept.ends > time.time() + 9 * 3600 and kept.identity == USER_NAME
        assert stat.S_IMODE((tmp_path / "proxy").stat().st_mode) == 0o600
        place.issue()
        without = pilots.run(place.server.url, QUEUE, tmp_path / "none", *ONCE, env=place.env, settings=SETTINGS)
        assert without.process.returncode == shell_exit_code(ErrorCodes.NOPROXY), without.log()
    finally:
        place.site.call("queue/set", {"name": QUEUE, "changes": {"catchall": ""}})


# Looks everywhere a process of the same user is led to: its environment, arguments, open files and directory, and the
# environment and arguments of the guard above it.
SPY = (
    "{ env; set; tr '\\0' '\\n' < /proc/self/environ; tr '\\0' '\\n' < /proc/$PPID/environ; "
    "tr '\\0' ' ' < /proc/$PPID/cmdline; ls -l /proc/self/fd /proc/$PPID/fd; ls -laR .; "
    "find . -type f -exec cat {} + ; } > seen.txt 2>&1; true"
)


def test_a_payload_that_looks_around_finds_nothing_of_the_pilots(place: Place, tmp_path: Path) -> None:
    x509 = make_x509(tmp_path / "x509")
    proxy = x509.proxy(voms=False)
    (tmp_path / "canary-bt").write_text("canary-of-storage")
    (jobid,) = place.site.submit({"command": SPY, "outputs": ["seen.txt"]})
    token = place.issue()
    env = {
        **place.env, "X509_USER_PROXY": str(proxy), "BEARER_TOKEN_FILE": str(tmp_path / "canary-bt"),
        "BEARER_TOKEN": "canary-inline", "OIDC_AUTH_TOKEN": "canary-oidc",
    }  # fmt: skip
    pilot = pilots.run(place.server.url, QUEUE, tmp_path / "run", *ONCE, env=env, settings=SETTINGS)
    assert place.site.wait_for(jobid)["jobStatus"] == "finished", pilot.log()
    seen = place.site.stored(jobid)[0].read_text(errors="replace")
    assert f"PandaID={jobid}" in seen
    for canary in ("canary", token, str(proxy), str(place.token_file), "PRIVATE KEY", "PANDA_AUTH", "BEARER"):
        assert canary not in seen, canary
    for secret in ("canary-of", "canary-inline", token, "PRIVATE KEY"):
        assert secret not in pilot.log(), secret


@pytest.mark.parametrize(
    ("hours", "option", "code"),
    [
        (10.0, "--verifypayloadproxy", 0),
        (0.2, "--verifypayloadproxy", ErrorCodes.PROXYTOOSHORT),
        (0.2, "", 0),
        (0.0, "", ErrorCodes.NOPROXY),
    ],
)
def test_a_payload_whose_queue_says_so_has_its_users_proxy_and_not_the_pilots(
    place: Place, tmp_path: Path, hours: float, option: str, code: int
) -> None:
    x509 = make_x509(tmp_path / "x509")
    folder = place.server.data / "credentials"
    folder.mkdir(exist_ok=True)
    entry = {"role": "users", "dn": "root", "file": "user.pem", "for": ["site-a"]}
    if hours:
        (folder / "user.pem").write_bytes(x509.proxy(hours=hours, voms=False).read_bytes())
    (folder / "credentials.json").write_text(json.dumps({"proxies": [entry] if hours else []}))
    settings = SETTINGS.replace("least_life = 1", "least_life = 1800")
    place.site.call("queue/set", {"name": QUEUE, "changes": {"catchall": "payload_proxy=users"}})
    try:
        (jobid,) = place.site.submit({"command": 'cp "$X509_USER_PROXY" mine.pem', "outputs": ["mine.pem"]})
        place.issue()
        options = [*ONCE, *([option] if option else [])]
        pilots.run(place.server.url, QUEUE, tmp_path / "run", *options, env=place.env, settings=settings)
        job = place.site.wait_for(jobid)
        assert job["pilotErrorCode"] == code, job
        if not code:
            assert place.site.stored(jobid)[0].read_bytes() == (folder / "user.pem").read_bytes()
        log = place.site.stored(jobid, "log")[0]
        with tarfile.open(log) as archive:
            assert not [name for name in archive.getnames() if "x509up" in name]
    finally:
        place.site.call("queue/set", {"name": QUEUE, "changes": {"catchall": ""}})
