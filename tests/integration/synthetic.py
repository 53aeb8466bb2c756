"""Points of every measurement with every field: not likely ones, but the same ones each time."""

from collections.abc import Iterator
from random import Random
from typing import Any

from schemas.alerts import LINE_RULE_IDS, RULE_IDS
from schemas.measurements import EVERY, MEASUREMENTS, Kind, Measurement, Point
from schemas.rejections import Reason
from schemas.security import SecurityKind

NS_PER_MS = 1_000_000
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

END_MS = 1_795_298_412_345
"""The end of everything; aligned with no step."""

DEVICES = (
    ("tone-1", "toneduo-400", ("2.3.1", "2.10.0")),
    ("tone_2", "toneduo-400", ("2.3.1",)),
    ("ursa-3", "ursa-adapt-10", ("1.0.0+rc.1",)),
    ("bar-4", "lumabar-s15", ("0.9",)),
)
"""Device, model, and the firmwares that it has had, one after the other."""

WORKERS = ("ingest-1", "ingest-2")

LABELS = {"reason": list(Reason), "kind": list(SecurityKind)}

TEXTS = ("ok", "critical", "it's “quoted”", 'say "µA" \\ Ω', "grün / gelb, = rot")
NUMBERS = (0, 1, 1, 2, 40)

ODD_MS = 137
"""Points are this far from round times, so that none lies on the edge of a bucket."""


def points(seed: int = 3) -> Iterator[Point]:
    for measurement in MEASUREMENTS.values():
        random = Random(f"{seed} {measurement.name}")  # of its own: a field more in one changes no other
        for number, (tags, time_ms) in enumerate(_places(measurement, random)):
            yield Point(measurement.name, tags, _fields(measurement, random, time_ms), time_ms * NS_PER_MS + number % NS_PER_MS)


def _places(measurement: Measurement, random: Random) -> Iterator[tuple[tuple[str, ...], int]]:
    if measurement.name in ("fleet", "pipeline", "quarantine", "security", "canary"):
        yield from _of_workers(measurement, random)
        return
    span_ms, every_ms = (60 * DAY_MS, 8 * HOUR_MS) if measurement.lasting else (6 * HOUR_MS, 4 * MINUTE_MS)
    told = (*DEVICES, (WORKERS[0], EVERY, (EVERY,))) if measurement.name == "alert" else DEVICES
    for device, model, firmwares in told:
        for back_ms in range(span_ms, 0, -every_ms):
            fw = firmwares[min(len(firmwares) - 1, 2 * (span_ms - back_ms) // span_ms)]
            labels = (random.choice(("dc-offset", "fleet-cluster", *LINE_RULE_IDS, random.choice(RULE_IDS))),) if measurement.labels else ()
            yield (device, model, fw, *labels), END_MS - back_ms + random.randrange(every_ms // 2) + ODD_MS


def _of_workers(measurement: Measurement, random: Random) -> Iterator[tuple[tuple[str, ...], int]]:
    """The first worker stopped an hour before the end."""
    kinds = [(m, fw) for _, m, fws in DEVICES for fw in fws] if measurement.name == "fleet" else [(EVERY, EVERY)]
    for worker, stopped_ms in zip(WORKERS, (HOUR_MS, 0), strict=True):
        for back_ms in (*range(DAY_MS, HOUR_MS, -10 * MINUTE_MS), *range(HOUR_MS, 0, -10_000)):
            if back_ms >= stopped_ms:
                for model, fw in kinds:
                    labels = tuple(random.choice(LABELS[label]).value for label in measurement.labels)
                    yield (worker, model, fw, *labels), END_MS - back_ms + random.randrange(5_000)


def _fields(measurement: Measurement, random: Random, time_ms: int) -> dict[str, Any]:
    fields = {}
    for name, kind in measurement.fields.items():
        if name not in measurement.optional or random.random() < 0.7:
            fields[name] = _value(name, kind, random, time_ms)
    return fields


def _value(name: str, kind: Kind, random: Random, time_ms: int) -> Any:
    if kind is Kind.FLOAT:
        return random.choice((0.0, random.uniform(0, 2), random.uniform(0, 2), random.lognormvariate(6, 3)))
    if kind is Kind.INTEGER:
        return time_ms - random.randrange(HOUR_MS) if name.endswith("_ms") else random.choice(NUMBERS)
    if kind is Kind.BOOLEAN:
        return random.random() < 0.5
    return random.choice(TEXTS)


