"""Messages as devices make them, and the line they go through: a real core on a real journal.

`Feed` fills the protocol Source from memory. `Line` drives the core to the end of what it was
given, so that a test states deliveries and then looks at what has become of them.
"""

import shutil
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

import orjson

from ingest import pipeline
from ingest.admit import fingerprint
from ingest.journal import Journal
from ingest.mqtt import Delivery
from ingest.pipeline import Core
from ingest.points import Entry, read_back
from ingest.sink import RefusedEntry
from ingest.sinks.duckdb import DuckDBSink
from schemas import topics
from schemas.measurements import Point
from schemas.profile import Profiles, load_profiles
from schemas.topics import Stream

pipeline.TURN_S = 0.0  # deliveries from memory gain nothing by waiting for more

IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where properties with hundreds of journals keep them: nothing is proved by waiting for a disk."""

START_MS = 1_795_298_400_000
DEVICE = "tone-1"
MODEL = "toneduo-400"
BOOT = 7
PROFILES = load_profiles()

CURRENT = {
    "window_ms": 1000, "i_set_ua": 200.0, "i_peak_ua": 200.0, "i_rms_ua": 141.0, "i_dc_ua": 0.0, "q_pos_uc": 70.0,
    "q_neg_uc": 70.0, "v_peak_mv": 1600.0, "clip_frac": 0.0, "freq_hz": 8.3, "pulse_us": 60000.0, "duty": 0.5,
    "level": 3, "boost": False, "output_enabled": True, "mode": "alt_burst",
}  # fmt: skip
CONTACT = {
    "z_ohm": 8000.0, "z_hz": 8.3, "state": "good", "contact_frac": 0.8, "electrode_mask": 3, "make_count": 1,
    "break_count": 0, "motion": "moving",
}  # fmt: skip
RUNTIME = {
    "run_state": "running", "program_id": "lift", "elapsed_s": 0, "output_on_s": 0, "zone": "cheek_l",
    "zone_source": "program", "zone_elapsed_s": 0, "auto_off_s": None, "end_reason": None,
}  # fmt: skip
HEALTH = {
    "battery_mv": 3900.0, "charging": False, "temp_head_c": 31.0, "temp_pcb_c": 33.0, "lux": None, "solar_mv": None,
    "fault_bits": 0, "self_test": "pass", "reset_reason": "power_on", "queued_msgs": 0, "rssi_dbm": -60.0,
}  # fmt: skip
IDENTITY = {
    "udi_di": "(01)00850000000017", "serial": "SN 0001", "lot": "L-1", "model": MODEL, "hw_rev": "B", "fw_version": "2.3.1",
    "fw_sha256": "0" * 64, "profile_id": MODEL, "profile_version": 1, "mfg_date": "2026-01-02",
    "calibration_date": "2026-01-03", "attachment_id": "A-1", "attachment_cycles": 5,
}  # fmt: skip
STATUS = {"state": "online", "reason": "birth", "oldest_seq": 0}
SAMPLE = {
    Stream.CURRENT: CURRENT, Stream.CONTACT: CONTACT, Stream.RUNTIME: RUNTIME, Stream.HEALTH: HEALTH,
    Stream.IDENTITY: IDENTITY, Stream.STATUS: STATUS,
}  # fmt: skip


def sample(stream: Stream, dt_ms: int = 0, **fields: Any) -> dict[str, Any]:
    """A healthy sample of the ToneDuo, save the given fields."""
    return {"dt_ms": dt_ms, **SAMPLE[stream], **fields}


def envelope(seq: int, ts_ms: int = START_MS, *samples: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "v": 1, "boot_id": BOOT, "seq": seq, "ts_ms": ts_ms, "uptime_ms": ts_ms - START_MS + 60_000 if ts_ms >= START_MS else 60_000,
        "session_id": "s-1", "model": MODEL, "hw": "B", "fw": "2.3.1", **fields, "samples": list(samples),
    }  # fmt: skip


def message(stream: Stream, seq: int, ts_ms: int = START_MS, *, envelope_: dict[str, Any] | None = None, **fields: Any) -> bytes:
    """One message with one sample; `fields` are of the sample, `envelope_` of the envelope."""
    return orjson.dumps(envelope(seq, ts_ms, sample(stream, **fields), **(envelope_ or {})))


def deliver(stream: Stream | str, payload: bytes, received_ms: int = START_MS, device: str = DEVICE, retained: bool = False) -> Delivery:
    topic = topics.uplink(device, Stream(stream)) if isinstance(stream, Stream) else stream
    return Delivery(1, 1, 1, received_ms, topic.encode("utf-8", errors="surrogateescape"), payload, retained)


def pulse(at_ms: int) -> Delivery:
    """All that devices sent until then has been taken in."""
    return Delivery(1, 1, 1, at_ms, b"", b"", False, at_ms)


class Feed:
    """A source that holds its deliveries in memory and notes what the line says."""

    def __init__(self) -> None:
        self.published: deque[int] = deque()
        self.last_message = 0.0
        self.held = False
        self.waiting: deque[Delivery] = deque()
        self.acknowledged: list[Delivery] = []
        self.said: list[tuple[str, dict[str, Any]]] = []

    def take(self, most: int) -> list[Delivery]:
        return [self.waiting.popleft() for _ in range(min(most, len(self.waiting)))]

    def arrived(self) -> int:
        return len(self.waiting)

    def ack(self, deliveries: list[Delivery]) -> None:
        self.acknowledged += deliveries

    def publish(self, topic: str, payload: bytes, token: int | None = None) -> None:
        self.said.append((topic, orjson.loads(payload)))
        if token is not None:
            self.published.append(token)


class SetClock:
    """A clock that stands where the test puts it."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.ms = now_ms

    def now_ms(self) -> int:
        return self.ms


class Line:
    """One worker's core, without threads. As a context manager it closes its journal."""

    def __init__(self, directory: Path, profiles: Profiles = PROFILES, retention_days: int = 90, raw_retention_days: int = 90) -> None:
        self.directory = directory
        self.profiles = profiles
        self.retention_days = retention_days
        self.raw_retention_days = raw_retention_days
        self.clock = SetClock()
        self.feed = Feed()
        self._open()

    def _open(self) -> None:
        self.journal = Journal(self.directory)
        self.core = Core(
            self.journal, self.profiles, self.clock, worker_id="ingest-test", retention_days=self.retention_days,
            raw_retention_days=self.raw_retention_days, summary_retention_days=730, durable_ack_interval_s=0.0,
        )  # fmt: skip
        self.core.source = self.feed
        self.core.stop()  # `run` then ends when there is nothing more to do

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.journal.close()

    def run(self, *deliveries: Delivery) -> Self:
        """Take in the deliveries and do all that follows from them."""
        self.feed.waiting.extend(deliveries)
        self.core.run()
        while self.core._turn():
            pass
        return self

    def sum_up(self) -> Self:
        """Have every roll-up made that is due."""
        while self.core.sums_due():
            self.core._turn()
        return self

    def one_by_one(self, deliveries: Iterable[Delivery]) -> Self:
        for delivery in deliveries:
            self.run(delivery)
        return self

    def part(self, turns: int, *deliveries: Delivery) -> Self:
        """Take in the deliveries, and get only so far with them."""
        self.feed.waiting.extend(deliveries)
        for _ in range(turns):
            self.core._turn()
        return self

    def restart(self) -> Self:
        """An orderly end, and a new worker on the same journal."""
        self.journal.close()
        self._open()
        return self.run()

    def die(self, into: Path) -> "Line":
        """What a new worker finds when this one is killed now: the files as they are."""
        copy_files(self.directory, into)
        line = Line(into, self.profiles, self.retention_days, self.raw_retention_days)
        line.feed.waiting = deque(self.feed.waiting)
        return line

    def write(self, work: Callable[[], Any]) -> Self:
        """Have something done inside a transaction, as the other threads do."""
        future = self.core.request(work, write=True)
        self.run()
        future.result(0)
        return self

    def settle_store(self, most: int = 100_000) -> Self:
        """The store confirms what waits, or the first of it."""
        return self.settle(self.waiting()[:most])

    def settle(self, entries: list[Entry], refused: Iterable[RefusedEntry] = ()) -> Self:
        return self.write(lambda: self.core.settle(entries, list(refused), fingerprint))

    def prune(self, before_ms: int, most: int = 1_000) -> Self:
        return self.write(lambda: self.journal.prune_raw(before_ms, most))

    def waiting(self) -> list[Entry]:
        """The messages that the store has not confirmed."""
        return [entry for entry in self.journal.outbox_after(0, 100_000) if entry.is_message]

    def points(self, measurement: str) -> list[Point]:
        """The line's own points of a measurement that wait for the store, in the order of their making."""
        entries = [entry for entry in self.journal.outbox_after(0, 1_000_000) if not entry.is_message]
        return [point for point in (read_back(entry.payload) for entry in entries) if point.measurement == measurement]

    def kept(self, measurement: str) -> dict[tuple[tuple[str, ...], int], dict[str, Any]]:
        """(tags, time) → fields, as a store has them that merges the points of one place."""
        found: dict[tuple[tuple[str, ...], int], dict[str, Any]] = {}
        for point in self.points(measurement):
            found.setdefault((point.tags, point.time_ns), {}).update(point.fields)
        return found

    def alerts(self, **where: str) -> list[dict[str, Any]]:
        """All alerts on record, oldest first."""
        found = self.journal.alerts(most=100_000, **where)
        return sorted(found, key=lambda alert: (alert["onset_ms"], alert["rule"], alert["id"]))

    def standing(self) -> list[tuple[str, str, str, int, str]]:
        """What stands of the alerts: (rule, severity, state, onset after the start, close reason)."""
        return [
            (a["rule"], a["severity"], a["state"], a["onset_ms"] - START_MS, a["close_reason"])
            for a in self.alerts()
            if a["state"] != "withdrawn"
        ]

    def reasons(self) -> list[str]:
        """Why messages are in quarantine, oldest first."""
        return [entry["reason"] for entry in reversed(self.journal.quarantine(most=100_000))]

    def events(self) -> list[tuple[str, str]]:
        """(event, rule) as published to devices, in order; a digest stands with its rules."""
        return [
            (said["event"], said["alert"]["rule"] if "alert" in said else "+".join(said["by_rule"]))
            for topic, said in self.feed.said
            if topic.endswith("/alert")
        ]

    def last_ack(self, device: str = DEVICE) -> dict[str, Any] | None:
        return next((said for topic, said in reversed(self.feed.said) if topic == topics.durable_ack(device)), None)


def copy_files(directory: Path, into: Path) -> None:
    """The journal's files as they lie on disk, lock aside."""
    into.mkdir(parents=True)
    for name in ("journal.db", "journal.db-wal"):
        if (directory / name).exists():
            shutil.copyfile(directory / name, into / name)


def stored(sink: DuckDBSink, statement: str) -> list[tuple]:
    """All rows of a query of the embedded store."""
    return sink.reader().rows(statement, {}, 1_000_000)[1]
