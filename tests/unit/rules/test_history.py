"""The rules on a device's sessions taken together: use in a day and a week, wear, resets in use."""

from typing import Any

import pytest

from ingest.safety.history import Boot, Past, overuse, resets, wear
from schemas.limits import Limits
from schemas.profile import UNKNOWN
from schemas.sessions import SessionRecord
from tests.line import DEVICE
from tests.unit.rules.readings import MODELS, TONE, limits_of

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
T0 = 29_921_640 * MINUTE
"""A whole minute."""


def session(at_ms: int, output_s: float = 600, ended: bool = True, boot: int = 7, limits: Limits | None = None, **fields: Any) -> Past:
    """A session that began so long after T0, with output from its first second on."""
    started_ms = T0 + at_ms
    last_ms = started_ms + round(1000 * output_s)
    first = started_ms // MINUTE
    minutes = {first + n: min(60.0, output_s - 60 * n) for n in range(-(-int(output_s) // 60))}
    said = {
        "device_id": DEVICE, "model": TONE, "fw": "2.3.1", "hw": "B", "session_id": f"s-{at_ms}", "profile_id": TONE, "profile_version": 1,
        "started_ms": started_ms, "last_ms": last_ms, "ended": ended, "running_s": output_s, "observed_s": output_s,
        "unobserved_s": 0.0, "coverage": 1.0, "messages": 9, "lost_messages": 0, "clock_ok": True, "output_s": output_s, "active_s": output_s,
        "effective_s": output_s, "completed": True, "charge_mc": 1.0, "minutes": minutes, **fields,
    }  # fmt: skip
    return Past(SessionRecord(**said), boot, limits or limits_of(TONE))


def found(alerts: list[Any]) -> list[tuple[Any, ...]]:
    """(session, severity, onset after T0, value, limit, unit, state)."""
    return [(a.session_id, a.severity, a.onset_ms - T0, a.value, a.limit, a.unit, a.state) for a in alerts]


# -- daily-overuse --------------------------------------------------------------------------------------

DAILY = {"lumabar-s15": 6_000, "toneduo-400": 2_400, "tonetip-e": 2_400, "ursa-adapt-10": 960, "gelwave-multi": 2_400}


@pytest.mark.parametrize("model", MODELS)
def test_more_output_in_24_hours_than_the_model_allows_is_told_at_the_crossing(model: str) -> None:
    most_s, limits = DAILY[model], limits_of(model)
    first = session(0, most_s - 300, limits=limits)
    assert overuse([first, session(8 * HOUR, 300, limits=limits)]) == []
    assert found(overuse([first, session(8 * HOUR, 301, limits=limits)])) == [
        (f"s-{8 * HOUR}", "warning", 8 * HOUR + 301_000, most_s + 1.0, most_s, "s", "closed")
    ]


def test_without_a_profile_twice_the_longest_session_is_the_most() -> None:
    assert overuse([session(0, 3_000, limits=UNKNOWN), session(8 * HOUR, 3_000, limits=UNKNOWN)]) == []
    assert len(overuse([session(0, 3_000, limits=UNKNOWN), session(8 * HOUR, 3_060, limits=UNKNOWN)])) == 1


def test_output_is_counted_by_whole_minutes_of_the_last_24_hours() -> None:
    assert [a[2:4] for a in found(overuse([session(0, 1_260), session(DAY - 20 * MINUTE, 1_200)]))] == [(DAY, 2_460.0)]
    assert overuse([session(0, 1_260), session(DAY - 19 * MINUTE, 1_200)]) == []


def test_the_session_in_which_it_is_too_much_is_named_and_is_open_while_it_lasts() -> None:
    before = [session(n * HOUR, 600) for n in range(3)]
    assert found(overuse([*before, session(3 * HOUR, 600, ended=False)]))[0] == (
        f"s-{3 * HOUR}", "info", 3 * HOUR, 4.0, 3.0, "sessions", "open"
    )  # fmt: skip
    (alert,) = overuse([*before, session(3 * HOUR, 780, ended=False)])
    assert (alert.severity, alert.value, alert.limit, alert.unit, alert.state) == ("warning", 2_580.0, 2_400.0, "s", "open")
    assert (alert.onset_ms, alert.escalated_ms) == (T0 + 3 * HOUR, T0 + 3 * HOUR + 11 * MINUTE)
    (closed,) = overuse([*before, session(3 * HOUR, 780)])
    assert (closed.state, closed.closed_ms, closed.close_reason) == ("closed", T0 + 3 * HOUR + 780_000, "session-ended")


def test_the_sum_that_is_told_is_the_highest_of_the_session() -> None:
    assert [a.value for a in overuse([session(0, 1_200), session(4 * HOUR, 2_000)])] == [3_200.0]


def test_a_fourth_session_in_24_hours_is_told_and_one_of_less_than_a_minute_is_none() -> None:
    three = [session(n * HOUR, 60) for n in range(3)]
    assert overuse(three) == []
    assert found(overuse([*three, session(3 * HOUR, 60)])) == [(f"s-{3 * HOUR}", "info", 3 * HOUR, 4.0, 3.0, "sessions", "closed")]
    assert overuse([*three, session(3 * HOUR, 59)]) == []
    assert overuse([*three, session(DAY, 60)]) == []
    assert len(overuse([*three, session(DAY - 1, 60)])) == 1


@pytest.mark.parametrize(("model", "most"), [(TONE, 7), ("gelwave-multi", 5), ("lumabar-s15", 7)])
def test_more_than_two_sessions_beyond_the_protocol_in_a_week_are_told(model: str, most: int) -> None:
    limits = limits_of(model)
    week = [session(n * 20 * HOUR, 120, limits=limits) for n in range(most)]
    assert overuse(week) == []
    (alert,) = overuse([*week, session(most * 20 * HOUR, 120, limits=limits)])
    assert (alert.severity, alert.value, alert.limit, alert.unit, alert.detail) == ("info", most + 1.0, most, "sessions", "sessions within 7 days")
    assert overuse([*week, session(7 * DAY, 120, limits=limits)]) == []


def test_history_is_the_same_in_whatever_order_sessions_are_found() -> None:
    sessions = [session(n * HOUR, 700) for n in range(6)]
    assert overuse(reversed(sessions)) == overuse(sessions) != []


# -- electrode-wear -------------------------------------------------------------------------------------


def worn(*z_kohm: float, attachment: str | None = "A-1", from_day: int = 0, **fields: Any) -> list[Past]:
    return [session((from_day + n) * DAY, z_median_ohm=1000 * z, attachment_id=attachment, **fields) for n, z in enumerate(z_kohm)]


FRESH = (8, 9, 10, 11, 12)  # median 10


@pytest.mark.parametrize(("ratio", "expected"), [
    (1.299, []), (1.3, [("info", 1.3)]), (1.499, [("info", 1.3)]), (1.5, [("warning", 1.5)]), (4.0, [("warning", 1.5)]),
])  # fmt: skip
def test_electrodes_wear_from_13_tenths_of_their_first_sessions_on(ratio: float, expected: list[Any]) -> None:
    after = [10 * ratio] * 5
    alerts = [a for a in wear(worn(*FRESH, *after)) if a.onset_ms >= T0 + 7 * DAY]
    assert [(a.severity, a.limit) for a in alerts] == expected
    assert all((a.unit, a.detail, a.value) == ("×", "attachment A-1", pytest.approx(ratio)) for a in alerts)


def test_the_median_of_five_sessions_lags_so_that_one_bad_evening_is_no_wear() -> None:
    assert wear(worn(*FRESH, 90, 10, 90, 10, 10)) == []


def test_wear_becomes_graver_within_one_alert_and_clears_with_better_contact() -> None:
    (alert,) = wear(worn(*FRESH, *[13] * 5, *[16] * 5))
    assert (alert.severity, alert.value, alert.limit, alert.state) == ("warning", 1.6, 1.5, "open")
    assert alert.onset_ms < alert.escalated_ms == T0 + 12 * DAY + 600_000
    (cleared,) = wear(worn(*FRESH, *[13] * 5, *[10] * 5))
    assert (cleared.state, cleared.close_reason) == ("closed", "cleared")


def test_wear_that_dips_below_its_limit_stays_one_alert() -> None:
    (dipped,) = wear(worn(*FRESH, *[13.5] * 5, *[12.1] * 5, *[14] * 5))
    assert (dipped.state, dipped.value) == ("open", 1.4)
    assert [a.state for a in wear(worn(*FRESH, *[13.5] * 5, *[11.9] * 5, *[14] * 5))] == ["closed", "open"]


def test_another_attachment_begins_anew() -> None:
    (alert,) = wear([*worn(*FRESH, *[16] * 5), *worn(*[16] * 10, attachment="A-2", from_day=10)])
    assert (alert.detail, alert.state, alert.closed_ms) == ("attachment A-1", "closed", T0 + 10 * DAY)


@pytest.mark.parametrize("fields", [{"ended": False}, {"z_median_ohm": None}])
def test_sessions_that_have_not_ended_or_without_contact_do_not_count(fields: dict[str, Any]) -> None:
    sessions = [session(n * DAY, attachment_id="A-1", **{"z_median_ohm": 1e4 * (1 + n), **fields}) for n in range(20)]
    assert wear(sessions) == []


def test_two_percent_a_session_is_told_about_when_it_should_be() -> None:
    """Simulated wear: information near session 19, a warning near session 26."""
    (alert,) = wear(worn(*(8 * 1.02**n for n in range(40))))
    opened, escalated = ((t_ms - T0) // DAY + 1 for t_ms in (alert.opened_ms, alert.escalated_ms))
    assert (17 <= opened <= 20, 24 <= escalated <= 27) == (True, True)


# -- device-fault by resets -----------------------------------------------------------------------------


def boot(at_ms: int, boot_id: int, reason: str = "brownout") -> Boot:
    return Boot(boot_id, T0 + at_ms, reason)


def interrupted(at_ms: int) -> Past:
    """A session that was cut off a second before."""
    return session(at_ms - 601_000, ended=False)


@pytest.mark.parametrize(("reason", "expected"), [("watchdog", 1), ("brownout", 1), ("panic", 1), ("ota", 0), ("power_on", 0)])
def test_an_unwanted_reset_within_a_session_is_a_warning(reason: str, expected: int) -> None:
    alerts = resets([interrupted(HOUR)], [boot(HOUR, 8, reason)])
    assert [(a.severity, a.value, a.limit, a.unit, a.onset_ms, a.state, a.detail) for a in alerts] == [
        ("warning", 1.0, 1.0, "resets", T0 + HOUR, "closed", f"reset by {reason} during a session")
    ] * expected


def test_the_third_within_24_hours_is_critical_and_asks_for_service() -> None:
    at = [HOUR, 5 * HOUR, DAY + HOUR - 1]
    alerts = resets([interrupted(t) for t in at], [boot(t, 8 + n) for n, t in enumerate(at)])
    assert [(a.severity, a.value, a.limit, a.service) for a in alerts] == [
        ("warning", 1.0, 1.0, False), ("warning", 2.0, 1.0, False), ("critical", 3.0, 3.0, True),
    ]  # fmt: skip
    at[2] += 1
    assert [a.severity for a in resets([interrupted(t) for t in at], [boot(t, 8 + n) for n, t in enumerate(at)])] == ["warning"] * 3


def test_a_session_that_goes_on_after_the_reset_was_interrupted_as_well() -> None:
    assert len(resets([session(0, 1_200)], [boot(600_000, 8)])) == 1


@pytest.mark.parametrize(
    ("sessions", "why"),
    [
        ([], "no session"),
        ([session(0, 600)], "ended before"),
        ([session(0, 600, ended=False, boot=8)], "began in that very boot"),
        ([session(2 * HOUR, 600)], "began afterwards"),
        ([session(HOUR - 601_000 - HOUR, ended=False)], "was silent for an hour"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_reset_outside_a_session_is_no_fault(sessions: list[Past], why: str) -> None:
    assert resets(sessions, [boot(HOUR, 8)]) == []
