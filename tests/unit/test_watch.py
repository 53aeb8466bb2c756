"""The same messages give the same alerts, however and whenever they arrive.

A session is written down in event order; then it is delivered late, doubled, shuffled, in other
batches, to workers that stop, die or forget. What stands of the alerts in the end is compared
with what a calm delivery gives. `telemetry-gap` speaks of arrival itself and has its own tests.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import hypothesis.strategies as st
import orjson
import pytest
from hypothesis import HealthCheck, given, settings

from ingest import backlog, judgement
from ingest.mqtt import Delivery
from schemas.topics import Stream
from tests.line import IN_MEMORY, START_MS, Line, deliver, envelope, message, pulse, sample

STOOD = ("id", "rule", "severity", "onset_ms", "opened_ms", "closed_ms", "close_reason", "value")
LONG_AFTER_MS = 400_000

CASES = settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@dataclass(frozen=True)
class Episode:
    """A fault of a session, `start_s` after its beginning."""

    kind: str
    start_s: int
    length_s: int

    def covers(self, t_ms: int) -> bool:
        return self.start_s * 1000 <= t_ms < (self.start_s + self.length_s) * 1000


@dataclass(frozen=True)
class Session:
    seconds: int
    episodes: tuple[Episode, ...] = ()
    ends: bool = True
    current_batch: int = 1
    contact_batch: int = 1
    refused: frozenset[int] = frozenset()
    session_id: str = "s-1"
    boot_id: int = 7

    def at(self, t_ms: int, kind: str) -> bool:
        return any(e.kind == kind and e.covers(t_ms) for e in self.episodes)

    def messages(self) -> list[tuple[int, Stream, bytes]]:
        """(time of sending, stream, payload), in the order of their sequence."""
        found: list[tuple[int, Stream, int, list[dict[str, Any]]]] = []
        found += self._batches(Stream.RUNTIME, range(0, self.seconds * 1000, 5_000), 1, self._runtime)
        found += self._batches(Stream.CURRENT, range(1_000, self.seconds * 1000, 1_000), self.current_batch, self._current)
        found += self._batches(Stream.HEALTH, range(500, self.seconds * 1000, 1_000), 7, self._health)
        found += self._batches(Stream.CONTACT, range(250, self.seconds * 1000, 500), self.contact_batch, self._contact)
        if self.ends:
            end_ms = self.seconds * 1000
            found.append((end_ms, Stream.RUNTIME, end_ms, [self._runtime(end_ms, run_state="ended", end_reason="user")]))
        found.sort(key=lambda each: each[0])
        sent = []
        for seq, (sent_ms, stream, first_ms, samples) in enumerate(found):
            document = envelope(
                seq, START_MS + first_ms, *(s | {"dt_ms": s["dt_ms"] - first_ms} for s in samples),
                session_id=self.session_id, boot_id=self.boot_id,
            )  # fmt: skip
            if seq in self.refused:
                document["unknown"] = seq
            sent.append((START_MS + sent_ms, stream, orjson.dumps(document)))
        return sent

    def _batches(self, stream: Stream, times: range, size: int, make: Any) -> Iterator[Any]:
        kept = [t_ms for t_ms in times if t_ms == times[0] or not self.at(t_ms, "silence")]
        for at in range(0, len(kept), size):
            batch = kept[at : at + size]
            yield batch[-1], stream, batch[0], [make(t_ms) for t_ms in batch]

    def _runtime(self, t_ms: int, **fields: Any) -> dict[str, Any]:
        on_s = 1_300 if self.at(t_ms, "overrun") else 1_400 if self.at(t_ms, "long overrun") else t_ms // 1000
        state = "paused" if self.at(t_ms, "pause") else "running"
        zone = "mouth" if self.at(t_ms, "mouth") else "cheek_l"
        return sample(Stream.RUNTIME, t_ms, **({"run_state": state, "output_on_s": on_s, "elapsed_s": on_s, "zone": zone} | fields))

    def _current(self, t_ms: int) -> dict[str, Any]:
        fields: dict[str, Any] = {"level": 4 if self.at(t_ms, "level") else 3}
        if self.at(t_ms, "mild"):
            fields |= {"i_rms_ua": 400.0 + t_ms / 1e6, "i_peak_ua": 560.0, "v_peak_mv": 4480.0}
        if self.at(t_ms, "double"):
            fields |= {"i_rms_ua": 570.0 + t_ms / 1e6, "i_peak_ua": 590.0, "v_peak_mv": 4720.0}
        if self.at(t_ms, "peak"):
            fields |= {"i_peak_ua": 900.0 + t_ms / 1e6, "v_peak_mv": 7200.0}
        if self.at(t_ms, "drift"):
            fields |= {"freq_hz": 20.0 + t_ms / 1e6}
        if self.at(t_ms, "offset"):
            fields |= {"i_dc_ua": 70.0 + t_ms / 1e6}
        if self.at(t_ms, "nonsense"):
            fields |= {"i_dc_ua": 1_000.0 + t_ms / 1e6}
        if self.at(t_ms, "mute"):
            fields |= {"output_enabled": False}
        return sample(Stream.CURRENT, t_ms, **fields)

    def _contact(self, t_ms: int) -> dict[str, Any]:
        breaks = sum(self.at(earlier_ms, "chatter") for earlier_ms in range(250, t_ms + 1, 500))
        fields: dict[str, Any] = {"make_count": breaks + 1, "break_count": breaks, "motion": "still" if self.at(t_ms, "rest") else "moving"}
        if self.at(t_ms, "dry"):
            fields |= {"z_ohm": 30e3 + t_ms / 1e3}
        if self.at(t_ms, "bridge"):
            fields |= {"z_ohm": 80.0 + t_ms / 1e6, "state": "short"}
        if self.at(t_ms, "lead off"):
            fields |= {"state": "off", "z_ohm": 2e6}
        return sample(Stream.CONTACT, t_ms, **fields)

    def _health(self, t_ms: int) -> dict[str, Any]:
        return sample(Stream.HEALTH, t_ms, temp_head_c=42.0 + t_ms / 1e5 if self.at(t_ms, "hot") else 33.0, charging=self.at(t_ms, "charging"))


KINDS = (
    "mild", "mild", "double", "peak", "peak", "lead off", "lead off", "overrun", "long overrun", "level", "mute", "pause", "silence",
    "mouth", "drift", "offset", "nonsense", "chatter", "rest", "dry", "bridge", "hot", "charging",
)  # fmt: skip


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    seconds = draw(st.integers(20, 75))
    episodes = draw(
        st.lists(st.builds(Episode, st.sampled_from(KINDS), st.integers(0, seconds - 2), st.integers(1, 25) | st.just(75)), max_size=7)
    )
    return Session(
        seconds,
        tuple(episodes),
        ends=draw(st.booleans()),
        current_batch=draw(st.sampled_from((1, 3, 5))),
        contact_batch=draw(st.sampled_from((2, 6, 10))),
        refused=frozenset(draw(st.sets(st.integers(0, 60), max_size=3))),
    )


@dataclass(frozen=True)
class Weather:
    """How badly messages travel: the share that is late by up to so many seconds, the share doubled."""

    seed: int
    late: tuple[tuple[float, float], ...]
    doubled: float

    def deliveries(self, sent: list[tuple[int, Stream, bytes]]) -> list[Delivery]:
        chance = Random(self.seed)
        found = []
        for sent_ms, stream, payload in sent:
            for _ in range(2 if chance.random() < self.doubled else 1):
                delay_s = next((s for share, s in self.late if chance.random() < share), 0.5)
                received_ms = sent_ms + int(1000 * delay_s * chance.random())
                found.append(deliver(stream, payload, received_ms))
        return sorted(found, key=lambda delivery: delivery.received_ms)


weathers = st.builds(
    Weather,
    st.integers(0, 2**32),
    st.sampled_from((((0.2, 3.0),), ((0.1, 15.0), (0.3, 3.0)), ((0.05, 100.0), (0.2, 12.0)), ((0.5, 100.0),), ((0.9, 5_000.0),))),
    st.sampled_from((0.0, 0.1, 0.5)),
)


@contextmanager
def lines() -> Iterator[Any]:
    """Makes lines on journals of their own, and closes them."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as root:
        made: list[Line] = []

        def make() -> Line:
            made.append(Line(Path(root) / str(len(made))))
            return made[-1]

        make.root, make.made = Path(root), made  # type: ignore[attr-defined]
        try:
            yield make
        finally:
            for line in made:
                line.journal.close()


def stood(line: Line) -> list[dict[str, Any]]:
    """What stands of the alerts in the end."""
    return [
        {name: alert[name] for name in STOOD}
        for alert in line.alerts()
        if alert["state"] != "withdrawn" and alert["rule"] != "telemetry-gap"
    ]


def calm(sent: list[tuple[int, Stream, bytes]]) -> list[Delivery]:
    return [deliver(stream, payload, sent_ms + 100) for sent_ms, stream, payload in sent]


def reference(make: Any, *several: Session) -> list[dict[str, Any]]:
    """What stands after one calm delivery of all sessions together."""
    sent = sorted((each for session in several for each in session.messages()), key=lambda each: each[0])
    line = make().run(*calm(sent), pulse(sent[-1][0] + LONG_AFTER_MS))
    return stood(line)


def in_batches(deliveries: list[Delivery], seed: int, most: int) -> Iterator[list[Delivery]]:
    """The deliveries in batches of any size; sometimes a pulse says how far time has come."""
    chance, at = Random(seed), 0
    while at < len(deliveries):
        batch = deliveries[at : at + chance.randint(1, most)]
        at += len(batch)
        yield [*batch, pulse(batch[-1].received_ms)] if chance.random() < 0.3 else batch


def end_of(deliveries: list[Delivery]) -> Delivery:
    return pulse(deliveries[-1].received_ms + LONG_AFTER_MS)


@CASES
@given(sessions(), weathers, st.integers(0, 2**32), st.sampled_from((1, 8, 300)))
def test_the_same_messages_give_the_same_alerts_in_any_order_and_batching(
    session: Session, weather: Weather, seed: int, most: int
) -> None:
    with lines() as make:
        line = make()
        deliveries = weather.deliveries(session.messages())
        for batch in in_batches(deliveries, seed, most):
            line.run(*batch)
        line.run(end_of(deliveries))
        assert stood(line) == reference(make, session)
        assert line.journal.ledger().balanced


@CASES
@given(sessions(), weathers, st.integers(0, 2**32))
def test_the_same_messages_give_the_same_alerts_over_restarts_and_deaths_of_the_worker(
    session: Session, weather: Weather, seed: int
) -> None:
    chance = Random(seed)
    with lines() as make, few_at_once():
        line = make()
        deliveries = weather.deliveries(session.messages())
        for batch in in_batches(deliveries, seed, 20):
            fate = chance.random()
            if fate < 0.1:
                line.part(chance.randint(1, 4), *batch)
                line = line.die(make.root / f"after-{len(make.made)}")
                make.made.append(line)
            elif fate < 0.2:
                line.run(*batch).restart()
            else:
                line.run(*batch)
        line.run(end_of(deliveries))
        assert stood(line) == reference(make, session)
        assert line.journal.ledger().balanced


@contextmanager
def few_at_once(watches: int = 20_000, of_one: int = 100) -> Iterator[None]:
    """Small steps, so that a death can fall between any two; few watches, and few of a device, so that some are put away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backlog, "TURN_MOST", 4)
        patch.setattr(judgement, "MOST_WATCHES", watches)
        patch.setattr(judgement, "MOST_OF_ONE", of_one)
        patch.setattr(judgement, "MOST_OVER", of_one)
        yield


@settings(CASES, max_examples=40)
@given(st.lists(sessions(), min_size=2, max_size=4), weathers, st.integers(0, 2**32), st.sampled_from((1, 100)))
def test_the_same_messages_give_the_same_alerts_when_watches_are_put_away_and_taken_up_again(
    several: list[Session], weather: Weather, seed: int, of_one: int
) -> None:
    several = [replace(s, session_id=f"s-{at}", boot_id=at) for at, s in enumerate(several)]
    with lines() as make, few_at_once(watches=1, of_one=of_one):
        line = make()
        deliveries = [d for session in several for d in weather.deliveries(session.messages())]
        Random(seed).shuffle(deliveries)
        for batch in in_batches(deliveries, seed, 20):
            line.run(*batch)
        line.run(pulse(max(d.received_ms for d in deliveries) + LONG_AFTER_MS))
        assert stood(line) == reference(make, *several)


@CASES
@given(sessions(), weathers, st.integers(0, 2**32))
def test_each_step_of_an_alert_is_said_once_and_only_one_of_a_rule_is_open(session: Session, weather: Weather, seed: int) -> None:
    with lines() as make:
        line = make()
        deliveries = weather.deliveries(session.messages())
        for batch in in_batches(deliveries, seed, 8):
            line.run(*batch)
            line.run(*batch)
        line.run(end_of(deliveries))
        said = [s for topic, s in line.feed.said if topic.endswith("/alert")]
        for before, after in zip(said, said[1:], strict=False):
            assert {**before, "at_ms": 0} != {**after, "at_ms": 0}
        opened = Counter(s["alert"]["id"] for s in said if s["event"] == "opened")
        assert set(opened.values()) <= {1}
        rules = Counter(alert["rule"] for alert in line.alerts(state="open"))
        assert set(rules.values()) <= {1}
        before = len(line.feed.said)
        line.run(*deliveries, pulse(deliveries[-1].received_ms + LONG_AFTER_MS + 1))
        assert [] == [topic for topic, _ in list(line.feed.said)[before:] if topic.endswith("/alert")]


# -- single cases, each once a defect or a danger of one ------------------------------------------------


def second(at_s: float, *, seq: int, **fields: Any) -> Delivery:
    """A current message that arrives as soon as it is sent."""
    sent_ms = START_MS + int(at_s * 1000)
    return deliver(Stream.CURRENT, message(Stream.CURRENT, seq, sent_ms, **fields), sent_ms)


def late(delivery: Delivery, by_s: float) -> Delivery:
    return delivery._replace(received_ms=delivery.received_ms + int(by_s * 1000))


def test_a_late_reading_that_completes_a_hold_earlier_moves_the_time_of_opening(tmp_path: Path) -> None:
    readings = [second(s, seq=s, i_rms_ua=400.0) for s in range(30)]
    with Line(tmp_path / "calm") as calm_line, Line(tmp_path / "late") as line:
        calm_line.run(*readings, pulse(START_MS + 60_000))
        line.run(*readings[:1], *readings[2:]).run(late(readings[1], 60), pulse(START_MS + 300_000))
        assert stood(calm_line)[0]["opened_ms"] == START_MS + 1_000
        assert stood(line) == stood(calm_line)


def test_a_late_pause_that_takes_the_worst_reading_out_of_an_alert_lowers_its_value(tmp_path: Path) -> None:
    readings = [second(s, seq=s, i_rms_ua=450.0 if s == 10 else 400.0 if s < 10 else 100.0) for s in range(40)]
    sent_ms = START_MS + 9_500
    pause = deliver(Stream.RUNTIME, message(Stream.RUNTIME, 40, sent_ms, run_state="paused"), sent_ms)
    with Line(tmp_path / "calm") as calm_line, Line(tmp_path / "late") as line:
        calm_line.run(*readings[:10], pause, *readings[10:], pulse(START_MS + 80_000))
        line.run(*readings, pulse(START_MS + 80_000)).run(late(pause, 90), pulse(START_MS + 300_000))
        assert stood(calm_line)[0]["value"] == 400.0
        assert stood(line) == stood(calm_line)


def contact_at(at_s: float, *, seq: int) -> Delivery:
    sent_ms = START_MS + int(at_s * 1000)
    return deliver(Stream.CONTACT, message(Stream.CONTACT, seq, sent_ms), sent_ms)


@pytest.mark.parametrize("end", ["goes on", "restarts", "dies"])
def test_a_spike_said_on_arrival_gives_way_to_an_earlier_one_whatever_happens_between(tmp_path: Path, end: str) -> None:
    """The contact stream lags, so the spike is said before its turn; then an earlier spike comes."""
    with Line(tmp_path / "first") as line:
        line.run(contact_at(0, seq=0)).run(contact_at(1, seq=1), second(4, seq=4, i_peak_ua=900.0))
        assert line.standing() == [("overcurrent-peak", "critical", "open", 4_000, None)]
        if end == "restarts":
            line.restart()
        later = line.die(tmp_path / "second") if end == "dies" else line
        later.run(second(2, seq=2, i_peak_ua=800.0), second(3, seq=3), pulse(START_MS + 60_000))
        assert later.standing() == [("overcurrent-peak", "critical", "open", 2_000, None)]
        if later is not line:
            later.journal.close()


def test_late_danger_that_was_taken_in_just_before_the_worker_died_is_judged_by_the_next(tmp_path: Path) -> None:
    """It lies behind a checkpoint, and the worker was killed before it had judged the session again."""
    calm_readings = [second(s, seq=s) for s in range(100) if s != 40]
    danger = late(second(40, seq=40, i_peak_ua=900.0), 80)
    with Line(tmp_path / "first") as line, few_at_once():
        line.run(*calm_readings, pulse(START_MS + 115_000))
        more = [second(125 + s, seq=100 + s) for s in range(40)]
        line.part(1, danger, *more)
        assert line.journal.ledger().inbox > 0
        with line.die(tmp_path / "second") as later:
            later.run(pulse(START_MS + 300_000))
            assert [a[:2] for a in later.standing() if a[0] != "telemetry-gap"] == [("overcurrent-peak", "critical")]


def test_danger_that_stands_is_not_taken_back_when_a_long_session_is_taken_up_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More is on record since its last checkpoint than is judged at once, and the device says nothing more."""
    running = deliver(Stream.RUNTIME, message(Stream.RUNTIME, 0), START_MS)
    readings = [second(s, seq=s, i_peak_ua=200.0 if s < 20 else 900.0) for s in range(1, 30)]
    with Line(tmp_path / "first") as line:
        before = line.run(running, *readings, pulse(START_MS + 30_000)).standing()
        assert before == [("overcurrent-peak", "critical", "open", 20_000, None)]
        monkeypatch.setattr(judgement, "AT_ONCE", 5)
        with line.die(tmp_path / "second") as later:
            later.run(pulse(START_MS + 31_000))
            assert later.standing() == before
            assert "withdrawn" not in [event for event, _ in later.events()]


@pytest.mark.parametrize("refused", [False, True])
def test_late_data_do_not_take_back_alerts_whose_raw_messages_are_no_longer_kept(tmp_path: Path, refused: bool) -> None:
    readings = [second(s, seq=s) for s in range(400) if s != 300]
    readings[5] = second(5, seq=5, i_peak_ua=900.0, level="three" if refused else 3)
    with Line(tmp_path) as line:
        line.one_by_one(readings).settle_store()
        before = line.standing()
        assert before == [("overcurrent-peak", "critical", "closed", 5_000, "cleared")]
        line.prune(START_MS + 60_000)
        line.restart().run(late(second(300, seq=300), 200), pulse(START_MS + 900_000))
        assert line.standing() == before


def test_two_episodes_of_a_rule_are_two_alerts(tmp_path: Path) -> None:
    peaks = {5: 900.0, 6: 950.0, 30: 700.0}
    readings = [second(s, seq=s, i_peak_ua=peaks.get(s, 200.0)) for s in range(60)]
    with Line(tmp_path) as line:
        line.run(*readings, pulse(START_MS + 80_000))
        assert line.standing() == [
            ("overcurrent-peak", "critical", "closed", 5_000, "cleared"),
            ("overcurrent-peak", "critical", "closed", 30_000, "cleared"),
        ]
        assert [(a["value"], a["closed_ms"] - START_MS) for a in line.alerts()] == [(950.0, 17_000), (700.0, 41_000)]
