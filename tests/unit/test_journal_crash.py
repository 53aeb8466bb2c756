"""Whatever the worker does, and whenever the machine loses power: what was acknowledged is there.

The real core on the real journal, on the real SQLite. What devices, broker and store have heard is noted in one
record with every write and sync, so that a cut at any point of it tells what was promised by then.
"""

import logging
import os
import random
import shutil
import tempfile
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis.strategies as st
import orjson
import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

import ingest.journal
from ingest.errors import Mistake
from ingest.journal import FILE_NAME, Journal
from ingest.journal.quarantine import RefusedFilter
from ingest.mqtt import Delivery
from ingest.points import Entry
from ingest.sink import RefusedEntry
from schemas import topics
from schemas.rejections import Reason
from schemas.topics import Stream
from tests.disk import Disk, Event, Loss, Mark, Record, Recorder, Removed, Synced, Truncated
from tests.line import BOOT, DEVICE, IN_MEMORY, START_MS, Feed, Line, copy_files, deliver, message
from tests.unit.test_journal import assert_accounted

EXAMPLES = int(os.environ.get("MICROCURRENT_TEST_CRASHES") or 100)
STEPS = 14
CHECKPOINT_PAGES = 12
"""So few that checkpoints fall into these short lives as well."""

Identity = tuple[str, int, int]
"""(device, boot, seq)"""


# -- the world outside ------------------------------------------------------------------------------


class Heard(Feed):
    """Notes in the record what leaves the worker, at the moment when it does."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self._record = record

    def take(self, most: int) -> list[Delivery]:
        taken = super().take(most)
        self._record.events.append(Mark(("offered", taken)))
        return taken

    def ack(self, deliveries: list[Delivery]) -> None:
        self._record.events.append(Mark(("acknowledged", list(deliveries))))

    def publish(self, topic: str, payload: bytes, token: int | None = None) -> None:
        super().publish(topic, payload, token)
        _, said = self.said.pop()
        self._record.events.append(Mark(("told", topic, said)))


class World:
    """What devices, broker and store know. It follows from the marks alone, so it can be had as of any moment."""

    def __init__(self, keeps_offset: bool) -> None:
        self.keeps_offset = keeps_offset
        self.sent: list[bytes] = []
        self.offered = 0
        self.unacknowledged: list[Delivery] = []
        self.acknowledged: list[Delivery] = []
        self.durable: set[tuple[str, int, int]] = set()
        self.alerts: set[str] = set()
        self.stored: list[tuple[Identity, bytes]] = []
        self.upto: int | None = None

    def heed(self, what: tuple) -> None:
        match what:
            case ("sent", deliveries):
                self.sent += [d.payload for d in deliveries]
                self.unacknowledged += deliveries
            case ("offered", deliveries):
                self.offered += len(deliveries)
            case ("acknowledged", deliveries):
                self.unacknowledged = self.unacknowledged[len(deliveries) :]
                self.acknowledged += deliveries
            case ("told", topic, said) if topic.endswith("/ack"):
                missing = said["missing"]
                lacks = {seq for first, last in missing for seq in range(first, last + 1)}
                self.durable |= {(topics.device_level(topic), said["boot_id"], seq) for seq in range(said["upto"] + 1) if seq not in lacks}
            case ("told", _, said):
                self.alerts |= {said["alert"]["id"]} if "alert" in said else {alert["id"] for alert in said["alerts"]}
            case ("stored", entries):
                self._store(entries)

    def _store(self, entries: list[Entry]) -> None:
        rows = [(_identity(entry.device_id, entry.payload), entry.payload) for entry in entries if entry.is_message]
        if not self.keeps_offset:  # a store in which writing again overwrites
            self.stored = [row for row in self.stored if row[0] not in dict(rows)]
        self.stored += rows
        self.upto = entries[-1].id


def _identity(device_id: str, payload: bytes) -> Identity:
    document = orjson.loads(payload)
    return device_id, document["boot_id"], document["seq"]


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    try:
        found = Recorder()
    except LookupError as error:
        pytest.skip(str(error))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))  # thousands of lives say too much
    yield found
    structlog.reset_defaults()
    found.close()


# -- the course of events ---------------------------------------------------------------------------


class Death(NamedTuple):
    """Of the process alone where nothing is lost. `back`: so many events ago, or so many moments at which something left
    the worker or was synced, just `before` the moment or after it."""

    loss: Loss | None
    back: int
    at_a_moment: bool
    before: bool
    seed: int

    def events_back(self, events: list[Event]) -> int:
        if not self.at_a_moment:
            return self.back
        moments = [n for n, event in enumerate(events) if isinstance(event, Mark | Synced | Truncated | Removed)]
        return len(events) - moments[-min(self.back, len(moments))] - (not self.before) if moments else 0


DEATHS = st.one_of(
    st.builds(Death, st.sampled_from((None, *Loss)), st.integers(1, 10), st.just(True), st.booleans(), st.integers(0, 1 << 16)),
    st.builds(Death, st.sampled_from((None, *Loss)), st.integers(0, 120), st.just(False), st.just(False), st.integers(0, 1 << 16)),
)


class Lives(RuleBasedStateMachine):
    """One journal through several lives of its worker."""

    recorder: Recorder
    deaths: Counter[str] = Counter()
    """How many of each kind there were, over all examples."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(dir=IN_MEMORY))
        self.lives = 0
        self.line: Line | None = None
        self.sound = True

    @initialize(keeps_offset=st.booleans(), checkpoint_pages=st.sampled_from((CHECKPOINT_PAGES, 4_000)))
    def begin(self, keeps_offset: bool, checkpoint_pages: int) -> None:
        self.world = World(keeps_offset)
        self.checkpoint_pages = checkpoint_pages
        self.boot = self.root / "boot"
        self.boot.write_text("0")
        self.pruned = False
        self._live({}, Disk())

    def teardown(self) -> None:
        try:
            if self.line is not None and self.sound:
                self._end()
        finally:
            if self.line is not None:
                self._bury()
            shutil.rmtree(self.root)

    # -- what happens -----------------------------------------------------------------------------

    @rule(
        said=st.lists(
            st.tuples(
                st.integers(0, 9),
                st.sampled_from([{}, {}, {"level": 5}, {"level": "three"}, {"i_peak_ua": 900.0}, {"i_peak_ua": 900.0, "level": "three"}]),
            ),
            min_size=1, max_size=4,
        ),
        turns=st.integers(0, 3),
        death=st.none() | DEATHS,
    )  # fmt: skip
    def send(self, said: list[tuple[int, dict[str, Any]]], turns: int, death: Death | None) -> None:
        """New, again, in conflict, refused, dangerous; and the worker gets only so far with them."""
        made = [message(Stream.CURRENT, seq, START_MS + 1_000 * seq, **how) for seq, how in said]
        sent = [deliver(Stream.CURRENT, payload, START_MS + 20_000) for payload in made]
        self._mark("sent", sent)
        self.line.part(turns, *sent)
        if death:
            self.die(death)

    @rule(turns=st.integers(1, 4))
    def work(self, turns: int) -> None:
        self.line.part(turns)

    @rule(most=st.integers(1, 6), settles=st.booleans(), refuses=st.booleans(), death=st.none() | DEATHS)
    def store(self, most: int, settles: bool, refuses: bool, death: Death | None) -> None:
        """The store takes what waits; perhaps it refuses the last of it, perhaps nobody hears that it has taken it."""
        entries = self.line.journal.outbox_after(self.world_now().upto or 0, most)
        if not entries:
            return
        refused = [RefusedEntry(entries[-1], Reason.SINK_REJECTED_422, "no")] if refuses and settles else []
        if entries[: len(entries) - len(refused)]:
            self._mark("stored", entries[: len(entries) - len(refused)])
        if settles:
            self.line.settle(entries, refused)
        if death:
            self.die(death)

    @rule(discards=st.booleans(), death=st.none() | DEATHS)
    def see_to_what_was_refused(self, discards: bool, death: Death | None) -> None:
        """A person sends it all through the line again, or wants no more of it."""
        core, everything = self.line.run().core, RefusedFilter(state="open")
        self._mark("offered", self.line.journal.quarantine(wanted=everything))
        act = core.acts.discard if discards else core.acts.replay
        self.line.write(lambda: act(everything, 100, "Ada", ""))
        if death:
            self.die(death)

    @rule(before=st.integers(0, 30))
    def prune(self, before: int) -> None:
        self.pruned = True
        self.line.prune(START_MS + 1_000 * before, 3)

    @rule(how=st.sampled_from(("PASSIVE", "RESTART", "TRUNCATE")))
    def checkpoint(self, how: str) -> None:
        self.line.journal._db.execute(f"PRAGMA wal_checkpoint({how})")

    @rule()
    def close(self) -> None:
        self.line.journal.close()
        self.line._open()
        self._begin_life()

    @rule(death=DEATHS)
    def die(self, death: Death) -> None:
        """The process is killed: what it has written is there, synced or not. Or the machine loses power."""
        disk = self._go_back(death.events_back(self.record.events))
        self.deaths[death.loss or "kill"] += 1
        if death.loss is None:
            self._live(disk.seen(), disk)
            return
        files = disk.after_power_cut(death.loss, random.Random(death.seed))
        self.boot.write_text(str(self.lives))
        self._live(files, Disk(files))

    # -- life and death ---------------------------------------------------------------------------

    def _mark(self, *what: Any) -> None:
        self.record.events.append(Mark(what))

    def world_now(self) -> World:
        return self._world(len(self.record.events))

    def _world(self, until: int) -> World:
        world = World(self.world.keeps_offset)
        world.__dict__.update({k: v.copy() if isinstance(v, list | set) else v for k, v in self.world.__dict__.items()})
        for event in self.record.events[:until]:
            if isinstance(event, Mark):
                world.heed(event.what)
        return world

    def _go_back(self, back: int) -> Disk:
        """End this life so many events ago: the world as it was then, and the disk."""
        until = max(0, len(self.record.events) - back)
        self.world = self._world(until)
        events = self.record.events[:until]
        self._bury()
        self.disk.apply(event for event in events if not isinstance(event, Mark))
        return self.disk

    def _bury(self) -> None:
        """What the dead process still does to its files is of no interest."""
        self.recorder.forget(self.line.directory)
        self.line.journal._db.close()
        self.line.journal._lock.close()
        shutil.rmtree(self.line.directory)
        self.line = None

    def _live(self, files: dict[str, bytes], disk: Disk) -> None:
        self.lives, self.sound = self.lives + 1, False
        directory = self.root / str(self.lives)
        directory.mkdir()
        for name, contents in files.items():
            (directory / name).write_bytes(contents)
        self.disk = disk
        self.record = self.recorder.watch(directory)
        disk.record_from(self.record)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ingest.journal, "_OS_BOOT_ID", self.boot)
            self.line = Line(directory)
        self.line.feed = Heard(self.record)
        self._begin_life()
        self._check_what_was_promised()
        self.sound = True
        self.line.feed.waiting = deque(self.world.unacknowledged)  # the broker delivers again

    def _begin_life(self) -> None:
        """What the worker does at its start, beside opening its journal."""
        line = self.line
        line.core.source = line.feed
        line.journal._db.execute(f"PRAGMA wal_autocheckpoint={self.checkpoint_pages}")
        upto = self.world_now().upto
        if self.world.keeps_offset and upto is not None:
            with line.journal.step():
                line.core.settle_upto(upto)

    # -- what must hold ---------------------------------------------------------------------------

    def _check_what_was_promised(self) -> None:
        journal, world = self.line.journal, self.world
        assert [("ok",)] == journal._db.execute("PRAGMA integrity_check").fetchall()
        assert journal.ledger().balanced
        assert len(world.acknowledged) <= journal.accepted <= world.offered
        held = Counter(payload for (payload,) in journal._db.execute("SELECT payload FROM raw"))
        if not self.pruned:
            refused = {payload for (payload,) in journal._db.execute("SELECT payload FROM quarantine_payload")}
            lacking = Counter(d.payload for d in world.acknowledged) - held
            assert set(lacking) <= refused <= set(held)  # what is refused again is counted where it is
        assert set(held) <= set(world.sent)
        devices = self.line.core.devices
        for device_id, boot_id, seq in world.durable:  # the device has thrown these away
            waits = any(_is(device_id, boot_id, seq, raw.payload) for raw in journal.unprocessed(1_000))
            assert waits or seq in devices[device_id].boots[boot_id].held, f"seq {seq} was said to be on disk"
        assert all(journal.alert(alert_id) is not None for alert_id in world.alerts)

    def _end(self) -> None:
        """Nothing goes wrong any more: all is taken in, stored and told."""
        line = self.line
        line.run()
        while entries := line.journal.outbox_after(self.world_now().upto or 0, 1_000):
            self._mark("stored", entries)
            line.settle(entries)
        line.settle(line.journal.outbox_after(0, 100_000))
        line.run()
        world, journal = self.world_now(), line.journal
        assert_accounted(line)
        assert [("ok",)] == journal._db.execute("PRAGMA integrity_check").fetchall()
        assert 0 == journal.ledger().pending
        assert not world.unacknowledged
        refused = Counter(payload for (payload,) in journal._db.execute("SELECT payload FROM quarantine_payload"))
        stored = Counter(identity for identity, _ in world.stored)
        assert set(stored.values()) <= {1}, "stored twice"
        assert {payload for _, payload in world.stored} | set(refused) <= set(world.sent), "nobody sent this"
        for delivery in world.acknowledged:
            at_its_place = dict(world.stored).get(_identity(DEVICE, delivery.payload))
            assert delivery.payload == at_its_place or delivery.payload in refused or (self.pruned and at_its_place), "lost"
        on_record = {alert["id"] for alert in line.alerts() if alert["state"] != "withdrawn"}
        assert on_record <= world.alerts, "nobody was told"
        dangerous = {d.payload for d in world.acknowledged if orjson.loads(d.payload)["samples"][0]["i_peak_ua"] == 900.0}
        # What the worker seemed to have died on, three times, is kept unread until a person sends it through again.
        unread = journal._db.execute(
            "SELECT payload FROM quarantine JOIN quarantine_payload ON entry_id = id WHERE reason = 'crash_suspect'"
        )
        if dangerous - {payload for (payload,) in unread}:
            assert any(alert["rule"] == "overcurrent-peak" for alert in line.alerts()), "no alarm"


def _is(device_id: str, boot_id: int, seq: int, payload: bytes) -> bool:
    return (DEVICE, BOOT) == (device_id, boot_id) and orjson.loads(payload)["seq"] == seq


def test_what_was_acknowledged_survives_every_death_and_every_loss_of_power(recorder: Recorder) -> None:
    Lives.recorder, Lives.deaths = recorder, Counter()
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(Lives, settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS, suppress_health_check=quiet))
    print(f"{Lives.deaths.total()} deaths in {EXAMPLES} courses of events: {dict(Lives.deaths)}")
    assert {"kill", *Loss} == set(Lives.deaths), "not everything has been tried"


def test_a_journal_that_is_damaged_after_a_power_cut_is_refused_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boot = tmp_path / "boot"
    boot.write_text("1")
    monkeypatch.setattr(ingest.journal, "_OS_BOOT_ID", boot)
    with Line(tmp_path / "live") as line:
        line.run(*(deliver(Stream.CURRENT, message(Stream.CURRENT, seq)) for seq in range(20)))
        line.journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = line.journal._db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'message'").fetchone()
        copy_files(tmp_path / "live", tmp_path / "sound")
        copy_files(tmp_path / "live", tmp_path / "damaged")
    with (tmp_path / "damaged" / FILE_NAME).open("r+b") as file:
        file.seek((page - 1) * 4_096)
        file.write(bytes(4_096))
    boot.write_text("2")
    Journal(tmp_path / "sound").close()
    with pytest.raises(Mistake, match=r"^\S+journal\.db: damaged \(.*\); restore it from a backup before starting$"):
        Journal(tmp_path / "damaged")
