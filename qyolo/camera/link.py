"""The state of a connection that may break at any time."""

import logging
from typing import Final

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 30.0

log = logging.getLogger(__name__)


class Link:
    """Logs when the connection or the reason of its failure changes, not at each attempt."""

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self.reason: str | None = ""  # why it is down; None while it is up
        self._wait_s = FIRST_WAIT_S

    def up(self) -> None:
        if self.reason is not None:
            log.info("%s: connected", self._peer)
        self.reason, self._wait_s = None, FIRST_WAIT_S

    def down(self, reason: str, retry_after_s: float | None = None) -> float:
        """The seconds to wait before the next attempt: as told, or longer after each failure."""
        if reason != self.reason:
            log.warning("%s: %s; trying again", self._peer, reason)
        self.reason, wait_s = reason, self._wait_s
        if retry_after_s is not None:
            return min(retry_after_s, LONGEST_WAIT_S)
        self._wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        return wait_s
