"""Only a 204 is proof: what is made of every other answer of InfluxDB 2, which answers here as it is told."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.errors import Unavailable
from ingest.points import Entry
from ingest.settings import Settings
from ingest.sinks.influx import InfluxSink
from schemas.rejections import Reason
from schemas.topics import Stream
from tests.faults.influx import Answer, FakeInflux, refused
from tests.line import START_MS, message

BAD_LEVEL = 9


@pytest.fixture
def store() -> Iterator[FakeInflux]:
    with FakeInflux() as store:
        yield store


@pytest.fixture
def sink(store: FakeInflux, tmp_path: Path) -> Iterator[InfluxSink]:
    token = tmp_path / "token"
    token.write_text("t")
    found = InfluxSink(Settings(**store.settings, influx_token_file=token, data_dir=tmp_path))
    yield found
    found.close()


def entries(number: int, bad: range | tuple[int, ...] = (), devices: int = 1) -> list[Entry]:
    """Messages as they wait in the outbox; bad ones have a level by which the store knows them."""
    return [
        Entry(
            n + 1, f"tone-{n % devices}", n + 1, Stream.CURRENT.value, START_MS + n, START_MS, True,
            message(Stream.CURRENT, n, START_MS + n, level=BAD_LEVEL if n in bad else 3),
        )
        for n in range(number)
    ]  # fmt: skip


def is_bad(line: str) -> bool:
    return line.startswith("current,") and f"level={BAD_LEVEL}i" in line


def held(store: FakeInflux) -> set[int]:
    return {row["seq"] for row in store.rows("current")}


@pytest.mark.parametrize("bad", [(), (0,), (59,), (7, 8, 40), tuple(range(60))], ids=["none", "the first", "the last", "three", "all"])
@pytest.mark.parametrize(("status", "reason"), [(400, Reason.SINK_REJECTED_400), (422, Reason.SINK_REJECTED_422)])
def test_of_what_the_store_refuses_exactly_that_is_returned_and_the_rest_is_held(
    store: FakeInflux, sink: InfluxSink, bad: tuple[int, ...], status: int, reason: Reason
) -> None:
    if status == 400:  # nothing of such a request is written
        store.is_bad = is_bad
    else:
        store.is_refused = is_bad
    found = sink.write(entries(60, bad))
    assert [(seq + 1, reason) for seq in bad] == [(each.entry.id, each.reason) for each in found]
    assert all(each.detail.startswith(f"{status}: ") for each in found)
    assert set(range(60)) - set(bad) == held(store)


def test_one_bad_message_costs_few_requests(store: FakeInflux, sink: InfluxSink) -> None:
    store.is_bad = is_bad
    assert [4_322] == [each.entry.id for each in sink.write(entries(5_000, (4_321,)))]
    assert 4_999 == len(held(store))
    assert len(store.requests) <= 30


@pytest.mark.parametrize("status", [401, 403, 404, 408, 429, 500, 502, 503, 504])
def test_what_the_store_cannot_take_now_is_unavailable_and_none_of_it_is_given_up(store: FakeInflux, sink: InfluxSink, status: int) -> None:
    store.script = lambda number, lines: refused(status) if number < 3 else None
    some = entries(20)
    for _ in range(3):
        with pytest.raises(Unavailable, match=str(status)):
            sink.write(some)
    assert [] == sink.write(some)
    assert set(range(20)) == held(store)
    assert 4 == len(store.requests)


@pytest.mark.parametrize("status", [200, 201, 202, 301, 302, 303, 307, 308])
def test_an_answer_of_somebody_else_is_no_proof_and_no_fault_of_a_message(store: FakeInflux, sink: InfluxSink, status: int) -> None:
    """A proxy that redirects, or shows a page of its own: nothing has been written."""
    store.script = lambda number, lines: refused(status, "<html>", Location=f"{store.url}/login") if number == 0 else None
    with pytest.raises(Unavailable, match=str(status)):
        sink.write(entries(20))
    assert [] == sink.write(entries(20))
    assert set(range(20)) == held(store)
    assert 2 == len(store.requests)


def test_a_store_whose_certificate_cannot_be_trusted_is_unavailable_and_no_message_is_to_blame(
    store: FakeInflux, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("t")
    where = store.settings | {"influx_url": store.url.replace("http", "https")}
    found = InfluxSink(Settings(**where, influx_token_file=token, data_dir=tmp_path))
    with pytest.raises(Unavailable, match="SSL"):
        found.write(entries(2))
    found.close()


@pytest.mark.parametrize(("said", "waits_s"), [("7", 7.0), ("0", 0.0), ("100000", 300.0), ("soon", None)])
def test_the_store_says_how_long_it_wants_to_be_left_alone_and_that_is_believed_within_reason(
    store: FakeInflux, sink: InfluxSink, said: str, waits_s: float | None
) -> None:
    store.script = lambda number, lines: refused(503, Retry_After=said)
    with pytest.raises(Unavailable) as told:
        sink.write(entries(1))
    assert told.value.retry_after_s == waits_s


def test_a_write_of_which_nothing_more_was_heard_is_made_again_and_stands_once(store: FakeInflux, sink: InfluxSink) -> None:
    store.script = lambda number, lines: Answer(0, hangs_up=True) if number == 0 else None  # it has written all of it
    with pytest.raises(Unavailable):
        sink.write(entries(20))
    assert set(range(20)) == held(store)
    assert [] == sink.write(entries(20))
    assert (20, 0) == (len(store.rows("current")), len(store.changed))


def test_a_store_that_refuses_many_devices_is_at_fault_itself(store: FakeInflux, sink: InfluxSink) -> None:
    store.is_bad = is_bad
    with pytest.raises(Unavailable, match="schema incident"):
        sink.write(entries(100, range(100), devices=4))
    store.heal()
    assert [] == sink.write(entries(100, range(100), devices=4))
    assert set(range(100)) == held(store)


def test_one_device_that_is_refused_holds_up_no_other(store: FakeInflux, sink: InfluxSink) -> None:
    store.is_refused = lambda line: is_bad(line) and "device_id=tone-0" in line
    found = sink.write(entries(100, range(100), devices=4))
    assert {"tone-0"} == {each.entry.device_id for each in found}
    assert 75 == len(held(store))
