"""The STOMP client and the live log against a real ActiveMQ, with and without TLS."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot.util.stomp import Connection, StompError
from tests import pilots
from tests.activemq import PASSWORD, USER, ActiveMQ, running_activemq
from tests.integration.payload.conftest import Submit, settings
from tests.site import QUEUE, Site
from tests.x509 import X509, make_x509


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> X509:
    return make_x509(tmp_path_factory.mktemp("x509"))


@pytest.fixture(scope="module")
def secured(authority: X509, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ActiveMQ]:
    """A broker with the certificate of localhost."""
    store = tmp_path_factory.mktemp("store") / "broker.p12"
    command = ["openssl", "pkcs12", "-export", "-in", authority.host_cert, "-inkey", authority.host_key, "-out", store]
    subprocess.run([*command, "-passout", f"pass:{PASSWORD}"], check=True, capture_output=True, timeout=30)
    with running_activemq(str(store)) as made:
        yield made


def test_a_connection_is_secured_and_its_peer_is_who_it_says(secured: ActiveMQ, authority: X509) -> None:
    good = {"host": "localhost", "tls": True, "ca": str(authority.ca_file)}
    for changes, words in (
        ({**good, "ca": ""}, "certificate"),
        ({**good, "host": "127.1"}, "certificate"),  # another name of the same address
        ({**good, "passcode": "wrong"}, "password is invalid"),
    ):
        with pytest.raises(StompError, match=words):
            Connection(secured.broker(**changes))
    for ca in (authority.ca_file, authority.ca_dir):
        connection = Connection(secured.broker(**{**good, "ca": str(ca)}, heartbeat=2))
        connection.send_with_receipt("SUBSCRIBE", {"id": "0", "destination": "/queue/big", "ack": "auto"})
        body = bytes(range(256)) * 4000
        connection.send_with_receipt("SEND", {"destination": "/queue/big"}, body)
        frame = connection.receive(10)
        assert frame is not None and frame.body == body
        if ca == authority.ca_file:
            assert connection.receive(6) is None, "heart-beats keep it open"
        connection.close(farewell=True)


def test_a_live_log_goes_to_a_broker(
    site: Site, rundir: Path, submit: Submit, secured: ActiveMQ, authority: X509
) -> None:
    broker = secured.broker(host="localhost", tls=True, ca=str(authority.ca_file))
    reader = Connection(broker)
    reader.send_with_receipt("SUBSCRIBE", {"id": "0", "destination": f"/topic/panda.log.{QUEUE}", "ack": "auto"})
    jobid = submit("print('one'); print('two https://h/?token=canary')")
    server = f"stomp;stomp+ssl://{USER}:{PASSWORD}@localhost;{secured.port}"
    options = ("--use-realtime-logging", "--realtime-logging-server", server, "--realtime-logname", "mine")
    # --capath: what the pilot trusts for its dispatcher it trusts for the broker too.
    pilot = pilots.run(
        site.url, QUEUE, rundir, "-v", "1", "--capath", str(authority.ca_dir), *options,
        settings=settings(Realtime__interval=0.2),
    )  # fmt: skip
    assert pilot.wait() == 0 and site.wait_for(jobid)["jobStatus"] == "finished"
    frame = reader.receive(10)
    reader.close(farewell=True)
    assert frame is not None and frame.headers["content-type"] == "application/json"
    events = json.loads(frame.body)
    assert [event["message"] for event in events] == ["one", "two https://h/?token=***"]
    assert {(event["PandaID"], event["logname"], event["file"]) for event in events} == {
        (str(jobid), "mine", "payload.stdout")
    }
    assert PASSWORD not in pilot.log()
