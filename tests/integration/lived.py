"""A small fleet with a past, through the real core: everything that the worker tells its store of it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import orjson

from ingest.canary import Canary
from ingest.lookout import Sight
from ingest.mqtt import Delivery
from ingest.points import Entry
from ingest.pressure import Pressure
from ingest.reports import Links
from ingest.safety.expiry import Certificate, Reading
from ingest.simulator.devices import Role
from ingest.simulator.offline import Arrival, generate
from ingest.simulator.scenario import HEALTHY
from ingest.simulator.scenarios import find
from schemas import topics
from schemas.messages import Zone
from schemas.security import CertificateKind, SecurityKind
from schemas.topics import Stream
from tests.line import MODEL, PROFILES, START_MS, Line, deliver, envelope, message, pulse, sample

DAY_MS = 86_400_000
PULSE_MS = 10_000

UPDATED, OLD_FW, NEW_FW = "tone-updated", "2.3.1", "2.10.0"
BADLY_SEEN = "tone-badly-seen"
STEADY = "tone-steady"
AT_RISK = "tone-at-risk"
OLD_FASHIONED = "tone-old-fashioned"

ROLES = (
    *(Role(f"well-{model}", model, HEALTHY) for model in ("lumabar-s15", "tonetip-e", "ursa-adapt-10", "gelwave-multi")),
    *(Role(f"latched-{n}", MODEL, find("7"), lot="L-bad") for n in range(3)),
    Role("backfilled", MODEL, find("27")),
    Role("doubled", MODEL, find("28")),
    Role("dried", MODEL, find("5"), fw=NEW_FW),
    Role("hot", MODEL, find("24"), fw=NEW_FW),
    Role(BADLY_SEEN, MODEL, HEALTHY),
    Role(OLD_FASHIONED, MODEL, HEALTHY, fw="1.9"),
    Role(UPDATED, MODEL, HEALTHY, fw=OLD_FW),
)

COURSE_DAYS = 31
SESSION_S, BATCH_S = 300, 30
ZONES = (Zone.FOREHEAD, Zone.CHEEK_L, Zone.CHEEK_R, Zone.JAW_L, Zone.JAW_R, Zone.NASOLABIAL_L, Zone.NASOLABIAL_R, Zone.BROW_L, Zone.BROW_R, Zone.FOREHEAD)

FIRST_LIFE_S, SECOND_LIFE_S, AFTERWARDS_MS = 1_500.0, 900.0, 20 * 60_000


def live(directory: Path, write: Callable[[list[Entry]], None]) -> int:
    """Their life, from a month ago on; `write` is given what a store would be given. Returns its end, ms since 1970."""
    with Line(directory) as line:
        line.core.reports.links = lambda: Links(broker_connected=True, store_ok=True)
        line.core.lookout.see = lambda: Sight(True, "", False, START_MS - 5_000, True, "")  # the broker lost the session before
        certificate = Certificate(CertificateKind.BROKER, "broker.example", "broker.example:8883", 0, START_MS + 200 * DAY_MS, "1")
        line.core.lookout.certificates = lambda: Reading((certificate,))
        line.core.disk.pressure = Pressure(used_bytes=10**6, free_bytes=10**9)
        life = _Life(line, write)
        for day in range(COURSE_DAYS, 0, -1):
            life.go_on(*steady_session(START_MS - day * DAY_MS, COURSE_DAYS - day))
        life.lived(generate(ROLES, PROFILES, 1, start_ms=START_MS, duration_s=FIRST_LIFE_S, first_within_s=60.0))
        again_ms = life.now_ms + 60_000
        updated = Role(UPDATED, MODEL, HEALTHY, fw=NEW_FW)
        life.lived(generate((updated,), PROFILES, 2, start_ms=again_ms, duration_s=SECOND_LIFE_S, first_within_s=60.0))
        life.acknowledge_one("critical")
        life.acknowledge_one("warning")
        begin_ms = life.now_ms + 1_000
        life.go_on(*at_risk(begin_ms), *refused(begin_ms))
        life.send_a_canary()
        for kind in SecurityKind:
            line.core.security.note(kind, life.now_ms, who="somebody")
        life.wait(AFTERWARDS_MS)
        life.go_on(*at_risk(life.now_ms + 1_000, seq=10))
        life.wait(PULSE_MS)
        return life.now_ms


class _Life:
    """Time passes, and the store takes what there is for it."""

    def __init__(self, line: Line, write: Callable[[list[Entry]], None]) -> None:
        self._line = line
        self._write = write
        self._dropped = 0
        self.now_ms = START_MS

    def lived(self, arrivals: Iterator[Arrival]) -> None:
        self.go_on(*(deliver(a.stream, a.payload, a.received_ms, a.device_id) for a in arrivals if not self._is_lost(a)))

    def _is_lost(self, arrival: Arrival) -> bool:
        if arrival.device_id != BADLY_SEEN or arrival.stream is not Stream.CURRENT:
            return False
        self._dropped += 1
        return self._dropped % 3 > 0

    def go_on(self, *deliveries: Delivery) -> None:
        """They arrive in their order, each after what the worker does every few seconds."""
        batch: list[Delivery] = []
        until_ms = deliveries[0].received_ms + PULSE_MS
        for delivery in deliveries:
            if delivery.received_ms > until_ms:
                self._take(until_ms, batch)
                batch, until_ms = [], max(until_ms, delivery.received_ms - PULSE_MS) + PULSE_MS
            batch.append(delivery)
        self._take(until_ms, batch)

    def wait(self, span_ms: int) -> None:
        for at_ms in range(self.now_ms + PULSE_MS, self.now_ms + span_ms + 1, PULSE_MS):
            self._take(at_ms, [])

    def send_a_canary(self) -> None:
        """A message of the worker's own that comes straight back from the broker."""
        core = self._line.core
        own = topics.uplink("ingest-test", Stream.RUNTIME).encode()

        class Air:
            def is_connected(self) -> bool:
                return True

            def say(self, payload: bytes) -> None:
                deliveries.append(Delivery(1, 1, 1, core.clock.now_ms(), own, payload, False, -1, True))

        deliveries: list[Delivery] = []
        core.lookout.canary = Canary(Air(), core.clock, core.name, 1, 60.0, lambda point: True)
        core.lookout.canary.send()
        self.go_on(*deliveries)
        assert core.lookout.canary.look()

    def acknowledge_one(self, severity: str) -> None:
        alert = next(a for a in self._line.alerts(severity=severity) if a["model"] is not None)
        self._line.clock.ms = self.now_ms = self.now_ms + 90_000
        self._line.write(lambda: self._line.core.acts.acknowledge(alert["id"], "Dr. Ohm", "seen"))

    def _take(self, at_ms: int, batch: list[Delivery]) -> None:
        self.now_ms = self._line.clock.ms = at_ms
        self._line.run(*batch, pulse(at_ms)).sum_up()
        self._line.feed.said.clear()
        entries = self._line.journal.outbox_after(0, 100_000)
        if entries:
            self._write(entries)
            self._line.settle(entries)


def steady_session(start_ms: int, number: int) -> Iterator[Delivery]:
    """A whole session of one device, as its phone sends it: half a minute at a time."""
    seqs = iter(range(number * 1_000, (number + 1) * 1_000))
    session = f"steady-{number}"

    def said(stream: Stream, at_s: int, *samples: dict) -> Delivery:
        whole = envelope(next(seqs), start_ms + at_s * 1000, *samples, session_id=session, uptime_ms=(number * 1_000 + at_s) * 1000)
        return deliver(stream, orjson.dumps(whole), start_ms + (at_s + BATCH_S) * 1000, STEADY)

    yield said(Stream.IDENTITY, 0, sample(Stream.IDENTITY))
    for at_s in range(0, SESSION_S, BATCH_S):
        zone = ZONES[at_s // BATCH_S].value
        yield said(Stream.RUNTIME, at_s, sample(Stream.RUNTIME, elapsed_s=at_s, output_on_s=at_s, zone=zone))
        yield said(Stream.CONTACT, at_s, *(sample(Stream.CONTACT, s * 1000) for s in range(BATCH_S)))
        yield said(Stream.CURRENT, at_s, *(sample(Stream.CURRENT, s * 1000) for s in range(1, BATCH_S + 1)))
    ended = {"run_state": "ended", "end_reason": "completed", "elapsed_s": SESSION_S, "output_on_s": SESSION_S}
    yield said(Stream.RUNTIME, SESSION_S, sample(Stream.RUNTIME, zone=Zone.FOREHEAD.value, **ended))
    yield said(Stream.HEALTH, SESSION_S, sample(Stream.HEALTH))


def at_risk(at_ms: int, seq: int = 0) -> Iterator[Delivery]:
    """Too much current, and a head that is warm: alerts that stay open."""
    yield deliver(Stream.RUNTIME, message(Stream.RUNTIME, seq, at_ms), at_ms, AT_RISK)
    yield deliver(Stream.CURRENT, message(Stream.CURRENT, seq + 1, at_ms, i_peak_ua=900.0), at_ms, AT_RISK)
    for n in range(8):
        warm = message(Stream.HEALTH, seq + 2 + n, at_ms + n * 2_000, temp_head_c=41.5)
        yield deliver(Stream.HEALTH, warm, at_ms + n * 2_000, AT_RISK)


def refused(at_ms: int) -> Iterator[Delivery]:
    yield deliver(Stream.CURRENT, b'{"i_peak_ua": 20', at_ms + 20_000, "doubled")
    old = message(Stream.RUNTIME, 9_000, at_ms, envelope_={"v": 0, "fw": "1.9"})
    yield deliver(Stream.RUNTIME, old, at_ms + 20_000, OLD_FASHIONED)
