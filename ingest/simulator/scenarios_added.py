"""Faults beyond DOMAIN section 5, so that every rule has something that must set it off. From 101."""

from ingest.simulator import faults
from ingest.simulator.models import GELWAVE, LUMABAR, TONEDUO, TONETIP
from ingest.simulator.scenario import Course, DeviceClock, Expected, Path, Scenario
from ingest.simulator.scenarios_domain import CRITICAL, GLIDES, HOUR_S, INFO, LATENESS_S, WARNING
from schemas.messages import Mode, SelfTest, Zone, ZoneSource

SETTLED_S = 1_200.0
"""How long after a session the fleet may wait before it calls messages lost for good."""

CLOCK_SKEW = (
    Expected("clock-skew", INFO, 0, 30.0, any_session=True),
    # once of the boot, and once more of the session, if the fleet tells them apart
    Expected("clock-skew", INFO, 0, 30.0, any_session=True, required=False),
)

ADDED: tuple[Scenario, ...] = (
    Scenario(101, "long-direct-current", "a direct-current program for almost the longest session", GELWAVE,
             fires=(Expected("net-charge-dose", WARNING, 1078, 30.0),),
             never=frozenset({"session-overrun", "dc-offset", "current-density"}),
             length_s=1190, mode=Mode.DC),
    Scenario(102, "direct-current-left-on", "a direct-current program that no automatic off ends", GELWAVE,
             fires=(Expected("session-overrun", CRITICAL, 1200, 157.0),
                    Expected("net-charge-dose", CRITICAL, 1078, 1117.0)),
             never=frozenset({"dc-offset", "current-density", "daily-overuse"}),
             length_s=2300, mode=Mode.DC),
    Scenario(103, "output-shorted", "the output stage passes 40 mA into 500 Ω", TONEDUO,
             fires=(Expected("overcurrent-peak", CRITICAL, 90, 2.0),
                    Expected("overcurrent-rms", CRITICAL, 90, 2.0),
                    Expected("power-density", CRITICAL, 90, 3.0),
                    Expected("current-density", CRITICAL, 90, 6.0),
                    # 24 mC a half-burst: a minute's mean is above 10 µA at almost every phase, not at every one
                    Expected("dc-offset", WARNING, 90, 90.0, required=False)),
             never=frozenset({"sensor-implausible", "setpoint-overdelivery"}),
             act=faults.run_away(90, peak_ua=40_000.0, z_ohm=500.0, lasts_s=10), habit=GLIDES),
    Scenario(104, "wrong-frequency", "the generator runs a third too fast", TONEDUO,
             fires=(Expected("waveform-drift", WARNING, 60, 8.0),),
             never=frozenset({"dc-offset", "overcurrent-rms"}),
             act=faults.wrong_frequency(60, freq_hz=11.0), habit=GLIDES),
    Scenario(105, "contact-meter-open", "the contact meter fails open while current flows", TONEDUO,
             fires=(Expected("current-without-contact", CRITICAL, 60, 5.0),),
             never=frozenset({"contact-lost-output-on", "sensor-implausible"}),
             act=faults.meter_open(60, lasts_s=20), habit=GLIDES),
    Scenario(106, "attachment-worn", "electrodes used more often than they last", TONEDUO,
             fires=(Expected("electrode-wear", INFO, 0, 300.0 + SETTLED_S, any_session=True),),
             habit=GLIDES, identity={"attachment_cycles": 612}, chronic=True),
    Scenario(107, "gel-expired", "gel past its date", TONEDUO,
             fires=(Expected("electrode-wear", INFO, 0, 300.0 + SETTLED_S, any_session=True),),
             habit=GLIDES, identity={"gel_lot": "G-0417", "gel_expiry": "2025-01-31"}, chronic=True),
    Scenario(108, "overlong-solar", "a solar bar without automatic off, used too long", LUMABAR,
             fires=(Expected("session-overrun", WARNING, 3000, 12.0),),
             never=frozenset({"daily-overuse", "net-charge-dose"}),
             length_s=3120, habit=GLIDES),
    Scenario(109, "four-sessions", "four ordinary sessions in a day", TONEDUO,
             habit=GLIDES, course=Course(sessions=4, every_s=2 * HOUR_S)),
    Scenario(110, "eight-sessions", "eight ordinary sessions in a week", TONEDUO,
             habit=GLIDES, course=Course(sessions=8, every_s=20 * HOUR_S)),
    Scenario(111, "held-still", "the head rests on one spot", TONEDUO,
             fires=(Expected("zone-dwell", WARNING, 60, 65.0),),
             act=faults.held_still(60, lasts_s=90), habit=GLIDES),
    Scenario(112, "direct-current-held-still", "the head rests on one spot in a direct-current program", GELWAVE,
             fires=(Expected("zone-dwell", WARNING, 60, 35.0),),
             act=faults.held_still(60, lasts_s=45), length_s=300, mode=Mode.DC, habit=GLIDES),
    Scenario(113, "zone-not-advanced", "a program stays in one zone", TONETIP,
             fires=(Expected("zone-dwell", INFO, 120, 12.0),),
             length_s=200, dwell_s=1_000, habit=GLIDES),
    Scenario(114, "zone-never-advanced", "a program stays in one zone for more than twice as long", TONETIP,
             fires=(Expected("zone-dwell", WARNING, 120, 132.0),),
             length_s=300, dwell_s=1_000, habit=GLIDES),
    Scenario(115, "temple-tapped", "the user says that it is at the temple", TONEDUO,
             fires=(Expected("forbidden-zone", WARNING, 60, 5.0),),
             act=faults.in_zone(60, 10, Zone.TEMPLE_L, ZoneSource.USER), habit=GLIDES),
    Scenario(116, "board-overheats", "the circuit board is at 62 °C", TONEDUO,
             fires=(Expected("overtemperature", CRITICAL, 60, 3.0),),
             act=faults.says(60, 20, temp_pcb_c=62.0), habit=GLIDES),
    Scenario(117, "output-stage-fault", "the device reports a fault of its output stage and stops", TONEDUO,
             fires=(Expected("device-fault", CRITICAL, 60, 3.0),),
             act=faults.then_fault(faults.says(60, 10, fault_bits=1), 65), habit=GLIDES),
    Scenario(118, "self-test-fails", "a self-test fails in the middle of a session", TONEDUO,
             fires=(Expected("device-fault", CRITICAL, 60, 3.0),),
             act=faults.then_fault(faults.says(60, 10, self_test=SelfTest.FAIL), 65), habit=GLIDES),
    Scenario(119, "unit-bug", "every current reported a thousandfold",
             fires=(Expected("sensor-implausible", WARNING, 0, 10.0),
                    # of most models the thousandfold is more than can be measured: taken for the worst
                    *(Expected(rule, CRITICAL, 0, 10.0, required=False)
                      for rule in ("overcurrent-peak", "overcurrent-rms", "current-density", "power-density"))),
             never=frozenset({"net-charge-dose", "dc-offset", "setpoint-overdelivery", "current-without-contact"}),
             act=faults.wrong_unit(1000.0), length_s=150, chronic=True),
    Scenario(120, "messages-lost", "a fifth of the messages is lost for good", TONEDUO,
             fires=(Expected("telemetry-gap", INFO, 0, 300.0 + SETTLED_S, any_session=True),
                    # the message that says that the session is over may be among them
                    Expected("telemetry-gap", WARNING, 299, 15.0 + LATENESS_S + 10.0, required=False)),
             # a lift whose end was lost must not look like current without contact
             never=frozenset({"current-without-contact", "contact-lost-output-on"}),
             habit=GLIDES, path=Path(dropped=0.2)),
    Scenario(121, "battery-dies", "the battery dies in the middle of a session", TONEDUO,
             fires=(Expected("telemetry-gap", WARNING, 145, 15.0 + LATENESS_S + 10.0),),
             never=frozenset({"device-fault"}),
             act=faults.battery_dies(150), habit=GLIDES),
    Scenario(122, "clock-ahead", "a device clock ten minutes ahead", TONEDUO,
             fires=CLOCK_SKEW,
             habit=GLIDES, clock=DeviceClock(ahead_s=600.0), chronic=True),
    Scenario(123, "clock-lost", "a device clock that has forgotten the year", TONEDUO,
             fires=CLOCK_SKEW,
             habit=GLIDES, clock=DeviceClock(ahead_s=-25 * 365.25 * 24 * HOUR_S), chronic=True),
    Scenario(124, "clock-set-right", "a device clock five minutes behind is set right before a session", TONEDUO,
             # a session begins with the right time: it is what is said after it that does not fit what was said before
             fires=(Expected("clock-skew", INFO, 0, 300.0 + 90.0, any_session=True),),
             never=frozenset({"telemetry-gap"}),
             habit=GLIDES, clock=DeviceClock(ahead_s=-300.0, set_right=True)),
)  # fmt: skip
