"""What follows from many sessions, or from many devices: over-use, wear, and faults in common. Pure.

A scenario cannot say it in advance; it is worked out from what the devices really did. What lies
so near to a limit that rounding decides is expected, but not required.
"""

from collections import defaultdict, deque
from collections.abc import Hashable
from dataclasses import dataclass
from statistics import median

from ingest.simulator.truth import Expectation
from schemas.alerts import FLEET, Severity
from schemas.profile import Profile

MINUTE_MS, DAY_MS, WEEK_MS = 60_000, 86_400_000, 7 * 86_400_000
BUCKET_SLACK_MS = 3 * MINUTE_MS
OUTPUT_SLACK_S = 90.0
SESSIONS_A_DAY = 3
SPARE_SESSIONS_A_WEEK = 2
COUNTED_OUTPUT_S = 60
CLUSTER_DEVICES = 3
WEAR_SLACK = 0.02


@dataclass(frozen=True, slots=True)
class Follows:
    """An alert that follows from accumulated use. With `any_session` it may have been raised earlier."""

    rule: str
    severity: Severity
    onset_ms: int
    required: bool
    any_session: bool = False


@dataclass(frozen=True, slots=True)
class Used:
    began_ms: int
    ended_ms: int
    output_s: int


class Use:
    """Sessions of one device, for `daily-overuse`."""

    def __init__(self, profile: Profile) -> None:
        self._limits = profile.session
        self._past: deque[Used] = deque()

    def ended(self, session: Used) -> Follows | None:
        """What this session, now over, must have caused. Times on one clock, ms."""
        while self._past and self._past[0].ended_ms < session.began_ms - WEEK_MS - 2 * BUCKET_SLACK_MS:
            self._past.popleft()
        self._past.append(session)
        surely = self._found(session, -1)
        found = surely or self._found(session, 1)
        if found is None:
            return None
        severity, after_s = found
        return Follows("daily-overuse", severity, session.began_ms + round(after_s * 1000), required=surely is not None)

    def _found(self, session: Used, lean: int) -> tuple[Severity, float] | None:
        """The severity and its onset, leaning to the mild (-1) or the severe side (1) of each limit."""
        seen_ms = session.ended_ms + BUCKET_SLACK_MS if lean < 0 else session.began_ms - BUCKET_SLACK_MS
        day = [s for s in self._past if s.ended_ms > seen_ms - DAY_MS]
        week = [s for s in self._past if s.ended_ms > seen_ms - WEEK_MS]
        output_s = sum(s.output_s for s in day)
        margin_s = OUTPUT_SLACK_S if lean < 0 else 0.0
        if output_s > self._limits.daily_max_s + margin_s:
            return Severity.WARNING, max(self._limits.daily_max_s - (output_s - session.output_s), 0.0)
        counted_s = COUNTED_OUTPUT_S - 10 * lean
        many = _counted(day, counted_s) > SESSIONS_A_DAY
        often = _counted(week, counted_s) > self._limits.weekly_initiation + SPARE_SESSIONS_A_WEEK
        if session.output_s >= counted_s and (many or often):
            return Severity.INFO, float(COUNTED_OUTPUT_S)
        return None


def _counted(sessions: list[Used], least_s: int) -> int:
    return sum(s.output_s >= least_s for s in sessions)


class Wear:
    """Median impedances of a device's sessions, for `electrode-wear`."""

    FIRST = LAST = 5
    WORN, WORN_OUT = 1.3, 1.5

    def __init__(self) -> None:
        self._medians: list[float] = []
        self._since_ms: int | None = None
        self._required = False

    def ended(self, good_ohm: list[float], ended_ms: int) -> Follows | None:
        """What this session must cause once it is over.

        One alert is opened when electrodes are worn and grows graver when they are worn out: it is
        required once, then, and may stand since the session in which wear first showed.
        """
        if not good_ohm:
            return None
        self._medians.append(median(good_ohm))
        if len(self._medians) <= self.FIRST:
            return None
        ratio = median(self._medians[-self.LAST :]) / median(self._medians[: self.FIRST])
        if ratio < self.WORN - WEAR_SLACK:
            return None
        if self._since_ms is None:
            self._since_ms = ended_ms
        if ratio >= self.WORN_OUT + WEAR_SLACK and not self._required:
            self._required = True
            return Follows("electrode-wear", Severity.WARNING, self._since_ms, required=True, any_session=True)
        return Follows("electrode-wear", Severity.INFO, ended_ms, required=False)


class Clusters:
    """Critical faults that devices of one lot or one firmware have in common, for `fleet-cluster`."""

    def __init__(self) -> None:
        self._groups: dict[str, tuple[Hashable, ...]] = {}
        self._hits: dict[str, dict[str, list[Expectation]]] = defaultdict(lambda: defaultdict(list))
        self._told: set[tuple[Hashable, str]] = set()

    def add(self, device_id: str, model: str, lot: str, fw: str) -> None:
        self._groups[device_id] = (("lot", model, lot), ("fw", model, fw))

    def note(self, expectation: Expectation) -> list[Expectation]:
        """The alerts about the fleet that this alert about a device completes."""
        if expectation.severity is not Severity.CRITICAL or expectation.device_id not in self._groups:
            return []
        hits = self._hits[expectation.rule]
        hits[expectation.device_id].append(expectation)
        found = []
        for group in self._groups[expectation.device_id]:
            completed = (group, expectation.rule)
            recent = [
                hit for device_id, ofs in hits.items() for hit in ofs
                if group in self._groups[device_id] and abs(hit.onset_ms - expectation.onset_ms) <= WEEK_MS
            ]  # fmt: skip
            if completed not in self._told and len({hit.device_id for hit in recent}) >= CLUSTER_DEVICES:
                self._told.add(completed)
                found.append(Expectation(
                    device_id=FLEET, session_id=None, scenario=expectation.scenario, rule="fleet-cluster",
                    severity=Severity.CRITICAL, onset_ms=expectation.onset_ms, by_ms=expectation.by_ms + MINUTE_MS,
                    required=len({hit.device_id for hit in recent if hit.required}) >= CLUSTER_DEVICES,
                ))  # fmt: skip
        return found
