"""What the store is told of devices, the fleet, the worker and refused messages, and how often."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ingest import reports
from ingest.admit import NOBODY
from ingest.mqtt import Delivery
from ingest.points import Entry, read_back
from ingest.reports import HOUR_MS, Guarded, Links, within_most, worker_name
from ingest.sink import RefusedEntry
from ingest.sinks.duckdb import DuckDBSink
from ingest.sinks.influx import lines
from schemas.measurements import DEVICE as DEVICE_POINTS
from schemas.measurements import DRAWN_LIMITS, EVERY, FLEET, MEASUREMENTS, MOST_GROUPS, PIPELINE, STATES, Kind, Point
from schemas.profile import load_profiles
from schemas.rejections import Reason
from schemas.topics import Stream
from tests.agreement import told_agrees
from tests.line import DEVICE, MODEL, START_MS, Line, deliver, message, pulse, stored
from tests.unit.test_session_points import spike
from tests.unit.test_sessions import plain

S = 1_000
WORKER = worker_name("ingest-test")


class Fleet:
    """Devices that say something whenever they are asked to; each message is heard at once."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.seqs: Counter[str] = Counter()

    def says(self, stream: Stream = Stream.RUNTIME, device: str = DEVICE, fw: str = "2.3.1", model: str = MODEL, **fields: Any) -> Delivery:
        now_ms, seq = self.line.clock.ms, self.seqs[device]
        self.seqs[device] += 1
        if stream is Stream.RUNTIME:
            fields = {"run_state": "idle", **fields}
        names = {"fw": fw, "model": model, "session_id": None}
        return deliver(stream, message(stream, seq, now_ms, envelope_=names, **fields), now_ms, device)

    def say(self, stream: Stream = Stream.RUNTIME, **said: Any) -> "Fleet":
        self.line.run(self.says(stream, **said))
        return self


def wait(line: Line, seconds: float, step_s: float = 10) -> Line:
    """Time passes, and the worker looks up now and then."""
    end_ms = line.clock.ms + round(seconds * S)
    while line.clock.ms < end_ms:
        line.clock.ms = min(end_ms, line.clock.ms + round(step_s * S))
        line.run()
    return line


def at_s(point: Point) -> float:
    return (point.time_ns // 10**6 - START_MS) / S


def told(line: Line, *names: str, device: str = DEVICE) -> list[tuple[Any, ...]]:
    """(s since the start, fields …) of each point of a device."""
    return [(at_s(p), *(p.fields.get(n) for n in names)) for p in line.points("device") if p.tags[0] == device]


def broken(line: Line, device: str = DEVICE, words: str = "") -> Delivery:
    return deliver(Stream.CURRENT, b"not a reading " + words.encode(), line.clock.ms, device)


# -- devices --------------------------------------------------------------------------------------------


def test_a_device_is_told_with_all_that_is_thought_of_it(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        fleet = Fleet(line)
        line.run(fleet.says(Stream.IDENTITY), fleet.says(Stream.HEALTH), fleet.says(run_state="running"), broken(line))
        wait(line, 10)
        point = line.points("device")[-1]
        assert (point.measurement, point.tags) == ("device", (DEVICE, MODEL, "2.3.1"))
        assert set(point.fields) == set(DEVICE_POINTS.fields)
        assert point.fields == {
            "state": "ok", "rank": 0, "online": 1, "running": 1, "open_critical": 0, "open_warning": 0, "open_info": 0, "missing": 0,
            "quarantined": 1, "contract": 1, "last_seen_ms": START_MS, "last_event_ms": START_MS, "hw": "B", "lot": "L-1",
            "profile": "toneduo-400", "battery_mv": 3900.0,
            **{name: getattr(load_profiles().for_model(MODEL).limits, name) for name in DRAWN_LIMITS},
        }  # fmt: skip


def test_a_device_is_told_at_each_change_and_not_without(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        fleet = Fleet(line).say()
        assert told(line, "state", "running") == [(0, "idle", 0)]
        wait(line, 10)
        fleet.say()
        wait(line, 10)
        assert len(told(line)) == 1
        fleet.say(run_state="running")
        wait(line, 10)
        fleet.say(Stream.STATUS, state="offline", reason="shutdown")
        wait(line, 10)
        assert told(line, "state", "online", "running") == [(0, "idle", 1, 0), (30, "ok", 1, 1), (40, "silent", 0, 0)]


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [({"fw": "2.4.0"}, None, (MODEL, "2.4.0")), ({"model": "tonetip-e"}, "profile", "tonetip-e"), ({"model": "unheard-of"}, "state", "unknown"),
     ({"stream": Stream.IDENTITY, "lot": "L-9"}, "lot", "L-9")],
)  # fmt: skip
def test_what_a_device_is_counts_as_a_change(tmp_path: Path, change: dict[str, Any], field: str | None, expected: Any) -> None:
    with Line(tmp_path) as line:
        fleet = Fleet(line).say()
        line.clock.ms += 10 * S
        fleet.say(**change)
        wait(line, 10)
        last = line.points("device")[-1]
        assert (last.fields.get(field) if field else last.tags[1:]) == expected
        assert len(line.points("device")) == 2


def test_an_alert_that_opens_and_closes_is_a_change_of_its_device(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        fleet = Fleet(line).say(run_state="running")
        for s in range(1, 60):
            line.clock.ms = START_MS + s * S
            fleet.say(Stream.CURRENT, i_peak_ua=900.0 if s < 4 else 200.0)
        changes = [change for _, *change in told(line, "state", "rank", "open_critical")]
        assert changes == [["ok", STATES.index("ok"), 0], ["critical", STATES.index("critical"), 1], ["ok", STATES.index("ok"), 0]]


def test_a_running_device_that_says_nothing_becomes_silent_by_time_alone(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        Fleet(line).say(run_state="running")
        wait(line, 15, step_s=5)
        assert told(line, "state") == [(0, "ok")]
        wait(line, 5)
        assert told(line, "state") == [(0, "ok"), (20, "silent")]


def test_a_device_that_was_silenced_by_a_dead_worker_is_told_by_the_next(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        Fleet(line).say(run_state="running")
        line.clock.ms += 60 * S
        line.restart()
        assert told(line, "state") == [(0, "ok"), (60, "silent")]


def test_a_restart_alone_tells_nothing_of_devices(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        Fleet(line).say(Stream.IDENTITY).say(Stream.HEALTH).say()
        wait(line, 70)
        before = told(line)
        wait(line.restart(), 70)
        assert told(line) == before


def test_every_device_is_told_every_hour_each_at_its_own_time(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        fleet = Fleet(line)
        names = [f"tone-{n}" for n in range(60)]
        line.run(*(fleet.says(device=name) for name in names))
        wait(line, 3 * 3_600)
        for name in names:
            first, *hourly = [s for (s,) in told(line, device=name)]
            assert (first, len(hourly)) == (0, 3)
            assert all(3_590 <= later - sooner <= 3_610 for sooner, later in zip(hourly, hourly[1:], strict=False))
        busiest = Counter(at_s(p) for p in line.points("device") if at_s(p)).most_common(1)
        assert busiest[0][1] <= 4


def test_after_a_long_stop_the_hourly_points_do_not_come_all_at_once(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        fleet = Fleet(line)
        line.run(*(fleet.says(device=f"tone-{n}") for n in range(60)))
        line.clock.ms += 24 * HOUR_MS
        line.restart()
        again_ms = line.clock.ms
        assert len(line.points("device")) == 60
        wait(line, 3_600)
        times = Counter(p.time_ns for p in line.points("device") if p.time_ns // 10**6 > again_ms)
        assert (times.total(), max(times.values()) <= 4) == (60, True)


def test_numbers_that_change_all_the_time_are_told_at_most_once_a_minute(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        fleet = Fleet(line).say(Stream.HEALTH)
        for n in range(12):
            wait(line, 10)
            fleet.seqs[DEVICE] += 1  # one number is lost
            line.run(broken(line, words=str(n)))
            fleet.say(Stream.HEALTH, battery_mv=3_900.0 - 100 * n)
        assert told(line, "missing", "quarantined", "battery_mv") == [(0, 0, 0, 3_900.0), (60, 5, 5, 3_500.0), (120, 11, 11, 2_900.0)]


def test_a_battery_that_sinks_slowly_is_told_in_steps(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        fleet = Fleet(line).say(Stream.HEALTH)
        for n in range(1, 13):
            wait(line, 60)
            fleet.say(Stream.HEALTH, battery_mv=3_900.0 - 10 * n)
        found = [battery_mv for s, battery_mv in told(line, "battery_mv") if s]
        assert found[0] in (3_840.0, 3_850.0)
        assert len(found) <= 3


def test_the_contract_is_the_last_one_spoken_understood_or_not(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        fleet = Fleet(line).say()
        for version in (0, 7, 65_536, -1, 10**30, 2**63):
            wait(line, 10)
            line.run(deliver(Stream.RUNTIME, message(Stream.RUNTIME, 900 + version % 7, line.clock.ms).replace(b'"v":1', b'"v":%d' % version), line.clock.ms))
        assert set(line.reasons()) == {"version_unsupported"}
        wait(line, 10)
        assert told(line, "contract")[:3] == [(0, 1), (20, 0), (30, 7)]
        assert {contract for _, contract in told(line, "contract")[3:]} <= {7}
        line.restart()
        fleet.say()
        wait(line, 10)
        assert told(line, "contract")[-1][1] == 1


def test_what_never_sent_a_message_of_the_contract_has_no_points(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        invented = [broken(line, f"invented-{n}", str(n)) for n in range(50)]
        nameless = deliver("mc/v1/!/current", b"{}", START_MS)
        line.run(*invented, nameless, Fleet(line).says(device="real-1"))
        line.restart()
        wait(line, 3_700)
        assert {p.tags[0] for p in line.points("device")} == {"real-1"}
        assert NOBODY in line.core.devices
        assert {p.fields["devices"] for p in line.points("fleet")} == {1}
        assert line.points("pipeline")[-1].fields["missing"] == 0


def test_a_clock_that_was_set_back_silences_nobody(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        fleet = Fleet(line).say()
        line.clock.ms -= 24 * HOUR_MS
        line.run()
        fleet.say(Stream.STATUS, state="offline", reason="shutdown")
        wait(line, 30)
        assert told(line, "state") == [(0, "idle"), (-86_400, "idle"), (10 - 86_400, "off")]
        assert len(line.points("pipeline")) == 5


@pytest.mark.parametrize("reason", ["shutdown", "will"])
@pytest.mark.parametrize(("run_state", "state"), [("idle", "off"), ("ended", "off"), ("running", "silent")])
def test_a_device_that_is_away_is_silent_only_if_it_was_in_use(tmp_path: Path, reason: str, run_state: str, state: str) -> None:
    with Line(tmp_path) as line:
        fleet = Fleet(line).say(run_state=run_state)
        fleet.say(Stream.STATUS, state="offline", reason=reason)
        wait(line, 10)
        assert told(line, "state", "online")[-1] == (10, state, 0)


# -- the fleet ------------------------------------------------------------------------------------------


def groups(line: Line, since_s: float = 0) -> dict[tuple[str, ...], dict[str, int]]:
    """Model and firmware → the latest counts."""
    return {p.tags[1:]: p.fields for p in line.points("fleet") if at_s(p) >= since_s}


def test_the_fleet_is_counted_by_model_and_firmware(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        fleet = Fleet(line)
        line.run(
            fleet.says(device="a", run_state="running"), fleet.says(device="b"), fleet.says(device="c", model="unheard-of"),
            fleet.says(device="d", fw="2.4.0"), fleet.says(Stream.STATUS, device="d", fw="2.4.0", state="offline", reason="shutdown"),
            fleet.says(Stream.CURRENT, device="e", i_peak_ua=900.0),
            fleet.says(device="f"),
            deliver(Stream.RUNTIME, message(Stream.RUNTIME, 5).replace(b'"v":1', b'"v":0'), START_MS, "f"),
        )  # fmt: skip
        wait(line, 10)
        assert {p.tags[0] for p in line.points("fleet")} == {WORKER}
        none = dict.fromkeys(FLEET.fields, 0)
        assert groups(line, 10) == {
            (MODEL, "2.3.1"): {**none, "devices": 4, "online": 4, "running": 1, "in_critical": 1, "old_contract": 1},
            (MODEL, "2.4.0"): {**none, "devices": 1},
            ("unheard-of", "2.3.1"): {**none, "devices": 1, "online": 1, "unknown": 1},
        }


def test_the_fleet_is_told_every_ten_seconds_whether_it_changed_or_not(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        Fleet(line).say()
        wait(line, 60)
        assert [at_s(p) for p in line.points("fleet")] == [0, 10, 20, 30, 40, 50, 60]


@pytest.mark.parametrize("restarted", ["never", "before", "after"])
def test_firmware_that_the_last_device_left_is_told_once_more_with_zeros(tmp_path: Path, restarted: str) -> None:
    with Line(tmp_path) as line:
        fleet = Fleet(line).say()
        if restarted == "before":
            line.restart()
        fleet.say(fw="2.4.0")
        if restarted == "after":
            line.clock.ms += 5 * S
            line.restart()
        wait(line, 60)
        old = [(p.fields["devices"], at_s(p)) for p in line.points("fleet") if p.tags[2] == "2.3.1"]
        assert [devices for devices, s in old if s > 0] in ([0], [])
        assert old[-1][0] == 0
        assert groups(line)[MODEL, "2.4.0"]["devices"] == 1
        wait(line.restart(), 60)
        assert len([p for p in line.points("fleet") if p.tags[2] == "2.3.1"]) == len(old)


def test_groups_beyond_the_most_are_told_as_one_and_the_sum_stays(tmp_path: Path) -> None:
    many = {(MODEL, f"1.0.{n}"): [n + 1] * len(FLEET.fields) for n in range(MOST_GROUPS + 50)}
    kept = within_most(many)
    assert (len(kept), sum(c[0] for c in kept.values())) == (MOST_GROUPS, sum(c[0] for c in many.values()))
    assert kept[EVERY, EVERY] == [sum(range(1, 52))] * len(FLEET.fields)
    assert within_most(dict(list(many.items())[:MOST_GROUPS])) == dict(list(many.items())[:MOST_GROUPS])


def test_a_round_over_many_devices_is_spread_over_turns_and_counts_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "DEVICES_A_TURN", 7)
    with Line(tmp_path) as line:
        fleet = Fleet(line)
        line.run(*(fleet.says(device=f"tone-{n}") for n in range(40)))
        wait(line, 10)
        assert groups(line, 10)[MODEL, "2.3.1"]["devices"] == 40
        assert len(line.points("device")) == 40


# -- the worker -----------------------------------------------------------------------------------------


def test_the_worker_tells_its_ledger_its_alerts_and_its_neighbours(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.core.reports.links = lambda: Links(broker_connected=True, broker_session_lost=False, store_ok=True)
        line.core.reports.guarded = lambda: Guarded(2, 60.0, 1, 0.25, 30.0, 12.0, 900.0, 3_600.0, 2)
        fleet = Fleet(line).say()
        fleet.seqs[DEVICE] += 3
        wait(line, 4)
        late = fleet.says(Stream.CURRENT, i_peak_ua=900.0)
        line.run(late._replace(received_ms=line.clock.ms + 2 * S), late, broken(line), pulse(START_MS + 3 * S))
        wait(line, 6)
        point = line.points("pipeline")[-1]
        ledger, fields = line.journal.ledger(), dict(point.fields)
        assert (at_s(point), point.tags) == (10, (WORKER, EVERY, EVERY))
        assert set(fields) == set(PIPELINE.fields)
        assert fields.pop("rss_mb") > 10
        assert fields == {
            **ledger.to_json(), "open_critical": 1, "open_warning": 0, "open_info": 0, "unacknowledged": 1, "notices_waiting": line.journal.notices_waiting(),
            "missing": 3, "devices_missing": 1, "clock_doubted": 0, "broker_connected": 1, "broker_session_lost": 0, "store_ok": 1,
            "rate_per_s": 0.3, "outbox_age_s": 10.0, "delay_mean_s": 2.0, "delay_max_s": 2.0, "unseen_s": 7.0,
            "blind": 2, "blind_s": 60.0, "pressure": 1, "canary_s": 0.25, "canary_age_s": 30.0, "journal_mb": 12.0, "free_mb": 900.0,
            "certificate_s": 3_600.0, "certificate_level": 2,
        }  # fmt: skip
        assert (ledger.accepted, ledger.duplicate, ledger.quarantined, ledger.outbox) == (4, 1, 1, 2)


def test_delays_and_doubted_clocks_are_of_the_time_since_the_point_before(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        fleet = Fleet(line).say()
        line.clock.ms += 5 * S
        ahead = deliver(Stream.RUNTIME, message(Stream.RUNTIME, 1, START_MS + HOUR_MS, run_state="idle"), line.clock.ms)
        slow = fleet.says(device="tone-2")
        line.run(ahead, slow._replace(received_ms=line.clock.ms + 8 * S))
        wait(line, 20)
        told = [[p.fields.get(n) for n in ("clock_doubted", "delay_max_s")] for p in line.points("pipeline")]
        assert told == [[0, 0.0], [1, 8.0], [0, None]]


def test_what_is_not_known_of_the_worker_is_absent(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run()
        (point,) = line.points("pipeline")
        assert set(PIPELINE.fields) - set(point.fields) == {"delay_mean_s", "delay_max_s", "unseen_s", "canary_s", "canary_age_s", "journal_mb", "free_mb", "certificate_s"}
        assert [point.fields[n] for n in ("broker_connected", "store_ok", "outbox_age_s", "rate_per_s")] == [0, 0, 0.0, 0.0]


def test_the_workers_name_at_the_broker_is_not_in_the_store(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(Fleet(line).says(), broken(line))
        assert WORKER.startswith("~worker-")
        assert len(WORKER) == len("~worker-") + 8
        assert [e for e in line.journal.outbox_after(0, 100) if b"ingest-test" in e.payload or "ingest-test" in e.device_id] == []


# -- refused messages -----------------------------------------------------------------------------------


def refused(line: Line) -> list[tuple[float, str, int]]:
    return [(at_s(p), p.tags[-1], p.fields["messages"]) for p in line.points("quarantine")]


def test_refused_messages_are_told_by_reason_since_the_point_before(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        wait(line, 10)
        line.run(broken(line, words="a"), broken(line, words="b"), broken(line, words="b"))
        line.run(deliver("mc/v1/tone-1/rubbish", b"{}", line.clock.ms))
        wait(line, 10)
        line.run(broken(line, words="c"))
        wait(line, 20)
        assert refused(line) == [(20, "json_syntax", 2), (20, "topic_invalid", 1), (30, "json_syntax", 1)]
        assert line.points("quarantine")[0].tags == (WORKER, EVERY, EVERY, "json_syntax")
        told_agrees(line)


def test_refused_messages_are_told_once_over_restarts_and_deaths(tmp_path: Path) -> None:
    with Line(tmp_path / "first") as line:
        line.run(broken(line, words="a"))
        wait(line, 5)
        line.run(broken(line, words="b"))
        with line.die(tmp_path / "second") as second:
            assert second.journal.refused == {"json_syntax": 1}
            second.clock.ms = START_MS + 10 * S
            second.run(broken(second, words="c"))
            assert refused(second) == [(0, "json_syntax", 1), (10, "json_syntax", 2)]
            wait(second.restart(), 20)
            assert sum(messages for *_, messages in refused(second)) == second.journal.quarantined == 3
            told_agrees(second)


def test_messages_that_the_store_refused_are_told_too(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        Fleet(line).say().say()
        (one, other) = line.waiting()
        line.settle([one, other], [RefusedEntry(other, Reason.SINK_REJECTED_400, "no")])
        wait(line, 10)
        assert refused(line) == [(10, Reason.SINK_REJECTED_400, 1)]
        assert line.journal.quarantined == 1


# -- while the store is away ----------------------------------------------------------------------------


def own(line: Line) -> list[Entry]:
    return [entry for entry in line.journal.outbox_after(0, 100_000) if not entry.is_message]


def test_the_journal_knows_how_many_of_its_own_points_wait(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        Fleet(line).say().say(Stream.CURRENT, i_peak_ua=900.0)
        wait(line, 60)
        entries = line.journal.outbox_after(0, 10)
        refused_one = next(e for e in entries if not e.is_message)
        line.settle(entries, [RefusedEntry(refused_one, Reason.SINK_REJECTED_400, "no")])
        assert line.journal.points == len(own(line)) > 0
        line.restart()
        assert line.journal.points == len(own(line))
        line.write(lambda: line.core.settle_upto(line.journal.outbox_after(0, 100)[2].id))
        assert line.journal.points == len(own(line))


def test_in_a_long_outage_only_alerts_sessions_and_refused_messages_go_on_being_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "MOST_WAITING", 20)
    with Line(tmp_path) as line:
        fleet = Fleet(line).say()
        wait(line, 3_600)
        assert 20 < line.journal.points <= 24
        fleet.say(Stream.CURRENT, i_peak_ua=900.0)
        line.run(broken(line))
        wait(line, 60)
        assert (len(line.points("alert")), len(line.points("quarantine"))) == (1, 1)
        before = {name: len(line.points(name)) for name in ("device", "fleet", "pipeline")}
        line.settle(line.journal.outbox_after(0, 1_000))
        assert line.journal.points == 0
        wait(line, 10)
        assert before["device"] == 1
        assert told(line, "state", "open_critical") == [(3_670, "critical", 1)]
        assert [len(line.points(name)) for name in ("fleet", "pipeline")] == [1, 1]


def test_a_worker_that_only_answers_tells_nothing(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        Fleet(line).say()
        before = len(own(line))
        line.core._only_answers = True
        wait(line, 120)
        assert len(own(line)) == before


def test_a_journal_from_before_these_points_tells_all_that_it_refused(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(broken(line, words="a"), broken(line, words="b"))
        with line.journal.step():
            line.journal._db.execute("DELETE FROM meta WHERE key = 'refused'")
            line.journal._refused = b"{}"
        line.journal.close()
        line._open()
        assert line.journal.refused == {"json_syntax": line.journal.quarantined} == {"json_syntax": 2}


def test_every_point_of_the_line_has_the_fields_of_its_measurement_and_both_stores_take_it(tmp_path: Path) -> None:
    with Line(tmp_path / "line") as line:
        fleet = Fleet(line).say(Stream.IDENTITY).say(Stream.HEALTH)
        line.run(*plain(60).sent[:-1], spike(30.05, 400), plain(60).sent[-1], broken(line), pulse(START_MS + 500_000))
        fleet.say(device="other", model="unheard-of")
        wait(line, 60)
        entries = own(line)
    points = [read_back(entry.payload) for entry in entries]
    assert {p.measurement for p in points} == {"alert", "session", "week", "device", "fleet", "pipeline", "quarantine"}
    types = {Kind.FLOAT: float, Kind.INTEGER: int, Kind.BOOLEAN: bool, Kind.STRING: str}
    for point in points:
        measurement = MEASUREMENTS[point.measurement]
        assert set(measurement.fields) - measurement.optional <= set(point.fields) <= set(measurement.fields)
        assert {n: type(v) for n, v in point.fields.items()} == {n: types[measurement.fields[n]] for n in point.fields}
        assert len(point.tags) == len(measurement.tags)
    assert len([text for entry in entries for text in lines(entry)]) == len(entries)
    sink = DuckDBSink(tmp_path)
    sink.open("j")
    assert sink.write(entries) == []
    for name in {p.measurement for p in points}:
        ((rows,),) = stored(sink, f'SELECT count(DISTINCT (time_ns, device_id, model, fw)) FROM "{name}"')
        assert rows == len({(p.time_ns, p.tags[:3]) for p in points if p.measurement == name})
    sink.close()
