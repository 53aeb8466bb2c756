"""The writer between outbox and store: nothing counts as stored before the store has said so, and nothing is skipped."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingest.drain import PROBE, Drain
from ingest.journal.tables import Ledger
from ingest.mqtt import Delivery
from ingest.settings import Settings
from ingest.sinks.influx import InfluxSink
from schemas.topics import Stream
from tests.faults.influx import Answer, FakeInflux, refused
from tests.line import START_MS, Line, deliver, message
from tests.servers import wait_until

MESSAGES = 8


def said_by(device: str, count: int) -> tuple[Delivery, ...]:
    return tuple(deliver(Stream.CURRENT, message(Stream.CURRENT, seq, START_MS + 1_000 * seq), START_MS + 20_000, device) for seq in range(count))


SOME = said_by("tone-1", MESSAGES)


@contextmanager
def draining(tmp_path: Path, store: FakeInflux, batch: int, messages: tuple[Delivery, ...] = SOME) -> Iterator[Line]:
    """Messages of the line are on their way into the store, with all the threads that are their own in a worker."""
    token = tmp_path / "token"
    token.write_text("t")
    with Line(tmp_path / "data") as line:
        line.run(*messages)
        line.core._stopping.clear()
        core = threading.Thread(target=line.core.run)
        core.start()
        sink = InfluxSink(Settings(**store.settings, influx_token_file=token, data_dir=tmp_path))
        drain = Drain(line.core, sink, batch, retention_days=90, summary_retention_days=730)
        drain.start()
        try:
            yield line
        finally:
            store.heal()
            drain.stop(20)
            line.core.stop()
            core.join(20)
            sink.close()


def ledger(line: Line) -> Ledger:
    """As of now: what was asked for before has been done."""
    return line.core.ask(line.journal.ledger)


@pytest.fixture
def store() -> Iterator[FakeInflux]:
    with FakeInflux() as store:
        yield store


def test_nothing_counts_as_stored_before_the_store_has_said_so(tmp_path: Path, store: FakeInflux) -> None:
    asked, answers = threading.Event(), threading.Event()

    def slowly(number: int, lines: list[str]) -> Answer | None:
        asked.set()
        answers.wait(20)
        return None

    store.script = slowly
    with draining(tmp_path, store, 500) as line:
        try:
            assert asked.wait(20)
            assert (MESSAGES, 0) == (ledger(line).outbox, ledger(line).stored)
        finally:
            answers.set()
        wait_until(lambda: ledger(line).stored == MESSAGES, 20, "all to be settled")
        assert set(range(MESSAGES)) == {row["seq"] for row in store.rows("current")}


@pytest.mark.parametrize("batch", [3, 500], ids=["in several writes", "in one"])
def test_what_the_store_could_not_take_is_sent_again_until_it_does(
    tmp_path: Path, store: FakeInflux, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.drain.FIRST_DELAY_S", 0.01)
    store.script = lambda number, lines: refused(500) if number in (0, 1, 3) else None
    with draining(tmp_path, store, batch) as line:
        wait_until(lambda: ledger(line).outbox == 0, 20, "all to be settled")
        assert (MESSAGES, 0) == (ledger(line).stored, ledger(line).quarantined)
        assert set(range(MESSAGES)) == {row["seq"] for row in store.rows("current")}
        assert {204, 500} == set(store.statuses())


@pytest.fixture
def recovering(store: FakeInflux, monkeypatch: pytest.MonkeyPatch) -> FakeInflux:
    """A store that comes back after three writes; nobody waits long for it."""
    monkeypatch.setattr("ingest.drain.FIRST_DELAY_S", 0.01)
    monkeypatch.setattr("ingest.sinks.influx.HOLD_S", 0.1)
    store.script = lambda number, lines: refused(503) if number < 3 else None
    return store


def readings_refused(line: str) -> bool:
    return line.startswith("current,")


@pytest.mark.parametrize("of_one", [PROBE - 1, PROBE, PROBE + 1, 3 * PROBE])
def test_a_bucket_at_fault_is_known_though_those_who_wait_longest_are_all_of_one_device(
    tmp_path: Path, recovering: FakeInflux, of_one: int
) -> None:
    recovering.is_refused = readings_refused
    messages = [each for device, count in (("a", of_one), ("b", 30), ("c", 30)) for each in said_by(device, count)]
    with draining(tmp_path, recovering, 500, tuple(messages)) as line:
        wait_until(lambda: recovering.statuses()[422] > 500, 20, "some holds")
        assert (ledger(line).outbox, ledger(line).quarantined) == (len(messages), 0)
        recovering.heal()
        wait_until(lambda: ledger(line).stored == len(messages), 20, "all to be stored")


@pytest.mark.parametrize("refusals", [10, 45, 70, 100, 130, 180])
def test_a_bucket_that_is_mended_in_the_middle_of_a_write_costs_no_message(
    tmp_path: Path, recovering: FakeInflux, refusals: int
) -> None:
    recovering.is_refused = lambda line: readings_refused(line) and recovering.statuses()[422] < refusals
    messages = [each for device, count in (("a", 2 * PROBE), ("b", 30), ("c", 30)) for each in said_by(device, count)]
    with draining(tmp_path, recovering, 500, tuple(messages)) as line:
        wait_until(lambda: ledger(line).outbox == 0, 20, "all to be settled")
        assert (ledger(line).stored, ledger(line).quarantined) == (len(messages), 0)
        assert recovering.statuses()[422] >= refusals


def test_one_device_at_fault_is_set_aside_after_an_outage_too(tmp_path: Path, recovering: FakeInflux) -> None:
    recovering.is_refused = lambda line: readings_refused(line) and "device_id=a" in line
    messages = said_by("a", 30) + said_by("b", 30) + said_by("c", 30)
    with draining(tmp_path, recovering, 500, messages) as line:
        wait_until(lambda: ledger(line).outbox == 0, 20, "all to be settled")
        assert (ledger(line).stored, ledger(line).quarantined) == (60, 30)


def test_a_few_bad_messages_among_the_first_after_an_outage_hold_back_nothing(tmp_path: Path, recovering: FakeInflux) -> None:
    recovering.is_refused = lambda line: readings_refused(line) and "seq=3i" in line
    messages = [each for device in "abc" for each in said_by(device, 5)] + list(said_by("d", 150))
    with draining(tmp_path, recovering, 500, tuple(messages)) as line:
        wait_until(lambda: ledger(line).outbox == 0, 5, "all to be settled")
        assert (ledger(line).stored, ledger(line).quarantined) == (len(messages) - 4, 4)
