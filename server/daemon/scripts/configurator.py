"""configurator: takes over what the experiment's information service (CRIC) says of queues, storages and sites.

Without arguments it asks for sites, storages, the blacklist and queues, with --network for the matrix of connections
between sites, with --sw_tags for the software of queues. With --json_dump it is cache_schedconfig.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from server.daemon.scripts import cache_schedconfig
from server.logic import cric
from server.logic.context import Context
from server.logic.exclusions import BLACKLIST
from server.logic.fetching import fetch
from server.logic.software import SOFTWARE

logger = logging.getLogger(__name__)

#: Sources by argument, in the order in which they are asked: what queues name comes before them.
_SOURCES = {
    "": (cric.SITES, cric.STORAGES, BLACKLIST, cric.QUEUES),
    "--network": (cric.NETWORK,),
    "--sw_tags": (SOFTWARE,),
}


def run(context: Context, arguments: Sequence[str]) -> bool:
    """Ask the sources once."""
    argument = arguments[0] if arguments else ""
    if argument == "--json_dump":
        return cache_schedconfig.run(context, ())
    if argument not in _SOURCES:
        logger.error(
            "configurator does not know the argument %r; there are --network, --sw_tags, --json_dump", argument
        )
        return False
    ask = partial(fetch, patience=context.settings.cric_timeout)
    for source in _SOURCES[argument]:
        for line in cric.refresh(context, source, ask):
            logger.warning("%s: %s", source, line)
    return False
