"""An existing panda-client logs in and calls: the device flow of ID tokens, from our files to our answer."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.components import environment_of_the_suite
from tests.oidc import VO, running_issuer
from tests.servers import running_server

#: s; the client takes two.
PATIENCE = 60
#: A call for users alone, about a job that is not there: who has no role gets no list.
_CALL = 'from pandaclient import Client; print("killed:", Client.killJobs([4711]))'


def log_in(url: str, folder: Path, vo: str = VO, call: str = _CALL, token: str = "") -> str:
    """Make a call with panda-client, say yes when it asks whether we have signed in, and give what it printed.

    Args:
        token: given to it, so that it does not ask.
    """
    python = environment_of_the_suite("panda-client") / "bin" / "python"
    address = f"{url}/server/panda"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "NO_PROXY": "127.0.0.1",
        "PANDA_AUTH": "oidc",
        "PANDA_AUTH_VO": vo,
        "PANDA_URL": address,
        "PANDA_URL_SSL": address,
        "PANDACACHE_URL": address,
        "PANDA_CONFIG_ROOT": str(folder / "pathena"),
        "PANDA_SYS": str(python.parent.parent),
        "PANDA_BEHIND_REAL_LB": "1",
        **({"PANDA_AUTH_ID_TOKEN": token} if token else {}),
    }
    done = subprocess.run(
        [python, "-c", call],
        env=environment,
        input="y\n" * 5,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.stdout + done.stderr


def test_panda_client_gets_an_id_token_by_the_device_flow_and_is_known_by_it(tmp_path: Path) -> None:
    with running_issuer() as issuer:
        settings = {f"PILOTKIT_{name.upper()}": value for name, value in issuer.configuration(tmp_path).items()}
        with running_server(tmp_path / "data", environment=settings) as server:
            issuer.pending = 1
            said = log_in(server.url, tmp_path)
            assert "sign in" in said and f"{issuer.url}/device?user_code=ABCD" in said, said
            assert "killed: (0, [False])" in said, said
            assert issuer.asked.count("/token") == 2, "once too early"
            again = log_in(server.url, tmp_path)
            assert "killed: (0, [False])" in again and "sign in" not in again, again
            stranger = log_in(server.url, tmp_path / "elsewhere", "othervo")
            assert "killed: (0" not in stranger
