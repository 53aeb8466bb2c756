"""What the lines of a broker's log mean for security. The words are those of Mosquitto 2.0 and nats-server 2."""

import re
from collections import deque
from typing import NamedTuple

from schemas.security import SecurityKind

MOST_UNDECIDED = 1_000

_CAME = re.compile(r"New connection from (\S+):\d+ on port \d+\.$")
_LET_IN = re.compile(r"New client connected from (\S+):\d+ as ")
_REFUSED = re.compile(r"Client (.{1,128}) disconnected, not authorised\.$")
_TAKEN_OVER = re.compile(r"Client ([A-Za-z0-9_~-]{1,64}) already connected, closing old connection\.$")
_BAD_CERTIFICATE = re.compile(r"OpenSSL Error\[0\]: .*(certificate|no shared cipher|unsupported protocol|version|alert)")
_WENT = re.compile(r"Client <unknown> (closed|disconnected|has exceeded)")
_CREDENTIALS = re.compile(r": credentials (.{1,40}) (for|of) ([A-Za-z0-9_-]{1,64})$")
_VIOLATION = re.compile(r'- "([A-Za-z0-9_-]{1,64})" - (Publish|Subscription) Violation - .*[Ss]ubject "([^"]{1,128})"')


class Seen(NamedTuple):
    kind: SecurityKind
    who: str
    source: str
    detail: str


class MosquittoLog:
    """Reads line by line. Mosquitto names the address when somebody comes and not when it refuses; the two are put
    together while only one connection is undecided, and else the source is left open."""

    def __init__(self) -> None:
        self._undecided: deque[str] = deque(maxlen=MOST_UNDECIDED)

    def read(self, line: str) -> Seen | None:
        if found := _CAME.search(line):
            self._undecided.append(found[1])
        elif found := _LET_IN.search(line):
            if found[1] in self._undecided:
                self._undecided.remove(found[1])
        elif found := _REFUSED.search(line):
            who = found[1] if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", found[1]) else ""
            return Seen(SecurityKind.AUTH_FAILURE, who, self._source(), "refused by the broker: name or password")
        elif _BAD_CERTIFICATE.search(line):
            source = self._undecided[-1] if len(self._undecided) == 1 else ""
            return Seen(SecurityKind.AUTH_FAILURE, "", source, "refused by the broker: certificate or TLS version")
        elif _WENT.search(line):
            self._source()
        elif found := _TAKEN_OVER.search(line):
            return Seen(SecurityKind.TAKEOVER, found[1], "", "another connection with its credential took its place at the broker")
        elif found := _CREDENTIALS.search(line):
            return Seen(SecurityKind.CREDENTIALS, found[3], "", found[1])
        return None

    def _source(self) -> str:
        alone = len(self._undecided) == 1
        source = self._undecided.popleft() if self._undecided else ""
        return source if alone else ""


def violation(line: str) -> Seen | None:
    """What nats-server says when somebody known tries what is not theirs."""
    found = _VIOLATION.search(line)
    if not found:
        return None
    verb = "publish" if found[2] == "Publish" else "subscribe to"
    return Seen(SecurityKind.FORBIDDEN, found[1], "", f"may not {verb} {found[3].replace('.', '/')}")
