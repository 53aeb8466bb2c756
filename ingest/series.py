"""One device over time, from the embedded store, in as many points as fit on a screen."""

from collections.abc import Callable
from typing import Any

Query = Callable[[str, list[Any]], list[tuple]]

# The worst of a bucket is shown, never its mean: a spike must not be smoothed away.
_CHARTS: dict[str, dict[str, str]] = {
    "current": {"i_set_ua": "max(i_set_ua)", "i_peak_ua": "max(i_peak_ua)", "i_rms_ua": "max(i_rms_ua)"},
    "contact": {"z_ohm": "max(z_ohm)", "state": "arg_max(state, z_ohm)"},
    "health": {"temp_head_c": "max(temp_head_c)", "battery_mv": "min(battery_mv)"},
    "runtime": {"run_state": "arg_max(run_state, time_ns)", "zone": "arg_max(zone, time_ns)"},
}

STEPS_MS = (1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_800_000, 3_600_000, 21_600_000, 86_400_000)


def device_series(query: Query, device_id: str, from_ms: int, to_ms: int, points: int) -> dict[str, Any]:
    """Columns by chart; a bucket without data is absent."""
    step_ms = next((s for s in STEPS_MS if s * points >= to_ms - from_ms), STEPS_MS[-1])
    found: dict[str, Any] = {"device_id": device_id, "from_ms": from_ms, "to_ms": to_ms, "step_ms": step_ms}
    for table, columns in _CHARTS.items():
        rows = query(
            f'SELECT time_ns // 1000000 // {step_ms} * {step_ms} AS t, {", ".join(columns.values())} FROM "{table}" '
            "WHERE device_id = ? AND time_ns >= ? AND time_ns < ? GROUP BY t ORDER BY t",
            [device_id, from_ms * 1_000_000, to_ms * 1_000_000],
        )
        found[table] = {name: [row[at] for row in rows] for at, name in enumerate(("t", *columns))}
    return found
