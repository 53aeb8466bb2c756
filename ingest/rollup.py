"""What remains of readings and sessions when they are deleted. Pure: the same record, whatever its order, the same points."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import groupby
from math import fsum
from typing import Any

from ingest.points import NS_PER_MS
from ingest.safety.history import COUNTED_S, DAY_MS, WEEK_MS
from schemas.measurements import EVERY, TREND, TREND_S, WEEK, Kind, Point
from schemas.messages import ContactState
from schemas.profile import Profile
from schemas.sessions import ADHERENCE_MIN, SessionRecord
from schemas.topics import Stream

SLOT_MS = TREND_S * 1000
MONDAY_MS = 4 * DAY_MS
"""1970 began on a Thursday."""

INITIATION_WEEKS = 8
PRESCRIBED = (5, 3)
"""Sessions a week in initiation and in maintenance for a model without a profile (DOMAIN 4)."""

IN_CONTACT = frozenset({ContactState.GOOD, ContactState.MARGINAL})


# -- ten minutes of a device ----------------------------------------------------------------------------


@dataclass(slots=True)
class _Seen:
    """Values of one model and firmware; sums are made of them at once, so that their order plays no part."""

    messages: int = 0
    current_samples: int = 0
    contact_samples: int = 0
    in_contact: int = 0
    output_ms: list[float] = field(default_factory=list)
    rms_ua: list[float] = field(default_factory=list)
    rms_max_ua: list[float] = field(default_factory=list)
    peak_ua: list[float] = field(default_factory=list)
    v_peak_mv: list[float] = field(default_factory=list)
    z_ohm: list[float] = field(default_factory=list)
    temp_c: list[float] = field(default_factory=list)
    battery_mv: list[float] = field(default_factory=list)


class Trend:
    """Gathers the messages of a device that have samples within a slot, each once, in any order."""

    def __init__(self, device_id: str, slot_ms: int) -> None:
        self.device_id, self.slot_ms = device_id, slot_ms
        self._seen: dict[tuple[str, str], _Seen] = {}

    def add(self, stream: str, event_ms: int, document: dict[str, Any]) -> None:
        """One message: `event_ms` is the event time of its `ts_ms`."""
        samples, from_ms = document["samples"], self.slot_ms - event_ms
        inside = [s for s in samples if 0 <= s["dt_ms"] - from_ms < SLOT_MS]
        if not inside:
            return
        key = document["model"], document["fw"]
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen[key] = _Seen()
        seen.messages += inside[0] is samples[0]
        if stream == Stream.CURRENT:
            seen.current_samples += len(inside)
            for s in inside:
                seen.rms_max_ua.append(s["i_rms_ua"])
                seen.peak_ua.append(s["i_peak_ua"])
                seen.v_peak_mv.append(s["v_peak_mv"])
                if s["output_enabled"]:
                    seen.output_ms.append(s["window_ms"])
                    seen.rms_ua.append(s["i_rms_ua"])
        elif stream == Stream.CONTACT:
            seen.contact_samples += len(inside)
            for s in inside:
                if s["state"] in IN_CONTACT:
                    seen.in_contact += 1
                    seen.z_ohm.append(s["z_ohm"])
        elif stream == Stream.HEALTH:
            seen.temp_c += [s["temp_head_c"] for s in inside]
            seen.battery_mv += [s["battery_mv"] for s in inside]

    def points(self) -> list[Point]:
        """A point for each model and firmware that the device spoke as, nearly always one."""
        return [
            Point(TREND.name, (self.device_id, model, fw), _figures(seen), self.slot_ms * NS_PER_MS)
            for (model, fw), seen in sorted(self._seen.items())
        ]


def _figures(seen: _Seen) -> dict[str, Any]:
    figures = {
        "messages": seen.messages,
        "current_samples": seen.current_samples,
        "contact_samples": seen.contact_samples,
        "output_s": fsum(seen.output_ms) / 1000,
        "i_rms_mean_ua": _mean(seen.rms_ua),
        "i_rms_max_ua": max(seen.rms_max_ua, default=None),
        "i_peak_max_ua": max(seen.peak_ua, default=None),
        "v_peak_max_mv": max(seen.v_peak_mv, default=None),
        "z_mean_ohm": _mean(seen.z_ohm),
        "z_max_ohm": max(seen.z_ohm, default=None),
        "contact_part": seen.in_contact / seen.contact_samples if seen.contact_samples else None,
        "temp_head_max_c": max(seen.temp_c, default=None),
        "battery_min_mv": min(seen.battery_mv, default=None),
    }
    return {name: float(v) if TREND.fields[name] is Kind.FLOAT else v for name, v in figures.items() if v is not None}


def _mean(values: list[float]) -> float | None:
    return fsum(values) / len(values) if values else None


# -- a week of a device ---------------------------------------------------------------------------------


def week_of(t_ms: int) -> int:
    """The Monday 00:00 UTC at or before a time, ms."""
    return t_ms - (t_ms - MONDAY_MS) % WEEK_MS


@dataclass(frozen=True, slots=True)
class Before:
    """What the weeks before `until_ms`, of which there are no records any more, leave to those after them."""

    until_ms: int = 0
    first_ms: int | None = None
    completions: int = 0
    streak_weeks: int = 0


def weeks_of(
    device_id: str,
    records: Iterable[SessionRecord],
    profile_of: Callable[[str, str, str], Profile | None],
    before: Before = Before(),
    empty: Iterable[tuple[int, str]] = (),
) -> list[Point]:
    """The weeks of one device with sessions that count, oldest first.

    Args:
        records: its sessions on record; those before `before.until_ms` are left out.
        profile_of: (model, hw, fw) → its profile, if there is one.
        empty: (week ms, model) that must have a point even if no session is left in them.
    """
    counted = sorted(
        (r for r in records if r.output_s >= COUNTED_S and r.started_ms >= before.until_ms), key=lambda r: (r.started_ms, r.session_id)
    )
    by_week = {week_ms: list(some) for week_ms, some in groupby(counted, key=lambda r: week_of(r.started_ms))}
    models = {week_ms: model for week_ms, model in empty if week_ms >= before.until_ms}
    first_ms = before.first_ms if before.first_ms is not None else min(by_week, default=None)
    course, streak, previous_ms = before.completions, before.streak_weeks, before.until_ms - WEEK_MS
    prescribe = PRESCRIBED
    points = []
    for week_ms in sorted(by_week.keys() | models.keys()):
        some = by_week.get(week_ms, [])
        if some:
            profile = profile_of(some[-1].model, some[-1].hw, some[-1].fw)
            prescribe = (profile.session.weekly_initiation, profile.session.weekly_maintenance) if profile else PRESCRIBED
        is_new = first_ms is None or week_ms - week_of(first_ms) < INITIATION_WEEKS * WEEK_MS
        prescribed = prescribe[0 if is_new else 1]
        completions = sum(r.completed for r in some)
        adherence = min(1.0, completions / prescribed)
        course += completions
        streak = (streak if week_ms - previous_ms == WEEK_MS else 0) + 1 if adherence >= ADHERENCE_MIN else 0
        previous_ms = week_ms
        fields = {
            "sessions": len(some),
            "completions": completions,
            "prescribed": prescribed,
            "streak_weeks": streak,
            "course_sessions": course,
            "adherence": adherence,
            "output_s": fsum(r.output_s for r in some),
            "effective_s": fsum(r.effective_s for r in some),
            "charge_mc": fsum(r.charge_mc for r in some),
        }
        model = some[-1].model if some else models[week_ms]
        points.append(Point(WEEK.name, (device_id, model, EVERY), fields, week_ms * NS_PER_MS))
    return points
