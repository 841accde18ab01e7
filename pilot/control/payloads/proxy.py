"""The payload's own proxy, for queues that give their payloads one: fetched from the server, never the pilot's."""

from __future__ import annotations

import time

from pilot.common.exception import NoGridProxy, PilotException
from pilot.control.context import Context
from pilot.control.jobrun import JobRun
from pilot.control.keeper import ANY_PROXY
from pilot.util.credentials import ca_directory
from pilot.util.filehandling import write_secret
from pilot.util.proxy import parse_proxy, verdict

# Its name in the job's directory; it never goes into the log tarball.
PAYLOAD_PROXY = "x509up_payload"


def provide_proxy(context: Context, run: JobRun) -> dict[str, str]:
    """Put the user's proxy into the job's directory if the queue says payload_proxy=ROLE in its catchall; the variables
    that lead the payload to it.

    Raises NoGridProxy when there is none to be had; with --verifypayloadproxy also what is wrong with it.
    """
    role = run.infosys.queuedata.catchall_value("payload_proxy")
    if not role:
        return {}
    path, user = run.workdir / PAYLOAD_PROXY, run.data.produserid
    try:
        text = context.keeper.fetch_proxy("" if role == ANY_PROXY else role, user)
        if context.args.verify_payloadproxy:
            _verify(text, run, context.settings.token.least_life)
        write_secret(path, text.encode())
    except (ValueError, OSError) as exc:
        raise NoGridProxy(f"the payload's proxy, of {user}: {exc}") from exc
    found = ca_directory(context.environ, context.args.capath)
    context.log.info("job %s: the payload has a proxy of its own, of %s", run.jobid, user)
    return {"X509_USER_PROXY": str(path), **({"X509_CERT_DIR": found} if found else {})}


def _verify(text: str, run: JobRun, least: float) -> None:
    """Raises ValueError for what is no proxy, PilotException for one that does not last for the job."""
    problem = verdict(parse_proxy(text.encode()), time.time(), max(least, float(run.data.maxwalltime)))
    if problem is not None:
        raise PilotException(f"the payload's proxy: {problem.diag}", code=problem.code)
