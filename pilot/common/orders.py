"""When a utility runs: the documented names of the moments around a payload (chapter 7.3.2, pilot.md section 6)."""

from __future__ import annotations

UTILITY_BEFORE_PAYLOAD = "before payload"
"""Before the pre-process; the payload waits for it."""
UTILITY_WITH_PAYLOAD = "with payload"
"""Before the payload in the same shell: it may set variables for it."""
UTILITY_AFTER_PAYLOAD_STARTED = "after payload started"
"""Beside the payload, which it does not outlive."""
UTILITY_AFTER_PAYLOAD_FINISHED = "after payload finished"
"""After the payload's end and the post-process; stage-out waits for it."""
UTILITY_AFTER_PAYLOAD_FINISHED2 = "after payload finished, second"
"""After those."""
UTILITY_WITH_STAGEIN = "with stage-in"
"""Beside stage-in, which it does not outlive."""
