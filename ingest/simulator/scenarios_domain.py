"""The scenarios of DOMAIN section 5, under its numbers.

An expectation that is not required says why: the physics of the fault may or may not reach that
rule's limit, or the rule's onset falls on either side of it by the phase of the stimulus.
"""

from ingest.simulator import faults
from ingest.simulator.models import LUMABAR, TONEDUO, TONETIP
from ingest.simulator.scenario import Course, Expected, Path, Scenario
from ingest.simulator.skin import Habit
from schemas.alerts import Severity
from schemas.messages import ResetReason, Zone, ZoneSource

INFO, WARNING, CRITICAL = Severity.INFO, Severity.WARNING, Severity.CRITICAL
HOUR_S, DAY_S = 3_600.0, 86_400.0

LATENESS_S = 120.0
"""How long the fleet waits for late data before it calls silence a gap (DOMAIN rule 25)."""

GLIDES = Habit(every_s=7.0)
LONG_GLIDES = Habit(every_s=12.0)
BROWNOUT, OTA = ResetReason.BROWNOUT, ResetReason.OTA


def overcurrent(at_s: int, within_s: float) -> tuple[Expected, ...]:
    return (
        Expected("overcurrent-peak", CRITICAL, at_s, within_s),
        Expected("overcurrent-rms", CRITICAL, at_s, within_s),
        # 3.5 times the half-burst charge may pass the one-minute limit, as the phase falls
        Expected("dc-offset", WARNING, at_s, 90.0, required=False),
    )


def edge_contact(at_s: int) -> tuple[Expected, ...]:
    return (Expected("current-density", CRITICAL, at_s, 6.0),)


DOMAIN: tuple[Scenario, ...] = (
    Scenario(1, "healthy-glides", "healthy two-sphere session with a lift every glide", TONEDUO,
             never=frozenset({"contact-chatter", "contact-lost-output-on"}),
             length_s=300, habit=Habit(every_s=4.3, lift_s=(0.7, 0.7), regular=True)),
    Scenario(2, "healthy-burst", "healthy alternating burst", TONEDUO,
             never=frozenset({"dc-offset", "net-charge-dose", "waveform-drift"}),
             length_s=300),
    Scenario(3, "healthy-solar", "healthy solar bar for 45 minutes", LUMABAR,
             never=frozenset({"dc-offset", "net-charge-dose", "session-overrun", "sensor-implausible"}),
             length_s=2700, habit=Habit(every_s=20.0)),
    Scenario(4, "dim-room", "solar bar in a dim room", LUMABAR,
             # the light is told with the edge of the health; thirty seconds of too little current follow
             fires=(Expected("low-light", INFO, 60, 5.0 + 30.0 + 5.0),),
             never=frozenset({"compliance-saturation", "gel-dryout-trend"}),
             act=faults.dim_room(60, lux=40.0, to_share=4 / 15), length_s=360, habit=Habit(every_s=40.0)),
    Scenario(5, "gel-dry-out", "gel dries until the compliance voltage is reached", TONEDUO,
             # 50 kΩ and three times the base after 73 s, less with a high base; then filter and hold
             fires=(Expected("gel-dryout-trend", WARNING, 84, 85.0),
                    Expected("compliance-saturation", WARNING, 140, 45.0),
                    # at the edge, skin that is wetter for five seconds ends it, and it comes again
                    Expected("compliance-saturation", WARNING, 140, 45.0, required=False)),
             never=frozenset({"overcurrent-rms", "overcurrent-peak", "contact-lost-output-on", "current-without-contact"}),
             act=faults.gel_dries(60, times=20.0, over_s=120.0), length_s=235, dwell_s=240, habit=LONG_GLIDES),
    Scenario(6, "gain-drift", "regulation drifts up to 1.8 times the set-point", TONEDUO,
             fires=(Expected("setpoint-overdelivery", WARNING, 84, 14.0),),
             never=frozenset({"overcurrent-rms", "overcurrent-peak", "dc-offset", "sensor-implausible"}),
             act=faults.gain_drift(60, per_s=0.01, most=1.8), length_s=200, level_share=0.5),
    Scenario(7, "latch-up", "output latch-up", TONEDUO,
             fires=overcurrent(90, 2.0),
             never=frozenset({"compliance-saturation", "sensor-implausible"}),
             act=faults.run_away(90, peak_ua=1400.0, z_ohm=8000.0), habit=GLIDES),
    Scenario(8, "weak-negative", "negative pulses at seven tenths", TONEDUO,
             fires=(Expected("dc-offset", WARNING, 30, 65.0),),
             never=frozenset({"net-charge-dose", "waveform-drift"}),
             act=faults.weak_negative(30, gain=0.7), habit=LONG_GLIDES),
    Scenario(10, "generator-stuck", "generator stands still with its output on", TONEDUO,
             fires=(Expected("waveform-drift", CRITICAL, 60, 5.0),
                    Expected("dc-offset", CRITICAL, 60, 10.0),
                    Expected("overcurrent-rms", CRITICAL, 60, 5.0),
                    Expected("current-density", WARNING, 60, 16.0)),
             never=frozenset({"compliance-saturation", "overcurrent-peak", "net-charge-dose"}),
             act=faults.generator_stuck(60, lasts_s=60)),
    Scenario(11, "lead-off-live", "lead-off without mute", TONEDUO,
             fires=(Expected("contact-lost-output-on", CRITICAL, 60, 34.0),),
             never=frozenset({"current-without-contact", "compliance-saturation", "gel-dryout-trend"}),
             act=faults.lead_off_not_muted(60), habit=GLIDES),
    Scenario(12, "chatter", "contact breaks twice a second", TONEDUO,
             fires=(Expected("contact-chatter", WARNING, 60, 12.0),),
             never=frozenset({"contact-lost-output-on", "current-without-contact"}),
             act=faults.chatter(60, lasts_s=30), habit=GLIDES),
    Scenario(13, "surge-at-make", "too much current at each make", TONEDUO,
             fires=(Expected("reconnect-surge", WARNING, 60, 20.0),),
             never=frozenset({"overcurrent-peak", "overcurrent-rms", "setpoint-overdelivery"}),
             act=faults.surge_at_make(60, share=1.4, more_ua=20.0), level_share=0.5, habit=GLIDES),
    Scenario(15, "gel-bridge", "gel bridges the electrodes", TONEDUO,
             fires=(Expected("electrode-short", WARNING, 60, 6.0),),
             never=frozenset({"compliance-saturation", "overcurrent-rms"}),
             act=faults.gel_bridge(60, lasts_s=30), habit=GLIDES),
    Scenario(16, "edge-contact", "only the edge of a small electrode touches", TONETIP,
             fires=edge_contact(60),
             never=frozenset({"overcurrent-rms", "power-density"}),
             act=faults.edge_contact(60, lasts_s=10), habit=GLIDES),
    Scenario(18, "no-auto-off", "automatic off fails", TONEDUO,
             fires=(Expected("session-overrun", CRITICAL, 1200, 157.0),),
             never=frozenset({"daily-overuse"}),
             length_s=23 * 60, habit=GLIDES),
    Scenario(20, "over-use", "five long sessions in a day", TONEDUO,
             never=frozenset({"session-overrun"}),
             length_s=600, habit=GLIDES, course=Course(sessions=5, every_s=1.5 * HOUR_S)),
    Scenario(21, "program-on-eyelid", "a program whose zone plan holds the eyelid", TONEDUO,
             fires=(Expected("forbidden-zone", CRITICAL, 60, 5.0),),
             act=faults.in_zone(60, 6, Zone.EYELID_L, ZoneSource.PROGRAM), habit=GLIDES),
    Scenario(23, "output-on-charger", "charge interlock fails", TONEDUO,
             fires=(Expected("output-while-charging", CRITICAL, 60, 5.0),),
             act=faults.says(60, 5, charging=True), habit=GLIDES),
    Scenario(24, "head-heats", "the head heats up to 44 °C", TONEDUO,
             # 41 °C at 140 s, a warning ten seconds later; 43 °C at 160 s, critical five seconds later
             fires=(Expected("overtemperature", CRITICAL, 140, 30.0),),
             never=frozenset({"power-density"}),
             act=faults.heating(60, from_c=33.0, to_c=44.0), habit=GLIDES),
    Scenario(25, "rms-frozen", "the r.m.s. meter repeats itself", TONEDUO,
             fires=(Expected("sensor-implausible", WARNING, 60, 66.0),),
             never=frozenset({"overcurrent-rms"}),
             act=faults.rms_meter_frozen(60, lasts_s=90), habit=GLIDES),
    Scenario(27, "outage-then-latch-up", "radio outage; the backfill holds a latch-up", TONEDUO,
             fires=(Expected("telemetry-gap", WARNING, 60, 15.0 + LATENESS_S + 10.0),
                    *overcurrent(210, 32.0)),
             act=faults.run_away(210, peak_ua=1400.0, z_ohm=8000.0), habit=GLIDES,
             path=Path(outage_from_s=60, outage_s=180)),
    Scenario(28, "repeats-and-swaps", "duplicates and swapped messages", TONEDUO,
             habit=GLIDES, path=Path(duplicated=0.05, swapped=0.10)),
    Scenario(29, "electrode-wear", "impedance rises by 2 % a session, over 40 sessions", TONEDUO,
             never=frozenset({"gel-dryout-trend"}),
             act=faults.wearing(0.02), habit=GLIDES, course=Course(sessions=40, every_s=30 * HOUR_S)),
    Scenario(30, "brown-outs", "three brown-outs in an evening; an update's restart is none", TONEDUO,
             fires=(Expected("device-fault", WARNING, 99, 30.0, session=1, any_session=True),
                    Expected("device-fault", WARNING, 99, 30.0, session=2, any_session=True),
                    Expected("device-fault", CRITICAL, 99, 30.0, session=3, any_session=True)),
             never=frozenset({"telemetry-gap"}),
             act=faults.resets((100, BROWNOUT), (100, BROWNOUT), (100, BROWNOUT), (40, OTA)), habit=GLIDES,
             course=Course(sessions=4, every_s=0.75 * HOUR_S)),
    Scenario(32, "lot-defect", "edge contact on several devices of one lot within a week", TONETIP,
             fires=edge_contact(60),
             never=frozenset({"overcurrent-rms", "power-density"}),
             act=faults.edge_contact(60, lasts_s=10), habit=GLIDES,
             course=Course(first_within_s=6 * DAY_S), lot="L77-26"),
)  # fmt: skip
