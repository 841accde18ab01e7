"""Faults of nodes, queues and credentials: what a site's admin mends."""

from __future__ import annotations

import time
from pathlib import Path

from pilot.common.errorcodes import ErrorCodes as C
from tests.injected.fault import BY_LIMIT, BY_STAGEIN, BY_STAGEOUT, Fault, Scene
from tests.injected.user import definition_with
from tests.site import DISK
from tests.x509 import make_x509

_OUTPUT = {"outFiles": "out.txt"}
_MAKES_OUTPUT = "echo made > out.txt"
_EXPIRED_TOKEN = (
    # {"alg":"none"} {"iss":"test","exp":1000000000}: the pilot reads when a token ends and leaves the rest to servers.
    "eyJhbGciOiJub25lIn0.eyJpc3MiOiJ0ZXN0IiwiZXhwIjoxMDAwMDAwMDAwfQ.c2lnbmVk"
)


def leaves(
    name: str,
    how: str,
    code: int,
    blame: str,
    *said: str,
    shell: int,
    queue: dict[str, object] | None = None,
    **more: object,
) -> Fault:
    """A pilot that leaves without a job. more: of the row."""
    return Fault(name, how, code, blame, "", said, job=None, queue=queue or {}, shell=shell, **more)  # type: ignore[arg-type]


def _other_queue(scene: Scene) -> None:
    scene.queue_name = "NO_SUCH_QUEUE"


def _file_in_the_way(scene: Scene) -> None:
    scene.folder.joinpath("file").write_text("")


def _short_proxy(scene: Scene) -> None:
    scene.env["X509_USER_PROXY"] = str(make_x509(scene.folder).proxy(hours=0.5, voms=False))


def _plain_proxy(scene: Scene) -> None:
    scene.env["X509_USER_PROXY"] = str(make_x509(scene.folder).proxy(hours=12, voms=False))


def _short_voms_proxy(scene: Scene) -> None:
    scene.env["X509_USER_PROXY"] = str(make_x509(scene.folder).proxy(hours=0.5))


def _expired_proxy(scene: Scene) -> None:
    scene.env["X509_USER_PROXY"] = str(make_x509(scene.folder).proxy(hours=-1, voms=False))


def _expired_token(scene: Scene) -> None:
    Path(scene.folder, "token").write_text(_EXPIRED_TOKEN)
    scene.env.update(PANDA_AUTH_TOKEN=str(scene.folder / "token"), PANDA_AUTH_ORIGIN="vo.pilot")


def _spent_slot(scene: Scene) -> None:
    features = scene.folder / "features"
    features.mkdir()
    features.joinpath("wall_limit_secs").write_text("100\n")
    features.joinpath("jobstart_secs").write_text(f"{int(time.time()) - 1000}\n")
    scene.env["JOBFEATURES"] = str(features)


def _storages(scene: Scene) -> None:
    """One without a protocol, one whose paths cannot be computed."""
    protocols = [{"endpoint": "file://localhost", "flavour": "local", "id": 1, "path": f"{scene.folder}/"}]
    described = {
        "BARE_DISK": {"state": "ACTIVE", "is_deterministic": True, "arprotocols": {}},
        "ODD_DISK": {"state": "ACTIVE", "is_deterministic": False, "arprotocols": {"default": protocols}},
    }
    scene.site.call("storage/add", {"storages": described})


def output_at(endpoint: str) -> dict[str, object]:
    """A job whose output goes there, and its log where logs always go."""
    return {"outputs": [{"local": "out.txt", "endpoint": endpoint}]}


FAULTS = (
    leaves("the queue is offline", "status offline", C.PANDAQUEUENOTONLINE, "site", "offline", shell=83,
           queue={"status": "offline"}),
    leaves("the queue is not active", "state DISABLED", C.PANDAQUEUENOTACTIVE, "site", "DISABLED", shell=78,
           queue={"state": "DISABLED"}),
    leaves("the queue's description is malformed", "maxwdir `many`", C.QUEUEDATANOTOK, "site", "maxwdir", shell=72,
           queue={"maxwdir": "many"}),
    leaves("the queue is not known", "a queue that the server does not have", C.QUEUEDATA, "server", "NO_SUCH_QUEUE",
           shell=71, before=_other_queue),
    leaves("there is no space to start", "space_to_start larger than any disk", C.NOLOCALSPACE, "site",
           "bytes are free on the work disk", shell=69, settings="[File]\nspace_to_start = 1000000000000000000\n"),
    leaves("the pilot's directory cannot be made", "--workdir below a file", C.MKDIR, "site", "file/x", shell=66,
           options=("-a", "{folder}/file/x"), before=_file_in_the_way),
    leaves("there is no such experiment plugin", "--pilot-user nosuch", C.NOTDEFINED, "pilot", "nosuch", "generic",
           shell=1, options=("--pilot-user", "nosuch")),
    leaves("the queue wants a proxy, and there is none", "needs_proxy in catchall", C.NOPROXY, "site", "needs_proxy",
           shell=68, queue={"catchall": "needs_proxy"}),
    leaves("the proxy has ended", "a proxy that ended an hour ago", C.CERTIFICATEHASEXPIRED, "site", "ended", shell=68,
           queue={"catchall": "needs_proxy"}, before=_expired_proxy),
    leaves("the proxy ends too soon", "a proxy of half an hour", C.PROXYTOOSHORT, "site", "are needed", shell=80,
           queue={"catchall": "needs_proxy"}, before=_short_proxy),
    leaves("the VOMS attributes end too soon", "a VOMS proxy of half an hour", C.VOMSPROXYABOUTTOEXPIRE, "site",
           "are needed", shell=1, queue={"catchall": "needs_proxy=any"}, before=_short_voms_proxy),
    leaves("the proxy has no VOMS attributes", "a plain proxy, needs_proxy=any", C.NOVOMSPROXY, "site", "VOMS",
           shell=68, queue={"catchall": "needs_proxy=any"}, before=_plain_proxy),
    leaves("the pilot's token has ended", "a token that ended in 2001", C.CERTIFICATEHASEXPIRED, "site", "ended at",
           shell=68, before=_expired_token),
    leaves("there is no time for a job", "job features of a slot that is over", C.REACHEDMAXTIME, "batch",
           "wall_limit_secs", shell=81, before=_spent_slot, charged=False),
    Fault("space runs out while the payload runs", "space_to_run larger than any disk", C.NOLOCALSPACE, "site",
          BY_LIMIT, ("bytes are left on the work disk",), "exec sleep 60", shell=69,
          settings="[Payload]\nstdout_check = 0.2\n[File]\ndisk_check = 0.2\nspace_to_run = 1000000000000000000\n"),
    Fault("the copytool's program is missing", "copytool lsm, without its scripts", C.MIDDLEWAREIMPORTFAILURE, "site",
          BY_STAGEOUT, ("lsm-put is not on the PATH",), queue={"acopytools": {"default": ["lsm"]}}, shell=76,
          log=False),
    Fault("the copytool does not exist", "copytool scp", C.UNKNOWNCOPYTOOL, "site", BY_STAGEOUT, ("scp",),
          queue={"acopytools": {"default": ["scp"]}}, shell=1, log=False),
    Fault("the queue has no storage for outputs", "astorages without one", C.NOSTORAGE, "site", BY_STAGEOUT,
          ("out.txt",), _MAKES_OUTPUT, job=_OUTPUT, queue={"astorages": {"pl": [DISK]}}, shell=1,
          before=definition_with(ddmEndPointOut="", destinationSE="", fileDestinationSE="")),
    Fault("a storage has no protocol", "a storage without protocols", C.NOSTORAGEPROTOCOL, "site", BY_STAGEOUT,
          ("BARE_DISK",), _MAKES_OUTPUT, job=output_at("BARE_DISK"), before=_storages, shell=1),
    Fault("a storage's paths cannot be computed", "a storage that is not deterministic", C.NONDETERMINISTICDDM, "site",
          BY_STAGEOUT, ("ODD_DISK",), _MAKES_OUTPUT, job=output_at("ODD_DISK"), before=_storages,
          shell=1),
    Fault("an input's storage is not known here", "an input at NO_DISK, which nobody has described", C.NOSTORAGE,
          "site", BY_STAGEIN, ("NO_DISK",), shell=1,
          job={"inputs": [{"lfn": "in.root", "scope": "mc", "endpoint": "NO_DISK", "fsize": 5,
                           "checksum": "ad:00000001", "guid": "6cca2449-024a-46eb-9bc1-e98a1cefaaf8"}]}),
)  # fmt: skip
