"""What is sound and must stay silent, however much it looks like a fault. From 151.

Each row stands for a consideration about false alarms in DOMAIN section 3.
"""

from ingest.simulator import faults
from ingest.simulator.models import GELWAVE, LUMABAR, TONEDUO, TONETIP, URSA
from ingest.simulator.scenario import Course, Path, Scenario
from ingest.simulator.scenarios_domain import DAY_S, GLIDES, HOUR_S, OTA
from ingest.simulator.skin import Habit
from ingest.simulator.waveform import Waveform
from schemas.messages import Mode, Zone, ZoneSource

_DIRECT = Waveform(Mode.DC, 0.0, 0.0, 1.0)

SOUND: tuple[Scenario, ...] = (
    Scenario(151, "pause-for-gel", "the user pauses for 40 seconds to put on gel", TONEDUO,
             never=frozenset({"contact-lost-output-on", "telemetry-gap", "session-overrun", "reconnect-surge"}),
             act=faults.paused(90, lasts_s=40), length_s=340, habit=GLIDES),
    Scenario(152, "level-changes", "the user tries several levels", TONEDUO,
             never=frozenset({"setpoint-overdelivery", "overcurrent-rms", "waveform-drift"}),
             act=faults.levels((40, 3, 0.6), (90, 5, 1.0), (150, 1, 0.2), (152, 2, 0.4), (200, 4, 0.8)), habit=GLIDES),
    Scenario(153, "program-change", "from a biphasic program to a direct-current one", GELWAVE,
             never=frozenset({"overcurrent-rms", "setpoint-overdelivery", "dc-offset", "waveform-drift", "current-density"}),
             act=faults.program_change(200, _DIRECT, set_ua=100.0), mode=Mode.BIPHASIC, habit=GLIDES),
    Scenario(154, "bone-and-cheek", "impedance that differs from place to place", TONEDUO,
             never=frozenset({"gel-dryout-trend", "compliance-saturation"}),
             act=faults.bone_and_cheek(cheek=1.0, bone=1.2, every_s=50), dwell_s=50, habit=GLIDES),
    Scenario(155, "adapting", "an adaptive device lowers its own set-point", URSA,
             never=frozenset({"setpoint-overdelivery", "reconnect-surge", "compliance-saturation"}),
             act=faults.adapting(40, share=0.5, over_s=10.0), habit=GLIDES),
    Scenario(156, "direct-current-program", "a direct-current program of ordinary length", GELWAVE,
             never=frozenset({"dc-offset", "net-charge-dose", "current-density", "sensor-implausible"}),
             mode=Mode.DC, habit=GLIDES),
    Scenario(157, "in-the-sun", "a solar bar in the sun, warm but below its limit", LUMABAR,
             never=frozenset({"overtemperature"}),
             act=faults.heating(60, from_c=34.0, to_c=40.0, per_s=0.05, holds_s=300), length_s=700, habit=Habit(every_s=20.0)),
    Scenario(158, "update-restart", "an update restarts the device in mid-session", TONEDUO,
             never=frozenset({"device-fault", "telemetry-gap"}),
             act=faults.resets((120, OTA)), habit=GLIDES),
    Scenario(159, "phone-away", "the phone is out of range for 45 seconds", TONEDUO,
             never=frozenset({"telemetry-gap"}),
             habit=GLIDES, path=Path(outage_from_s=60, outage_s=45)),
    Scenario(160, "shared-to-the-limit", "three people share a device, exactly to its daily limit", TONEDUO,
             never=frozenset({"daily-overuse", "session-overrun"}),
             length_s=800, habit=GLIDES, course=Course(sessions=3, every_s=2 * HOUR_S)),
    Scenario(161, "week-to-the-limit", "seven sessions in seven days", TONEDUO,
             never=frozenset({"daily-overuse"}),
             habit=GLIDES, course=Course(sessions=9, every_s=1.05 * DAY_S)),
    Scenario(162, "muted-lead-off", "the head is put down and the device mutes, as declared", TONEDUO,
             never=frozenset({"contact-lost-output-on", "current-without-contact", "telemetry-gap"}),
             act=faults.head_off(60, lasts_s=55), habit=GLIDES),
    Scenario(163, "charged-between", "on the charger between two sessions", TONEDUO,
             never=frozenset({"output-while-charging"}),
             habit=GLIDES, course=Course(sessions=2, every_s=HOUR_S, charging=True)),
    Scenario(164, "edge-moments", "two seconds of edge contact now and then", TONETIP,
             never=frozenset({"current-density"}),
             act=faults.edge_contact(20, lasts_s=2, every_s=25), habit=GLIDES),
    Scenario(165, "under-the-eye", "a zone that only this model allows", TONETIP,
             never=frozenset({"forbidden-zone"}),
             act=faults.in_zone(60, 40, Zone.UNDER_EYE_L, ZoneSource.PROGRAM), habit=GLIDES),
    Scenario(166, "rollers-over-stubble", "contact breaks up to eight times in ten seconds", TONEDUO,
             never=frozenset({"contact-chatter"}),
             act=faults.chatter(60, lasts_s=40, breaks=2, every_s=3), habit=GLIDES),
    Scenario(167, "drier-gel", "gel that dries a little", TONEDUO,
             never=frozenset({"gel-dryout-trend"}),
             act=faults.gel_dries(60, times=1.3, over_s=100.0), habit=GLIDES),
    Scenario(168, "head-warms", "the head is above 41 °C for eight seconds", TONEDUO,
             never=frozenset({"overtemperature"}),
             act=faults.heating(60, from_c=34.0, to_c=41.4, per_s=0.1, holds_s=2), habit=GLIDES),
    Scenario(169, "harmless-fault-bit", "a fault bit that the profile does not call critical", TONEDUO,
             never=frozenset({"device-fault"}),
             act=faults.says(60, 60, fault_bits=64), habit=GLIDES),
    Scenario(170, "short-standstill", "the head rests for 45 seconds", TONEDUO,
             never=frozenset({"zone-dwell"}),
             act=faults.held_still(60, lasts_s=45), habit=GLIDES),
)  # fmt: skip
