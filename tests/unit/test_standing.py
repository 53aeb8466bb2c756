"""The one word for a device: nothing is called well that is not known to be."""

from itertools import product

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


def expected(online: bool | None, run_state: str | None, judged: bool, later_ms: int, opened: dict[str, int]) -> str:
    if opened:
        return next(iter(opened))
    if run_state == "running" and (online is False or later_ms > GAP_MS):
        return "silent"
    if not judged or online is None:
        return "unknown"
    if not online:
        return "off"
    return "ok" if run_state == "running" else "idle"


def test_only_a_device_that_is_there_heard_judged_and_without_danger_is_well() -> None:
    for case in product(
        (None, False, True), (None, "running", "idle"), (False, True), (0, GAP_MS, GAP_MS + 1), ({}, {"warning": 1}, {"critical": 1, "warning": 1})
    ):
        online, run_state, judged, later_ms, opened = case
        found = [state_of(device(online, run_state), CALM | some, judged, START_MS + later_ms) for some in (opened, opened | {"info": 1})]
        assert [expected(*case)] * 2 == found, case
