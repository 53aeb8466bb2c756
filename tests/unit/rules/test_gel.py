"""Gel that dries, electrodes and gel past their life."""

from typing import Any

import pytest

from ingest.safety.judge import Judged, judge
from ingest.safety.track import Reading, Track
from tests.line import DEVICE
from tests.unit.rules.readings import (
    LUMABAR,
    MODELS,
    TIP,
    TONE,
    UNKNOWN,
    below,
    contact,
    fires,
    identity,
    judged,
    limits_of,
    of,
    refused,
    runtime,
    seconds,
    told,
)
from tests.unit.rules.test_contact import at_compliance

DRY = "gel-dryout-trend"


def gliding(z_ohm: float, seconds_: float, from_s: float = 0, state: str = "good", model: str = TONE, **fields: Any) -> list[Reading]:
    return [contact(from_s + n / 2, state, model, z_ohm=z_ohm, **fields) for n in range(int(2 * seconds_))]


def with_baseline(*then: list[Reading], z_ohm: float = 8e3, model: str = TONE) -> list[Reading]:
    """30 s of good contact, and what follows."""
    return [*gliding(z_ohm, 31, model=model), *(r for readings in then for r in readings)]


def test_twice_the_baseline_is_told_after_ten_seconds() -> None:
    assert fires(with_baseline(gliding(15.99e3, 200, 31))) == []
    (alert,) = judged(with_baseline(gliding(16.5e3, 200, 31)))
    assert (alert.rule, alert.severity, alert.limit, alert.unit) == (DRY, "info", 2.0, "×")
    assert alert.value == pytest.approx(16.5 / 8, rel=1e-3)
    assert alert.detail == "16.5 kΩ, 8.0 kΩ at the start"
    assert alert.opened_ms - alert.onset_ms == 10_000


def test_it_takes_the_smoothed_impedance_for_as_long_as_it_holds() -> None:
    """With a time constant of 5 s, 40 kΩ instead of 8 are 16 kΩ after 1.4 s; then the hold begins."""
    ((_, onset, opened, _),) = of(DRY, with_baseline(gliding(40e3, 12, 31)))
    assert (onset, opened) == (32, 42)
    assert of(DRY, with_baseline(gliding(40e3, 11, 31))) == []


@pytest.mark.parametrize(("model", "base_ohm", "edge_ohm"), [(TONE, 16e3, 50e3), (TIP, 30e3, 100e3), (LUMABAR, 30e3, 100e3)])
def test_three_times_the_baseline_warns_only_beyond_what_is_good_for_the_model(model: str, base_ohm: float, edge_ohm: float) -> None:
    assert limits_of(model).z_good_max_ohm == edge_ohm
    within = with_baseline(gliding(below(edge_ohm), 60, 31, model=model), z_ohm=base_ohm, model=model)
    beyond = with_baseline(gliding(1.01 * edge_ohm, 60, 31, "marginal", model), z_ohm=base_ohm, model=model)
    assert fires(within) == [(DRY, "info")]
    assert fires(beyond) == [(DRY, "warning")]
    assert fires(with_baseline(gliding(2.9 * base_ohm, 60, 31, model=model), z_ohm=base_ohm, model=model)) == [(DRY, "info")]


def test_without_a_profile_nobody_knows_what_is_good_so_it_stays_an_information() -> None:
    assert fires(with_baseline(gliding(400e3, 60, 31, "poor", UNKNOWN), model=UNKNOWN)) == [(DRY, "info")]


def test_before_there_is_a_baseline_nothing_dries() -> None:
    """10 s of settling and 20 s of good contact."""
    assert fires([*gliding(8e3, 29), *gliding(60e3, 60, 29, "marginal")]) == []
    assert fires(gliding(60e3, 200, state="marginal")) == []
    assert fires([*gliding(8e3, 10), *gliding(30e3, 21, 10), *gliding(45e3, 60, 31)]) == []  # what settles is no baseline


def test_the_baseline_is_the_median_of_the_twenty_seconds_after_the_first_ten() -> None:
    track = Track(DEVICE, "s-1")
    for one in gliding(8e3, 30.5):
        assert track.drying.baseline_ohm is None
        judge(track, one, Judged())
    assert track.drying.baseline_ohm == 8e3
    falling = [*gliding(20e3, 10.5), *gliding(9e3, 10.5, 10.5), *gliding(7e3, 9.5, 21)]
    settled = Track(DEVICE, "s-1")
    for one in falling:
        judge(settled, one, Judged())
    assert settled.drying.baseline_ohm == 9e3


def test_lifts_neither_count_as_dry_nor_stop_the_hold() -> None:
    def dry(from_s: float) -> list[Reading]:
        return [contact(from_s + n / 2, "off" if n % 10 < 2 else "good", z_ohm=20e6 if n % 10 < 2 else 30e3) for n in range(40)]

    lifts = [contact(n / 2, "off" if n % 10 < 2 else "good", z_ohm=20e6 if n % 10 < 2 else 8e3) for n in range(400)]
    assert fires(lifts) == []
    assert fires([*lifts, *dry(200)]) == [(DRY, "info")]


def in_zone(zone: str, z_ohm: float, seconds_: int, from_s: float) -> list[Reading]:
    return [runtime(from_s - 0.1, zone=zone), *gliding(z_ohm, seconds_, from_s)]


def test_each_zone_has_a_baseline_of_its_own() -> None:
    bone_first = [*in_zone("forehead", 15e3, 40, 0), *in_zone("cheek_l", 7e3, 40, 40), *in_zone("forehead", 15e3, 60, 80)]
    assert fires(bone_first) == []
    assert fires([*bone_first, *gliding(29e3, 60, 140)]) == []
    assert fires([*bone_first, *gliding(31e3, 60, 140)]) == [(DRY, "info")]


def test_drying_that_goes_on_while_the_zone_changes_is_not_taken_for_the_zone() -> None:
    """Bone may have 16/7 times the impedance of cheek; what is more is drying."""
    assert fires([*in_zone("cheek_l", 7e3, 40, 0), *in_zone("forehead", 31e3, 60, 40)]) == []
    assert fires([*in_zone("cheek_l", 7e3, 40, 0), *in_zone("forehead", 33e3, 60, 40)]) == [(DRY, "info")]


def test_an_impedance_at_another_frequency_begins_anew() -> None:
    assert fires(with_baseline(gliding(30e3, 60, 31, z_hz=10.0))) == []
    assert fires(with_baseline(gliding(30e3, 60, 31, z_hz=9.9))) == [(DRY, "info")]


def test_it_clears_below_18_tenths_for_five_seconds_and_may_come_back() -> None:
    dry = with_baseline(gliding(30e3, 20, 31))
    assert [a[3] for a in of(DRY, [*dry, *gliding(14.5e3, 60, 51)])] == [None]
    wet = [*dry, *gliding(8e3, 20, 51)]
    assert [a[3] for a in of(DRY, wet)] == [62]  # 6.1 s until 14.4 kΩ, and 5 s
    assert len(of(DRY, [*wet, *gliding(30e3, 30, 71)])) == 2


def test_drying_becomes_graver_within_one_alert() -> None:
    (alert,) = judged(with_baseline(gliding(20e3, 30, 31), gliding(80e3, 40, 61, "marginal")))
    assert (alert.severity, alert.limit, alert.value) == ("warning", 3.0, pytest.approx(10, rel=0.01))
    assert alert.escalated_ms > alert.opened_ms


def test_an_open_head_mutes_drying() -> None:
    dry = [r for r in gliding(30e3, 40, 31) if r.stream == "contact"]
    muted = with_baseline([r for r in at_compliance(60, from_s=31)], gliding(30e3, 11, 91))
    assert [a[0] for a in fires(muted)] == ["contact-lost-output-on"]
    assert fires(with_baseline(dry)) == [(DRY, "info")]


# -- electrode-wear, what the device tells of itself ----------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_electrodes_are_worn_beyond_the_cycles_of_their_profile(model: str) -> None:
    most = int(limits_of(model).attachment_cycles_max)
    assert fires([identity(0, model, attachment_cycles=most)]) == []
    assert told([identity(0, model, attachment_cycles=most + 1)]) == [("electrode-wear", "info", most + 1.0, float(most), "cycles", "")]


def test_without_a_profile_cycles_say_nothing() -> None:
    assert fires([identity(0, UNKNOWN, attachment_cycles=4_000_000)]) == []


def test_gel_has_expired_when_its_last_day_is_over() -> None:
    """The case begins on 2026-11-21 at 22:00 UTC."""
    assert fires([identity(0, gel_expiry="2026-11-21")]) == fires([identity(0, gel_expiry=None)]) == []
    ((rule, severity, value, limit, unit, detail),) = told([identity(0, gel_expiry="2026-11-20")])
    assert (rule, severity, limit, unit, detail) == ("electrode-wear", "info", 0.0, "days", "gel expired on 2026-11-20")
    assert 0 < value < 1


def test_a_date_that_does_not_exist_is_no_expiry() -> None:
    assert fires([identity(0, gel_expiry="2026-02-30")]) == []


def test_another_attachment_and_fresh_gel_clear_it() -> None:
    readings = [identity(0, attachment_cycles=501), identity(60, attachment_cycles=1)]
    assert of("electrode-wear", readings) == [("info", 0, 0, 60)]
    assert of("electrode-wear", [identity(0, attachment_cycles=501), identity(60, gel_expiry="2026-01-01", attachment_cycles=1)]) == [
        ("info", 0, 0, None)
    ]


def test_wear_in_a_refused_message_is_told() -> None:
    assert fires([refused(0, attachment_cycles=501.0)]) == fires([refused(0, gel_expiry="2026-01-01")]) == [("electrode-wear", "info")]
    assert fires([refused(0, attachment_cycles=500.0, gel_expiry="2027-01-01")]) == []
    assert fires(seconds(3, lambda s: refused(s, gel_expiry="never"))) == []
