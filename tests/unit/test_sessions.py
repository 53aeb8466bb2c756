"""The record of a session: how it went, and how much of it was seen."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from ingest import chronicle
from ingest.chronicle import MANY, Chronicle
from ingest.mqtt import Delivery
from schemas.sessions import SessionRecord
from schemas.topics import Stream
from tests.line import DEVICE, START_MS, Line, deliver, envelope, message, pulse, sample

Z_OHM = 4e3
"""200 µA peak, 0.8 V; 141 µA r.m.s."""


class Session:
    """Messages of one session in the order of their sequence; each is heard 0.1 s after it was sent."""

    def __init__(self, session_id: str = "s-1", boot_id: int = 7, seq: int = 0) -> None:
        self.session_id, self.boot_id, self.seq = session_id, boot_id, seq
        self.sent: list[Delivery] = []

    def say(self, stream: Stream, at_s: float, late_s: float = 0.1, **fields: Any) -> "Session":
        at_ms = START_MS + round(1000 * at_s)
        names = {"session_id": self.session_id, "boot_id": self.boot_id}
        payload = message(stream, self.seq, at_ms, envelope_=names, **fields)
        self.seq += 1
        self.sent.append(deliver(stream, payload, at_ms + round(1000 * late_s)))
        return self

    def run(self, at_s: float, **fields: Any) -> "Session":
        return self.say(Stream.RUNTIME, at_s, **{"elapsed_s": max(0, int(at_s)), **fields})

    def touch(self, at_s: float, **fields: Any) -> "Session":
        return self.say(Stream.CONTACT, at_s, **{"z_ohm": Z_OHM, **fields})

    def flow(self, from_s: int, to_s: int, state: str = "good", **fields: Any) -> "Session":
        """One window of output each second after `from_s` until `to_s`, contact just before its end."""
        z_ohm = Z_OHM if state == "good" else 2e6
        for s in range(from_s + 1, to_s + 1):
            self.touch(s - 0.1, state=state, z_ohm=z_ohm)
            self.say(Stream.CURRENT, s, **{"v_peak_mv": 800.0, **fields})
        return self

    def end(self, at_s: float, reason: str = "user") -> "Session":
        return self.run(at_s, run_state="ended", end_reason=reason)


def plain(seconds: int = 60, reason: str = "user", **fields: Any) -> Session:
    return Session().run(0).flow(0, seconds, **fields).end(seconds, reason)


def heard(line: Line, session: Session, after_s: float = 500) -> Line:
    return line.run(*session.sent).run(pulse(START_MS + round(1000 * after_s)))


def records(line: Line) -> list[SessionRecord]:
    return [record for record, _ in line.journal.sessions(DEVICE, 0, 2**62)]


def record_of(tmp_path: Path, session: Session) -> SessionRecord:
    with Line(tmp_path) as line:
        (record,) = records(heard(line, session))
        return record


def figures(record: SessionRecord, *names: str) -> tuple[Any, ...]:
    return tuple(getattr(record, name) for name in names)


# -- how it went ----------------------------------------------------------------------------------------


def test_a_whole_session_is_on_record_as_it_was(tmp_path: Path) -> None:
    record = record_of(tmp_path, plain(60))
    assert record.model_dump() == {
        "device_id": DEVICE, "model": "toneduo-400", "fw": "2.3.1", "session_id": "s-1", "hw": "B", "profile_id": "toneduo-400",
        "profile_version": 1, "program_id": "lift", "attachment_id": None, "started_ms": START_MS, "last_ms": START_MS + 60_000,
        "ended": True, "end_reason": "user", "running_s": 60.0, "observed_s": 60.0, "unobserved_s": 0.0, "coverage": 1.0, "messages": 122,
        "lost_messages": 0, "clock_ok": True, "output_s": 60.0, "active_s": 60.0, "effective_s": 60.0, "planned_s": 300.0,
        "completion": 0.2, "completed": False, "contact_efficiency": 1.0, "delivery_ratio": 1.0, "charge_mc": pytest.approx(8.46),
        "net_charge_mc_cm2": 0.0, "mean_intensity_ua": pytest.approx(141.0), "i_peak_max_ua": 200.0, "i_rms_max_ua": 141.0,
        "z_median_ohm": pytest.approx(Z_OHM, rel=0.01), "temp_head_max_c": None, "level_max": 3, "level_downs": 0, "reconnects": 0,
        "zone_s": {"cheek_l": 60.0}, "minutes": {START_MS // 60_000: 60.0},
    }  # fmt: skip


def test_only_time_active_in_contact_and_at_half_the_set_point_is_effective(tmp_path: Path) -> None:
    session = Session().run(0).flow(0, 10).flow(10, 20, state="off", i_peak_ua=0.0, i_rms_ua=0.0, v_peak_mv=0.0)
    session.flow(20, 30, i_peak_ua=99.0, i_rms_ua=70.0).flow(30, 40, i_peak_ua=100.0, i_rms_ua=70.0)
    session.flow(40, 50, output_enabled=False, i_peak_ua=0.0, i_rms_ua=0.0).run(50, run_state="paused").flow(50, 60).end(60)
    record = record_of(tmp_path, session)
    assert figures(record, "running_s", "observed_s", "output_s", "active_s", "effective_s") == (50.0, 50.0, 50.0, 40.0, 20.0)
    assert record.contact_efficiency == 0.5


def test_effective_time_is_told_by_zone(tmp_path: Path) -> None:
    session = Session().flow(-5, 0).run(0, zone="jaw_l").flow(0, 20).run(20, zone="cheek_r").flow(20, 30).end(30)
    assert record_of(tmp_path, session).zone_s == {"unassigned": 5.0, "jaw_l": 20.0, "cheek_r": 10.0}


def test_charge_is_unsigned_and_net_charge_is_signed_per_area_and_in_contact_only(tmp_path: Path) -> None:
    session = Session().run(0).flow(0, 30, i_dc_ua=4.0).flow(30, 50, i_dc_ua=-2.0).flow(50, 60, state="off", i_dc_ua=4.0, i_rms_ua=4.0, i_peak_ua=4.0)
    record = record_of(tmp_path, session.end(60))
    assert record.charge_mc == pytest.approx((50 * 141 + 10 * 4) / 1000)
    assert record.net_charge_mc_cm2 == pytest.approx((30 * 4 - 20 * 2) / 1000 / 1.0)


@pytest.mark.parametrize(("peaks", "median"), [([200.0] * 5 + [100.0] * 4, 1.0), ([200.0] * 4 + [100.0] * 5, 0.5), ([150.0] * 9, 0.75)])
def test_the_delivery_ratio_is_the_median_in_contact(tmp_path: Path, peaks: list[float], median: float) -> None:
    session = Session().run(0)
    for n, peak_ua in enumerate(peaks):
        session.flow(n, n + 1, i_peak_ua=peak_ua, i_rms_ua=0.7 * peak_ua)
    session.flow(9, 39, state="off", i_peak_ua=0.0, i_rms_ua=0.0, v_peak_mv=0.0)
    assert record_of(tmp_path, session.end(40)).delivery_ratio == median


def test_the_impedance_is_the_median_in_good_contact(tmp_path: Path) -> None:
    session = Session().run(0)
    for n, (z_ohm, state) in enumerate([(4e3, "good"), (6e3, "good"), (20e3, "good"), (100e3, "marginal"), (2e6, "off")]):
        session.touch(n + 0.5, z_ohm=z_ohm, state=state)
    assert record_of(tmp_path, session.end(40)).z_median_ohm == pytest.approx(6e3, rel=0.01)


def test_what_was_highest_and_how_often_the_level_was_lowered_and_contact_made(tmp_path: Path) -> None:
    session = Session().run(0).flow(0, 5, level=3).flow(5, 10, level=5, i_peak_ua=210.0, i_rms_ua=148.0).flow(10, 15, level=4).flow(15, 20, level=2)
    session.touch(20.2, make_count=2).touch(20.6, make_count=4).say(Stream.HEALTH, 21, temp_head_c=35.5).say(Stream.HEALTH, 22, temp_head_c=34.0)
    record = record_of(tmp_path, session.end(30))
    assert figures(record, "i_peak_max_ua", "i_rms_max_ua", "level_max", "level_downs", "reconnects", "temp_head_max_c") == (210.0, 148.0, 5, 2, 3, 35.5)


@pytest.mark.parametrize(
    ("seconds", "reason", "completion", "completed"),
    [(239, "completed", 239 / 300, False), (240, "completed", 0.8, True), (240, "auto_off", 0.8, True), (240, "user", 0.8, False),
     (299, "user", 299 / 300, False), (300, "user", 1.0, True), (310, "battery", 1.0, True)],
)  # fmt: skip
def test_a_session_is_completed_if_it_ended_by_itself_after_four_fifths_or_was_done(
    tmp_path: Path, seconds: int, reason: str, completion: float, completed: bool
) -> None:
    record = record_of(tmp_path, plain(seconds, reason))
    assert figures(record, "end_reason", "completion", "completed") == (reason, pytest.approx(completion), completed)


def test_windows_that_overlap_are_counted_once(tmp_path: Path) -> None:
    record = record_of(tmp_path, Session().run(0).flow(2, 60, window_ms=2_400).end(60))
    assert figures(record, "output_s", "observed_s", "effective_s") == (60.4 - 1, 59.4, 59.4)


# -- how much of it was seen ----------------------------------------------------------------------------


def test_time_that_was_not_seen_is_told_and_a_counter_tells_its_output(tmp_path: Path) -> None:
    """Twenty seconds of contact and current are lost, 40 messages of 162."""
    session = plain(80)
    session.sent[-1] = deliver(
        Stream.RUNTIME, message(Stream.RUNTIME, session.seq - 1, START_MS + 80_000, run_state="ended", output_on_s=80, elapsed_s=80), START_MS + 80_100
    )
    del session.sent[41:81]
    record = record_of(tmp_path, session)
    assert figures(record, "running_s", "observed_s", "unobserved_s", "coverage") == (80.0, 60.0, 20.0, 0.75)
    assert figures(record, "messages", "lost_messages", "output_s", "active_s", "effective_s") == (122, 40, 80.0, 60.0, 60.0)


def batch(stream: Stream, seq: int, times_s: list[float], late_s: float = 0.1, **fields: Any) -> Delivery:
    first_ms, last_ms = (START_MS + round(1000 * s) for s in (times_s[0], times_s[-1]))
    samples = [sample(stream, START_MS + round(1000 * s) - first_ms, **fields) for s in times_s]
    return deliver(stream, orjson.dumps(envelope(seq, first_ms, *samples)), last_ms + round(1000 * late_s))


def test_batches_that_overlap_in_time_are_as_many_messages_as_came(tmp_path: Path) -> None:
    deliveries = [deliver(Stream.RUNTIME, message(Stream.RUNTIME, 0), START_MS)]
    for n in range(4):
        deliveries.append(batch(Stream.CURRENT, 2 * n + 1, [5 * n + k for k in range(1, 6)], v_peak_mv=800.0))
        deliveries.append(batch(Stream.CONTACT, 2 * n + 2, [5 * n + k / 2 + 0.25 for k in range(10)], z_ohm=Z_OHM))
    ended = message(Stream.RUNTIME, 9, START_MS + 20_500, run_state="ended", elapsed_s=20)
    with Line(tmp_path) as line:
        (record,) = records(line.run(*deliveries, deliver(Stream.RUNTIME, ended, START_MS + 21_000)).run(pulse(START_MS + 500_000)))
    assert figures(record, "messages", "lost_messages", "effective_s") == (10, 0, 20.0)


def test_a_lost_batch_that_comes_late_corrects_the_record(tmp_path: Path) -> None:
    session = plain(80)
    lost, kept = session.sent[41:81], session.sent[:41] + session.sent[81:]
    with Line(tmp_path) as line:
        line.run(*kept).run(pulse(START_MS + 500_000))
        assert [figures(r, "coverage", "lost_messages", "effective_s") for r in records(line)] == [(0.75, 40, 60.0)]
        late = [each._replace(received_ms=START_MS + 600_000) for each in lost]
        line.run(*late).run(pulse(START_MS + 1_200_000))
        assert [figures(r, "coverage", "lost_messages", "effective_s") for r in records(line)] == [(1.0, 0, 80.0)]


def test_a_clock_that_was_not_believed_is_told(tmp_path: Path) -> None:
    session = Session().run(0)
    ahead = message(Stream.CONTACT, session.seq, START_MS + 3_600_000, envelope_={"uptime_ms": 65_000}, z_ohm=Z_OHM)
    session.sent.append(deliver(Stream.CONTACT, ahead, START_MS + 5_100))
    session.seq += 1
    assert record_of(tmp_path / "ahead", session.end(10)).clock_ok is False
    assert record_of(tmp_path / "right", plain(10)).clock_ok is True


def test_a_session_that_falls_silent_is_on_record_as_not_ended(tmp_path: Path) -> None:
    record = record_of(tmp_path, Session().run(0).flow(0, 60))
    assert figures(record, "ended", "end_reason", "completed", "last_ms") == (False, None, False, START_MS + 60_000)


def test_a_session_over_two_boots_is_one(tmp_path: Path) -> None:
    first = Session().run(0).flow(0, 30)
    second = Session(boot_id=8).flow(40, 60).end(60)
    first.sent += second.sent
    record = record_of(tmp_path, first)
    assert figures(record, "messages", "lost_messages", "effective_s", "running_s", "observed_s") == (102, 0, 50.0, 60.0, 50.0)


def test_what_is_said_outside_sessions_is_no_session(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        heard(line, Session(session_id=None).run(0).flow(0, 90).end(90))
        assert records(line) == []


def test_a_model_without_a_profile_has_neither_plan_nor_area(tmp_path: Path) -> None:
    session = Session().run(0).flow(0, 10).end(10)
    session.sent = [d._replace(payload=d.payload.replace(b"toneduo-400", b"unheard-of")) for d in session.sent]
    record = record_of(tmp_path, session)
    assert figures(record, "planned_s", "completion", "completed", "net_charge_mc_cm2", "profile_id") == (None, None, False, None, None)
    assert record.effective_s == 10.0


def test_the_attachment_is_the_one_told_last_before_it_began(tmp_path: Path) -> None:
    session = Session().say(Stream.IDENTITY, -10, attachment_id="A-7").run(0).flow(0, 10).end(10).say(Stream.IDENTITY, 50, attachment_id="A-8")
    later = Session("s-2", seq=session.seq).run(100).end(110)
    session.sent += later.sent
    with Line(tmp_path) as line:
        told = {r.session_id: r.attachment_id for r in records(heard(line, session))}
    assert told == {"s-1": "A-7", "s-2": "A-8"}


# -- on its way to the store ----------------------------------------------------------------------------


def test_a_session_that_is_over_waits_for_the_store_and_late_data_overwrite_it(tmp_path: Path) -> None:
    session = plain(80)
    lost, kept = session.sent[41:81], session.sent[:41] + session.sent[81:]
    with Line(tmp_path) as line:
        line.run(*kept[:-1]).run(pulse(START_MS + 80_000))
        assert line.points("session") == []
        line.run(kept[-1]).run(pulse(START_MS + 500_000))
        first = line.points("session")
        line.run(*(each._replace(received_ms=START_MS + 600_000) for each in lost)).run(pulse(START_MS + 1_200_000))
        corrected = line.points("session")[-1]
        assert {(p.tags, p.time_ns) for p in [*first, corrected]} == {(first[0].tags, first[0].time_ns)}
        assert first[-1].fields["effective_s"] == 60.0
        assert {k: corrected.fields[k] for k in ("effective_s", "zone_cheek_l_s", "coverage", "lost_messages", "end_reason")} == {
            "effective_s": 80.0, "zone_cheek_l_s": 80.0, "coverage": 1.0, "lost_messages": 0, "end_reason": "user",
        }  # fmt: skip
        assert "minutes" not in corrected.fields


# -- very many sessions ---------------------------------------------------------------------------------


def test_a_device_that_begins_a_session_with_every_message_does_not_have_all_of_them_read_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    past = Chronicle._past
    monkeypatch.setattr(Chronicle, "_past", lambda *asked: read.append(len(found := past(*asked))) or found)
    monkeypatch.setattr(chronicle, "REST", 1e9)
    with Line(tmp_path) as line:
        line.one_by_one(Session(f"s-{n}", seq=n).run(n).sent[0] for n in range(3 * MANY))
        assert MANY * MANY / 2 < sum(read) < MANY * MANY
        assert len(records(line)) == 3 * MANY


@pytest.mark.parametrize("end", ["restart", "die"])
def test_what_is_put_off_of_a_device_with_very_many_sessions_is_judged_when_it_has_rested_or_the_worker_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    sent = [
        each
        for n in range(12)
        for each in Session(f"s-{n}", seq=2 * n).run(1_000 * n, elapsed_s=0).end(1_000 * n + 400).sent
    ]
    for n, each in enumerate(sent):
        if n % 2:
            sent[n] = each._replace(payload=each.payload.replace(b'"output_on_s":0', b'"output_on_s":300').replace(b'"elapsed_s":0', b'"elapsed_s":400'))
    over = pulse(START_MS + 13_000_000)

    def judged(line: Line) -> list[tuple[Any, ...]]:
        return [tuple(alert[name] for name in ("id", "severity", "state", "value", "unit", "closed_ms")) for alert in line.alerts(rule="daily-overuse")]

    with Line(tmp_path / "calm") as line:
        expected = judged(line.run(*sent).run(over))
        assert len(expected) > 3
    monkeypatch.setattr(chronicle, "MANY", 3)
    monkeypatch.setattr(chronicle, "REST", 1e9)
    with Line(tmp_path / "first") as line:
        line.one_by_one(sent).run(over)
        assert judged(line) != expected
        later = line.restart() if end == "restart" else line.die(tmp_path / "second")
        assert judged(later.run(over._replace(pulse_ms=over.pulse_ms + 1_000))) == expected
        if later is not line:
            later.journal.close()


def test_what_is_put_off_is_judged_in_the_same_life_once_the_device_has_rested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chronicle, "MANY", 3)
    monkeypatch.setattr(chronicle, "REST", 1e9)
    with Line(tmp_path) as line:
        line.one_by_one(Session(f"s-{n}", seq=n).run(n).sent[0] for n in range(8))
        assert list(line.journal.history_owed()) == [DEVICE]
        line.core._desk.chronicle._rests_until_s.clear()
        line.run(pulse(START_MS + 20_000))
        assert line.journal.history_owed() == {}
