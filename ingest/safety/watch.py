"""Readings of one session put in event order, and judged again where late ones change the past.

Devices batch, phones delay, networks reorder. A watch holds readings back until all streams of
the session have reached their time (at most REORDER_MS), then judges each once. A reading that
comes later still marks the watch `late_from_ms`: the session is judged again from a checkpoint,
a piece at a time, for it may be long and others wait.
"""

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import attrgetter

from ingest.safety.judge import Judged, gap_due_ms, judge, urgent_alerts
from ingest.safety.track import Reading, Track
from schemas.alerts import Alert
from schemas.messages import RunState

REORDER_MS = 10_000
CHECKPOINT_MS = 60_000
MOST_CHECKPOINTS = 3

PACING = frozenset({"current", "contact", "runtime"})
"""The streams that are waited for; the others speak too rarely."""

_ORDER = attrgetter("order")


class Again:
    """A session judged again from a known state, a piece at a time; `state` becomes what it would have been.

    `reload`: nothing is known yet of the time after that state, so nothing is judged beside it either. `gaps`: silences
    told before; of each it is noted when the first reading after its onset was received.
    """

    def __init__(self, state: Track, reload: bool = False, gaps: Iterable[Alert] = ()) -> None:
        self.state = state
        self.reload = reload
        self.after_ms = self.upto_ms = state.frontier_ms
        """What is judged again begins after the first, and has come to the second."""

        self.judged = Judged()
        self.judged.alerts |= {alert.id: alert for alert in state.open.values()}
        self.checkpoints: list[tuple[int, bytes]] = []
        self.arrived_ms: dict[int, int | None] = {gap.onset_ms: None for gap in gaps}

    def go_on(self, readings: list[Reading], upto_ms: int) -> None:
        """All readings on record from `self.upto_ms` to `upto_ms`."""
        for reading in sorted(readings, key=_ORDER):
            judge(self.state, reading, self.judged)
            for onset_ms, at_ms in self.arrived_ms.items():
                if reading.t_ms > onset_ms and (at_ms is None or reading.received_ms < at_ms):
                    self.arrived_ms[onset_ms] = reading.received_ms
        self.upto_ms = self.state.frontier_ms = upto_ms
        if upto_ms - (self.checkpoints[-1][0] if self.checkpoints else self.after_ms) >= CHECKPOINT_MS:
            self.checkpoints = [*self.checkpoints, (upto_ms, self.state.to_json())][-MOST_CHECKPOINTS:]


@dataclass(slots=True)
class Watch:
    track: Track
    waiting: list[Reading] = field(default_factory=list)
    latest_ms: dict[str, int] = field(default_factory=dict)
    newest_ms: int = -1
    received_ms: int = 0
    hole: bool = False
    late_from_ms: int | None = None
    again: Again | None = None
    """The session is being judged again."""
    last_order: tuple | None = None
    """That of the last reading judged, where it is known: at the same time others may still follow it."""
    checkpoints: list[tuple[int, bytes]] = field(default_factory=list)
    lacking: bool = False
    """The checkpoint on record lacks a reading of its own time."""
    held_back: dict[str, tuple[int, Alert]] = field(default_factory=dict)
    announced: dict[str, Alert] = field(default_factory=dict)
    tail_gap: Alert | None = None
    settled_ms: int | None = None
    queued_ms: int | None = None
    recorded: tuple | None = None
    minutes: int = 0
    look_again_s: float = 0.0

    def add(self, readings: list[Reading], hole: bool = False) -> None:
        """Take in the readings of one message.

        `hole` says that a message shortly before this one is still missing.
        """
        self.hole = hole
        waiting, frontier_ms, last = self.waiting, self.track.frontier_ms, self.last_order
        for reading in readings:
            t_ms = reading.t_ms
            if t_ms <= frontier_ms and (last is None or reading.order <= last):
                if self.again is not None and t_ms > self.again.upto_ms:
                    continue  # it will come by
                self.late_from_ms = t_ms if self.late_from_ms is None else min(self.late_from_ms, t_ms)
            else:
                if t_ms == frontier_ms:
                    self.lacking |= self._forget_checkpoints(t_ms)
                if not waiting or waiting[-1].t_ms < t_ms:
                    waiting.append(reading)
                else:
                    insort(waiting, reading, key=_ORDER)
            if t_ms > self.newest_ms:
                self.newest_ms = t_ms
            if not reading.partial and t_ms > self.latest_ms.get(reading.stream, -1):
                self.latest_ms[reading.stream] = t_ms
        self.received_ms = max(self.received_ms, readings[-1].received_ms)

    def announce(self, readings: list[Reading]) -> list[Alert]:
        """What single samples say before their turn, each rule once."""
        fresh = []
        for reading in readings:
            if reading.t_ms <= self.track.frontier_ms:
                continue
            for alert in urgent_alerts(self.track, reading):
                if alert.rule not in self.announced:
                    self.announced[alert.rule] = alert
                    fresh.append(alert)
        return fresh

    def advance(self, everything: bool = False) -> Judged:
        """Judge what no earlier reading is expected for; `everything` waits for nothing more."""
        judged = Judged()
        if self.is_reloading:
            return judged
        until_ms = self.newest_ms if everything else self._settled_until_ms()
        waiting, track = self.waiting, self.track
        count = 0
        for reading in waiting:
            if reading.t_ms > until_ms:
                break
            judge(track, reading, judged)
            count += 1
        if count:
            self.last_order = waiting[count - 1].order
            del waiting[:count]
        if until_ms > track.frontier_ms:
            track.frontier_ms, self.last_order = until_ms, None
        for rule, alert in list(self.announced.items()):
            if alert.opened_ms <= track.frontier_ms:
                del self.announced[rule]
                if alert.id not in judged.alerts:
                    judged.unconfirmed.append(alert.id)
        return judged

    def _settled_until_ms(self) -> int:
        floor_ms = self.newest_ms - REORDER_MS
        if self.hole:
            return floor_ms
        pacing = [t_ms for stream, t_ms in self.latest_ms.items() if stream in PACING]
        return max(min(pacing, default=self.newest_ms), floor_ms)

    @property
    def is_late(self) -> bool:
        """Whether what is known of the session lacks something that came late."""
        return self.late_from_ms is not None or self.again is not None

    @property
    def is_reloading(self) -> bool:
        return self.again is not None and self.again.reload

    def judge_again(self, gaps: Iterable[Alert]) -> None:
        """From before the first late reading on."""
        self.again, self.late_from_ms = Again(self._state_before(self.late_from_ms), gaps=gaps), None

    def has_been_judged_again(self) -> Again:
        """Go on from what came of it."""
        again, self.again = self.again, None
        self.track, self.recorded, self.settled_ms, self.last_order = again.state, None, None, None
        self.checkpoints = [*self.checkpoints, *again.checkpoints][-MOST_CHECKPOINTS:]
        self.held_back = {i: (due, alert) for i, (due, alert) in self.held_back.items() if alert.opened_ms <= again.after_ms}
        return again

    def checkpoint_due(self) -> bool:
        if self.waiting and self.waiting[0].t_ms <= self.track.frontier_ms:
            return False  # it would lack a reading of its own time
        last_ms = self.checkpoints[-1][0] if self.checkpoints else -1
        return self.track.frontier_ms - last_ms >= CHECKPOINT_MS

    def checkpoint(self) -> bytes:
        """Note the state as it is; returns it for keeping."""
        state = self.track.to_json()
        self.checkpoints.append((self.track.frontier_ms, state))
        del self.checkpoints[:-MOST_CHECKPOINTS]
        return state

    def _state_before(self, t_ms: int) -> Track:
        """The latest known state that holds nothing of `t_ms` or after; a blank one if none does."""
        self._forget_checkpoints(t_ms)
        if self.checkpoints:
            return Track.from_json(self.checkpoints[-1][1])
        return Track(self.track.device_id, self.track.session)

    def _forget_checkpoints(self, from_ms: int) -> bool:
        """Those that hold anything of this time or after; whether there were any."""
        before = len(self.checkpoints)
        self.checkpoints = [(f, s) for f, s in self.checkpoints if f < from_ms]
        return len(self.checkpoints) < before

    @property
    def is_final(self) -> bool:
        """Nothing more is expected of this session, for it has ended or gone silent long ago."""
        return self.settled_ms is not None and self.settled_ms == self.track.last_received_ms

    @property
    def awaits_the_end(self) -> bool:
        return self.track.session_id is not None and self.track.figures.ended and not self.is_final

    @property
    def unsettled(self) -> bool:
        """Whether time alone can still change what is said of this session."""
        return (
            bool(self.waiting or self.held_back)
            or self.is_late
            or (self.track.run_state == RunState.RUNNING and self.tail_gap is None)
            or self.awaits_the_end
        )

    def next_due_ms(self) -> int | None:
        """When time alone next matters, in receive time."""
        due = [due_ms for due_ms, _ in self.held_back.values()]
        if self.waiting:
            due.append(self.received_ms + REORDER_MS)
        elif self.track.last_ms is not None and (
            self.awaits_the_end or (self.track.run_state == RunState.RUNNING and self.tail_gap is None)
        ):
            due.append(gap_due_ms(self.track))
        return min(due, default=None)
