"""What whoever runs a payload of the event service has to bring: the payload, its event ranges, and an ear."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Union

from pilot.eventservice.esprocess.esmessage import OutMessage
from pilot.util.https import Json

# What a payload is: executable (a command, or its words), output_file, error_file, and env (its whole environment).
Payload = Mapping[str, Union[str, "list[str]", Mapping[str, str]]]


class ESHook:
    """To be derived from. Its methods are called by one thread at a time, which is not the one that made it."""

    def get_payload(self) -> Payload:
        """The payload to run: executable, output_file, error_file; env where it is not to be an empty one.

        Only asked by ESProcess: the pilot's own executor starts payloads as all others. Raises PilotException.
        """
        raise NotImplementedError

    def get_event_ranges(self, num_ranges: int = 1) -> list[dict[str, Json]]:
        """The next event ranges, at most so many; an empty list when there are no more.

        Raises ESRecoverable when there may be some later: then the payload waits. Any other PilotException means that
        there are no more.
        """
        raise NotImplementedError

    def handle_out_message(self, message: OutMessage) -> None:
        """Take what the payload says of one of its ranges. May raise PilotException, which is logged."""
        raise NotImplementedError
