"""The one word for a device: nothing is called well that is not known to be."""

from itertools import product

import pytest

from ingest.device import Device
from ingest.standing import state_of
from schemas.limits import GAP_MS
from tests.line import START_MS

CALM = {"critical": 0, "warning": 0, "info": 0}


def device(online: bool | None, run_state: str | None) -> Device:
    found = Device("tone-1")
    found.online, found.last_seen_ms = online, START_MS
    if run_state is not None:
        found.live["run_state"] = run_state
    return found


@pytest.mark.parametrize(
    ("online", "run_state", "judged", "later_ms", "opened"),
    product((None, False, True), (None, "running", "idle"), (False, True), (0, GAP_MS, GAP_MS + 1), ({}, {"info": 1}, {"warning": 1}, {"critical": 1, "warning": 1})),
)
def test_only_a_device_that_is_there_heard_judged_and_without_danger_is_well(
    online: bool | None, run_state: str | None, judged: bool, later_ms: int, opened: dict[str, int]
) -> None:
    state = state_of(device(online, run_state), CALM | opened, judged, START_MS + later_ms)
    silent = run_state == "running" and (online is False or later_ms > GAP_MS)
    if "critical" in opened:
        assert "critical" == state
    elif "warning" in opened:
        assert "warning" == state
    elif silent:
        assert "silent" == state
    elif not judged or online is None:
        assert "unknown" == state
    elif not online:
        assert "off" == state
    else:
        assert ("ok" if run_state == "running" else "idle") == state
