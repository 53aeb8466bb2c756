"""How often somebody may be wrong: a sliding minute, for a bounded number of names. Not thread-safe."""

from collections import OrderedDict, deque
from collections.abc import Hashable
from ipaddress import IPv6Address, ip_address

MOST_WRONG = 10
WINDOW_S = 60.0
MOST_NAMES = 10_000


class Throttle:
    """At most `most` failures of a name in any `window_s`; beyond that nothing it says is looked at."""

    def __init__(self, most: int = MOST_WRONG, window_s: float = WINDOW_S, names: int = MOST_NAMES) -> None:
        self._most, self._window_s, self._names = most, window_s, names
        self._failures: OrderedDict[Hashable, deque[float]] = OrderedDict()

    def shut(self, name: Hashable, now_s: float) -> bool:
        """Whether this name has used up its tries. `now_s` is monotonic."""
        failures = self._failures.get(name)
        return failures is not None and len(failures) == self._most and now_s - failures[0] < self._window_s

    def failed(self, name: Hashable, now_s: float) -> None:
        """One more. The name that has been right for longest is forgotten when there are too many."""
        failures = self._failures.get(name)
        if failures is None:
            failures = self._failures[name] = deque(maxlen=self._most)
            if len(self._failures) > self._names:
                self._failures.popitem(last=False)
        else:
            self._failures.move_to_end(name)
        failures.append(now_s)


def source_of(host: str) -> str:
    """What counts as one source: an IPv4 address, or the /64 that an IPv6 address is one of."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host[:64]
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return str(address)
