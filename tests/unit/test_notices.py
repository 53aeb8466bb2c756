"""What late data raise is told together, once; what happens now is told at once."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from ingest.mqtt import Delivery
from ingest.notices import DIGEST_MOST, LATE_MOST_MS, LATE_QUIET_MS, WebhookTerms, digest_of, lowered
from schemas.alerts import AlertDigest, AlertEvent, AlertEventKind, Severity
from schemas.topics import Stream
from tests.line import DEVICE, START_MS, Line, deliver, message, pulse

S = 1_000
HOUR_S = 3_600


def current(s: float, *, device: str = DEVICE, late_s: float = HOUR_S, **fields: Any) -> Delivery:
    at_ms = START_MS + round(s * S)
    return deliver(Stream.CURRENT, message(Stream.CURRENT, int(s), at_ms, **fields), at_ms + round(late_s * S), device)


def spike(s: float, **told: Any) -> list[Delivery]:
    """A second beyond every envelope, and the quiet that closes its alert."""
    return [current(s, i_peak_ua=900.0, **told), *(current(s + after, **told) for after in range(1, 19))]


def flood(spikes: int = 3, **told: Any) -> list[Delivery]:
    """So many alerts, each raised and closed."""
    quiet = [current(20 * spikes + s, **told) for s in range(15)]
    return [delivery for n in range(spikes) for delivery in spike(20 * n, **told)] + quiet


def told(line: Line) -> list[dict[str, Any]]:
    """All that was published of alerts so far."""
    return [said for topic, said in line.feed.said if topic.endswith("/alert")]


def wait(line: Line, ms: int) -> Line:
    line.clock.ms += ms
    return line.run()


def test_a_late_flood_is_one_digest_when_it_has_paused(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(*flood())
        wait(line, LATE_QUIET_MS - 1)
        assert line.events() == []
        wait(line, 1)
        (said,) = told(line)
        alerts = line.alerts()
        assert [a["retrospective"] for a in alerts] == [True] * 3
        assert said == {
            "event": "digest", "at_ms": line.clock.ms, "device_id": DEVICE, "from_ms": START_MS, "to_ms": START_MS + 40 * S,
            "by_rule": {"overcurrent-peak": 3}, "severity": "critical", "alerts": alerts,
        }  # fmt: skip
        wait(line, 10 * LATE_MOST_MS)
        assert len(told(line)) == 1


def test_every_event_of_a_late_flood_is_on_record_at_once(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(*flood())
        assert [[e["event"] for e in line.journal.events(a["id"])] for a in line.alerts()] == [["opened", "closed"]] * 3


def test_a_flood_that_does_not_pause_is_told_of_after_half_a_minute(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        steps = LATE_MOST_MS // (LATE_QUIET_MS - 1) + 1
        for n in range(steps):
            assert line.events() == []
            line.run(*spike(20 * n))
            wait(line, LATE_QUIET_MS - 1)
        assert line.events() == [("digest", "overcurrent-peak")]


def test_a_late_alert_that_is_alone_is_told_by_its_own_events(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(*spike(0))
        assert line.events() == []
        wait(line, LATE_QUIET_MS)
        assert line.events() == [("opened", "overcurrent-peak"), ("closed", "overcurrent-peak")]


def test_a_danger_of_now_does_not_wait_for_a_flood_of_the_same_device(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(*flood(), current(4_000, late_s=0, i_peak_ua=900.0))
        assert line.events() == [("opened", "overcurrent-peak")]
        assert told(line)[0]["alert"]["retrospective"] is False
        wait(line, LATE_QUIET_MS)
        assert line.events() == [("opened", "overcurrent-peak"), ("digest", "overcurrent-peak")]


def test_each_device_has_a_digest_of_its_own(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(*flood(device="a"), *flood(2, device="b"))
        wait(line, LATE_QUIET_MS)
        assert sorted((said["device_id"], said["by_rule"]) for said in told(line)) == [
            ("a", {"overcurrent-peak": 3}), ("b", {"overcurrent-peak": 2})
        ]  # fmt: skip


@pytest.mark.parametrize("end", ["restart", "death"])
def test_a_digest_that_waited_when_the_worker_ended_is_sent_by_the_next(tmp_path: Path, end: str) -> None:
    with Line(tmp_path / "first") as line:
        line.run(*flood())
        later = line.restart() if end == "restart" else line.die(tmp_path / "second")
        later.run()
        assert later.events() == []
        later.clock.ms += LATE_QUIET_MS
        later.run()
        assert later.events() == [("digest", "overcurrent-peak")]
        if later is not line:
            later.journal.close()


def test_a_clock_that_was_set_back_does_not_keep_a_digest_for_hours(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(*flood())
        wait(line, -HOUR_S * S)
        assert line.events() == [("digest", "overcurrent-peak")]


def test_what_was_raised_and_taken_back_within_a_flood_is_not_told(tmp_path: Path) -> None:
    """The spike came first; an earlier one makes it part of another alert."""
    with Line(tmp_path) as line:
        line.run(deliver(Stream.RUNTIME, message(Stream.RUNTIME, 0), START_MS + HOUR_S * S))
        line.run(current(4, i_peak_ua=900.0)).run(current(2, i_peak_ua=800.0), *(current(s) for s in range(5, 30)))
        assert sorted(a["state"] for a in line.alerts()) == ["closed", "withdrawn"]
        wait(line, LATE_QUIET_MS)
        assert {said["alert"]["onset_ms"] - START_MS for said in told(line)} == {2 * S}
        assert [kind for kind, _ in line.events()] == ["opened", "closed"]


def test_a_silence_that_a_flood_fills_ends_in_its_digest(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(deliver(Stream.RUNTIME, message(Stream.RUNTIME, 0)), *(current(s, late_s=0) for s in range(1, 11)))
        line.run(pulse(START_MS + 145 * S))
        assert line.events() == [("opened", "telemetry-gap")]
        line.run(*(current(s, i_peak_ua=900.0 if s == 20 else 200.0) for s in range(11, 60)))
        wait(line, LATE_QUIET_MS)
        assert line.events() == [("opened", "telemetry-gap"), ("digest", "overcurrent-peak+telemetry-gap")]
        assert {a["rule"]: (a["state"], a["close_reason"]) for a in told(line)[1]["alerts"]} == {
            "overcurrent-peak": ("closed", "cleared"), "telemetry-gap": ("closed", "late-arrival")
        }  # fmt: skip


def test_what_a_person_does_is_told_at_once(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(*flood(1))
        (alert,) = line.alerts()
        line.write(lambda: line.core.acts.comment(alert["id"], "Ada", "seen"))
        assert [(s["event"], s["by"], s["note"]) for s in told(line)] == [("commented", "Ada", "seen")]


def test_a_digest_shows_the_gravest_first_and_counts_all(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(*spike(0, late_s=0))
        one = line.journal.alert(line.alerts()[0]["id"])
    many = [one.model_copy(update={"id": f"{n:016x}", "onset_ms": n, "severity": "warning"}) for n in range(DIGEST_MOST + 5)]
    grave = one.model_copy(update={"onset_ms": 1_000, "rule": "overcurrent-rms"})
    digest = digest_of(DEVICE, 7, [*reversed(many), grave])
    assert [a.id for a in digest.alerts] == [grave.id, *(a.id for a in many[: DIGEST_MOST - 1])]
    assert (digest.severity, digest.from_ms, digest.to_ms) == ("critical", 0, 1_000)
    assert digest.by_rule == {"overcurrent-peak": DIGEST_MOST + 5, "overcurrent-rms": 1}
    assert AlertDigest.model_validate_json(digest.model_dump_json()) == digest


def test_a_digest_and_an_event_are_told_apart_by_their_event() -> None:
    assert AlertDigest.model_fields["event"].default not in set(AlertEventKind)


# -- severity -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "now", "note"),
    [
        ("critical", "warning", "severity lowered from critical to warning by later data"),
        ("warning", "info", "severity lowered from warning to info by later data"),
        ("warning", "critical", ""), ("warning", "warning", ""), (None, "info", ""),
    ],
)  # fmt: skip
def test_a_lower_severity_is_said_in_so_many_words(before: str | None, now: str, note: str) -> None:
    assert lowered(before, now) == note


def runtime(seq: int, at_s: float, output_on_s: int, *, late_s: float = 0, **fields: Any) -> Delivery:
    at_ms = START_MS + round(at_s * S)
    payload = message(Stream.RUNTIME, seq, at_ms, output_on_s=output_on_s, elapsed_s=output_on_s, **fields)
    return deliver(Stream.RUNTIME, payload, at_ms + round(late_s * S))


def test_an_alert_that_becomes_less_grave_says_why(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.one_by_one([runtime(0, 0, 1_201), runtime(1, 5, 1_300), runtime(2, 10, 1_351), runtime(3, 15, 1_352)])
        (alert,) = line.alerts()
        assert alert["severity"] == "critical"
        milder = line.journal.alert(alert["id"]).model_copy(update={"severity": "warning"})
        line.write(lambda: line.core.acts.record(milder, AlertEventKind.UPDATED, None, None))
        note = "severity lowered from critical to warning by later data"
        assert [(e["event"], e["alert"]["severity"], e["note"]) for e in line.journal.events(alert["id"])] == [
            ("opened", "warning", None), ("updated", "critical", None), ("updated", "warning", note)
        ]  # fmt: skip
        assert told(line)[-1]["note"] == note
        AlertEvent.model_validate(told(line)[-1])


# -- what the webhook is owed ---------------------------------------------------------------------------


def owed(line: Line) -> list[tuple[str, str]]:
    """(event, rule) of all that waits for the webhook, in its order."""
    rows = line.journal._db.execute("SELECT event, payload FROM webhook WHERE state = 'waiting' ORDER BY id")
    return [(event, said["alert"]["rule"] if "alert" in (said := orjson.loads(payload)) else "+".join(said["by_rule"])) for event, payload in rows]


def listening(line: Line, min_severity: Severity = Severity.WARNING, most: int = 100) -> Line:
    line.core.notices.webhook = WebhookTerms(min_severity, most)
    return line


def test_the_webhook_is_owed_what_is_published(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        listening(line).run(*spike(4_000, late_s=0)).run(*flood())
        wait(line, LATE_QUIET_MS)
        assert owed(line) == line.events()
        assert [kind for kind, _ in owed(line)] == ["opened", "closed", "digest"]


def test_without_a_webhook_nothing_is_owed(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(*spike(0, late_s=0))
        assert owed(line) == []


def test_what_is_less_grave_than_asked_for_is_not_owed(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        listening(line, Severity.CRITICAL)
        line.one_by_one([runtime(0, 0, 1_201), runtime(1, 5, 1_300)])
        assert (line.events(), owed(line)) == ([("opened", "session-overrun")], [])
        line.one_by_one([runtime(2, 10, 1_351), runtime(3, 15, 1_352)])
        assert owed(line) == [("updated", "session-overrun")]


def test_that_an_alert_is_less_grave_than_was_said_is_owed_to_whom_it_was_said(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        listening(line, Severity.CRITICAL).run(*spike(0, late_s=0)[:1])
        milder = line.journal.alert(line.alerts()[0]["id"]).model_copy(update={"severity": "warning"})
        line.write(lambda: line.core.acts.record(milder, AlertEventKind.UPDATED, None, None))
        assert owed(line) == [("opened", "overcurrent-peak"), ("updated", "overcurrent-peak")]


def test_what_is_owed_is_written_with_the_event_and_survives_a_death(tmp_path: Path) -> None:
    with Line(tmp_path / "first") as line:
        listening(line).run(*spike(0, late_s=0))
        with line.die(tmp_path / "second") as later:
            assert owed(later) == owed(line) == [("opened", "overcurrent-peak"), ("closed", "overcurrent-peak")]
