"""When nobody is heard: against what the fleet usually does, and never of a fleet of one that sleeps."""

import pytest

from ingest.safety.quiet import BEFORE_MS, DAYS, HOUR_MS, KEPT_HOURS, LEAST_DAYS, LEAST_DEVICES, Habit, Pauses, ran_before
from tests.line import START_MS

HOUR = START_MS // HOUR_MS
NOON_MS = HOUR * HOUR_MS


def habit(devices: int = LEAST_DEVICES, days: tuple[int, ...] = tuple(range(1, DAYS + 1)), hours: tuple[int, ...] = (-2, -1, 0)) -> Habit:
    """A fleet that was heard on these days, at these hours around the last whole one."""
    return Habit({HOUR - 24 * day + hour: devices for day in days for hour in hours})


@pytest.mark.parametrize(
    ("known", "misses"),
    [
        (habit(), True),
        (habit(devices=LEAST_DEVICES - 1), False),
        (habit(days=(3, 4, 5, 6, 7)), True),
        (habit(days=(4, 5, 6, 7)), False),
        (habit(days=(1, 2, 3, 4, 5, 6)), False),
        (habit(hours=(-1, 0)), False),
        (habit(hours=(-2, -1)), False),
        (Habit(), False),
    ],
    ids=["each day", "two devices", "five of seven", "four of seven", "not on this day of the week", "began an hour ago", "ended now", "new"],
)
def test_a_fleet_is_missed_at_an_hour_at_which_it_is_usually_heard(known: Habit, misses: bool) -> None:
    assert known.misses(NOON_MS, NOON_MS - 3 * HOUR_MS) is misses


@pytest.mark.parametrize(("heard_ms", "misses"), [(NOON_MS - HOUR_MS - 1, True), (NOON_MS - HOUR_MS, False), (NOON_MS - 1, False)])
def test_it_is_missed_after_a_whole_hour_without_anybody(heard_ms: int, misses: bool) -> None:
    assert habit().misses(NOON_MS, heard_ms) is misses


def test_what_is_kept_of_hours_is_what_is_asked_for_and_no_more() -> None:
    known = Habit()
    for hour in range(HOUR - 400, HOUR + 1):
        assert known.note(hour * HOUR_MS, LEAST_DEVICES)
    assert not known.note(NOON_MS + 5, LEAST_DEVICES - 1)
    assert len(known.heard) <= KEPT_HOURS + 1
    assert known.misses(NOON_MS, NOON_MS - 3 * HOUR_MS)
    assert LEAST_DAYS < DAYS


def test_a_silence_is_too_long_when_it_lasts_ten_times_the_longest_pause_and_the_hold() -> None:
    pauses = Pauses()
    for at_s in (0.0, 1.0, 7.0, 8.0):
        pauses.heard(at_s)
    assert (pauses.too_long_s(45.0), pauses.too_long_s(70.0)) == (60.0, 70.0)
    for at_s in range(9, 700):
        pauses.heard(float(at_s))
    assert pauses.too_long_s(45.0) == 45.0  # the long one was more than ten minutes ago


@pytest.mark.parametrize(
    ("devices", "ran"),
    [
        ([(START_MS, True)] * LEAST_DEVICES, True),
        ([(START_MS, True)] * (LEAST_DEVICES - 1), False),
        ([(START_MS, True), (START_MS, True), (START_MS, False)], False),
        ([(START_MS - BEFORE_MS, True)] * LEAST_DEVICES, True),
        ([(START_MS - BEFORE_MS - 1, True)] * LEAST_DEVICES, False),
    ],
    ids=["three in use", "two", "one had ended", "ten minutes before", "longer before"],
)
def test_only_several_devices_in_use_can_fall_silent_together(devices: list[tuple[int, bool]], ran: bool) -> None:
    assert ran_before(devices, START_MS) is ran
