"""Rules on the data themselves. Absence is judged against receive time, in `watch`."""

from ingest.safety.rule import Rule

GAP_MS = 15_000
LATENESS_MS = 120_000

TELEMETRY_GAP = Rule(
    "telemetry-gap",
    "any",
    (),
    unit="s",
    source="engineering judgement: 15 s of silence while running, 120 s allowed for late data",
    says="the device was running and then said nothing",
)
