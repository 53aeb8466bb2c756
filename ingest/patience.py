"""How long to wait before the next connection to a broker, from how the last ones ended. Pure.

Quickly after a cut, slowly after a refusal: the broker will not change its mind soon. And slowly when somebody else took
the session: two who take it from each other deliver nothing.
"""

FIRST_DELAY_S, LONGEST_DELAY_S = 0.25, 30.0
FIRST_REFUSED_DELAY_S, LONGEST_REFUSED_DELAY_S = 5.0, 300.0
MOST_DOUBLINGS = 7

UNDISTURBED_S = 600.0
"""A session that was ours for so long was not taken in a quarrel with the last who took it."""

BRIEF_S, LONGEST_BRIEF_DELAY_S, QUARREL = 10.0, 5.0, 4
"""Not every broker says that somebody took the session (Mosquitto 2.0 just hangs up). After connections that lasted no
longer than this, one after another, the next waits, at most so long; so many in a row are told as a takeover."""

REFUSED = frozenset({4, 5, 0x86, 0x87, 0x8A, 0x8C})
"""Reasons of MQTT 3.1.1 and 5 that mean no: bad name or password, not authorised, banned, bad method."""

TAKEN_OVER = 0x8E


class Patience:
    """What is remembered of connections. One thread."""

    def __init__(self) -> None:
        self.failures = 0
        """Tries in a row that did not end in a subscription."""

        self.times_taken_over = 0
        """How often another client came under this one's name. A broker tells it in MQTT 5 only."""

        self._refusals = 0
        self._takeovers = 0
        self._brief = 0

    def unreachable(self) -> None:
        self.failures += 1
        self._brief = 0

    def refused(self, code: int) -> None:
        """The broker answered the connection with a reason other than success."""
        self.failures += 1
        self._refusals += code in REFUSED

    def not_granted(self) -> None:
        """The broker let this client in and refused its subscription."""
        self._refusals += 1

    def subscribed(self) -> None:
        self.failures = self._refusals = 0

    def ended(self, code: int, lasted_s: float | None, stopping: bool) -> str:
        """A connection ended with a reason, after so many s since it was subscribed (None: it never was).

        Returns how it looks as if another client had taken the session; empty if it does not.
        """
        if lasted_s is not None:
            self._takeovers = 0 if lasted_s > UNDISTURBED_S else self._takeovers
            self._brief = self._brief + 1 if lasted_s < BRIEF_S and not stopping else 0
        elif not stopping:
            self.failures += 1
        self._refusals += code in REFUSED
        if code == TAKEN_OVER:
            self._takeovers += 1
            self.times_taken_over += 1
            return "another connection with the worker's name took its session at the broker"
        if self._brief >= QUARREL:
            return "the broker lets this worker in and ends its connection, again and again: another may have its name"
        return ""

    def delay_s(self) -> float:
        """The longest to wait before the next try; 0 is at once. Wait for a random part of it, so that not all come together."""
        delay_s = 0.0
        if no := max(self._refusals, self._takeovers):
            delay_s = _doubled(FIRST_REFUSED_DELAY_S, no - 1, LONGEST_REFUSED_DELAY_S)
        elif self.failures:
            delay_s = _doubled(FIRST_DELAY_S, self.failures, LONGEST_DELAY_S)
        if self._brief > 1:
            delay_s = max(delay_s, _doubled(FIRST_DELAY_S, self._brief, LONGEST_BRIEF_DELAY_S))
        return delay_s


def _doubled(first_s: float, times: int, longest_s: float) -> float:
    return min(longest_s, first_s * 2 ** min(times, MOST_DOUBLINGS))
