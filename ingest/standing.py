"""What is thought of a device: one word, and what it rests on. Pure."""

from typing import NamedTuple

from ingest.device import Device
from schemas.limits import GAP_MS
from schemas.profile import Profile

NO_ALERTS = {"critical": 0, "warning": 0, "info": 0}


class Standing(NamedTuple):
    """Each change of it is told to the store. `online` and `running` are 1 or 0; what is not known is None."""

    state: str
    online: int
    running: int
    open_critical: int
    open_warning: int
    open_info: int
    contract: int | None
    model: str
    fw: str
    hw: str
    profile: str | None
    lot: str | None


def standing_of(device: Device, opened: dict[str, int], profile: Profile | None, now_ms: int) -> Standing:
    """`opened`: the device's open alerts by severity; `device` has told its model."""
    return Standing(
        state=state_of(device, opened, profile is not None, now_ms),
        online=int(device.online is True),
        running=int(is_running(device)),
        open_critical=opened["critical"],
        open_warning=opened["warning"],
        open_info=opened["info"],
        contract=device.contract,
        model=device.model,
        fw=device.fw,
        hw=device.hw,
        profile=profile.id if profile else None,
        lot=device.lot,
    )


def state_of(device: Device, opened: dict[str, int], judged: bool, now_ms: int) -> str:
    """One of STATES. What is not known is never called well."""
    if opened["critical"]:
        return "critical"
    if opened["warning"]:
        return "warning"
    silent_ms = silent_from_ms(device)
    if silent_ms is not None and (device.online is False or now_ms >= silent_ms):
        return "silent"
    if not judged or device.online is None:
        return "unknown"
    if device.online is False:
        return "off"
    return "ok" if is_running(device) else "idle"


def is_running(device: Device) -> bool:
    """It said so last, and is there."""
    return device.online is True and says_running(device)


def silent_from_ms(device: Device) -> int | None:
    """From when on a running device that says nothing more is silent; None if it may be quiet."""
    return device.last_seen_ms + GAP_MS + 1 if says_running(device) else None


def says_running(device: Device) -> bool:
    """It said so last, whether or not it is there."""
    return device.live.get("run_state") == "running"
