"""The writer between outbox and store: nothing counts as stored before the store has said so, and nothing is skipped."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingest.drain import Drain
from ingest.journal.tables import Ledger
from ingest.settings import Settings
from ingest.sinks.influx import InfluxSink
from schemas.topics import Stream
from tests.faults.influx import Answer, FakeInflux, refused
from tests.line import START_MS, Line, deliver, message
from tests.servers import wait_until

MESSAGES = 8


@contextmanager
def draining(tmp_path: Path, store: FakeInflux, batch: int) -> Iterator[Line]:
    """Messages of the line are on their way into the store, with all the threads that are their own in a worker."""
    token = tmp_path / "token"
    token.write_text("t")
    with Line(tmp_path / "data") as line:
        line.run(*(deliver(Stream.CURRENT, message(Stream.CURRENT, seq, START_MS + 1_000 * seq), START_MS + 20_000) for seq in range(MESSAGES)))
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
