"""The ledger against what the store really holds, some devices at a time.

Of a message that should be there no more is kept than one bit, and of a sequence no more than its gaps: a
device with millions of messages takes no more memory than a few hundred kilobytes. The journal is read beside
the worker, which goes on meanwhile; what comes or is stored in that time makes no difference.
"""

import secrets
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from ingest import observe
from ingest.admit import DAY_MS, SEQUENCED, STORE_MARGIN_MS, WILL
from ingest.device import Device
from ingest.errors import Mistake
from ingest.journal.confirmed import Confirmed

SHOWN = 100
TOGETHER, MOST_TOGETHER = 50_000, 500
"""Devices are compared together up to so many messages, and so many devices."""

AT_ONCE = 5_000
ABANDONED_S = 30.0
PAUSE_S = 0.002
"""Between two looks at the store, for the worker: it shares this interpreter."""

Key = tuple[int, int, int]
"""(boot, lane, seq)."""


class Abandoned(Exception):
    """Nobody waits for the answer any more."""


class Expected:
    """Messages of one device, told in order of (boot, lane, seq): their runs of numbers, and for each a bit: it was found."""

    __slots__ = ("_found", "_runs", "count")

    def __init__(self, keys: Iterable[Key]) -> None:
        self._runs: dict[tuple[int, int], tuple[list[int], list[int], list[int]]] = {}
        self.count = 0
        of: tuple[int, int] | None = None
        for boot_id, lane, seq in keys:
            if (boot_id, lane) != of:
                of = boot_id, lane
                firsts, lasts, places = self._runs[of] = ([], [], [])
            if lasts and seq == lasts[-1] + 1:
                lasts[-1] = seq
            else:
                firsts.append(seq)
                lasts.append(seq)
                places.append(self.count)
            self.count += 1
        self._found = bytearray((self.count + 7) // 8)

    def find(self, boot_id: int, lane: int, seq: int) -> bool:
        """Note that the store has it; False if it was not expected there."""
        runs = self._runs.get((boot_id, lane))
        if runs is None:
            return False
        firsts, lasts, places = runs
        at = bisect_right(firsts, seq) - 1
        if at < 0 or seq > lasts[at]:
            return False
        place = places[at] + seq - firsts[at]
        self._found[place >> 3] |= 1 << (place & 7)
        return True

    @property
    def lost(self) -> int:
        return self.count - int.from_bytes(self._found).bit_count()

    def not_found(self) -> Iterator[Key]:
        for (boot_id, lane), runs in self._runs.items():
            for first, last, place in zip(*runs, strict=True):
                for seq in range(first, last + 1):
                    at = place + seq - first
                    if not self._found[at >> 3] >> (at & 7) & 1:
                        yield boot_id, lane, seq


class Differences:
    """What was found so far: how many of each kind, and the first of them."""

    def __init__(self) -> None:
        self.totals = {"lost": 0, "doubled": 0, "spurious": 0}
        self.differences: dict[str, list[dict[str, Any]]] = {kind: [] for kind in self.totals}
        self.unverified = self.messages = self.devices = 0

    def note(self, kind: str, device_id: str, boot_id: int, lane: int, seq: int) -> None:
        self.totals[kind] += 1
        if len(self.differences[kind]) < SHOWN:
            said = {"kind": kind, "device_id": device_id, "boot_id": boot_id, "seq": seq}
            self.differences[kind].append(said | ({"will": True} if lane == WILL else {}))


def reconcile(
    worker: Any, device_id: str | None = None, progress: Callable[[float], None] = lambda part: None, wanted: Callable[[], bool] = lambda: True
) -> dict[str, Any]:
    """Compare every message on record that the store still has to keep with the store.

    lost: confirmed by the store once, and not there. doubled: there with a reading twice. spurious: there, and
    never received. Unverified messages are there, of boots so long ago that their numbers are no longer known.

    Args:
        device_id: only this one; None compares all, and whatever else the store holds.
        progress: told the part that is done.
        wanted: whether anybody still waits for the answer; Abandoned is raised if not.
    """
    core, sink, found = worker.core, worker.sink, Differences()
    devices = core.ask(lambda: {d.device_id: d.accepted for d in core.devices.values()})
    for each in sink.device_ids():
        devices.setdefault(each, 0)
    if device_id is not None:
        if device_id not in devices:
            raise Mistake(f"device {device_id}: neither the worker nor the store knows one of this name", 1)
        devices = {device_id: devices[device_id]}
    whole, done = sum(devices.values()) or 1, 0
    with Confirmed(worker.journal.path) as confirmed:
        for group in _groups(devices):
            since_ms = core.clock.now_ms() - worker.settings.retention_days * DAY_MS + STORE_MARGIN_MS
            expected = {each: Expected(confirmed.keys(each, since_ms)) for each in group}
            _compare(core, sink, expected, found, wanted)
            done += sum(devices[each] for each in group)
            progress(done / whole)
    ledger = core.ask(worker.journal.ledger)
    return {
        "ok": ledger.balanced and not any(found.totals.values()),
        "ledger": ledger.to_json(),
        "balanced": ledger.balanced,
        "devices": found.devices,
        "messages": found.messages,
        "unverified": found.unverified,
        **found.totals,
        "differences": found.differences,
    }


def _groups(devices: dict[str, int]) -> Iterator[list[str]]:
    """Devices together, as long as they have no more than so many messages; a large one is alone."""
    group: list[str] = []
    messages = 0
    for device_id in sorted(devices):
        if group and (messages + devices[device_id] > TOGETHER or len(group) == MOST_TOGETHER):
            yield group
            group, messages = [], 0
        group.append(device_id)
        messages += devices[device_id]
    if group:
        yield group


def _compare(core: Any, sink: Any, expected: dict[str, Expected], found: Differences, wanted: Callable[[], bool]) -> None:
    held = sink.held(list(expected))
    while some := list(islice(held, AT_ONCE)):
        if not wanted():
            raise Abandoned
        time.sleep(PAUSE_S)
        strangers = set()
        for device_id, boot_id, seq, is_will, doubled in some:
            lane = WILL if is_will else SEQUENCED
            if doubled:
                found.note("doubled", device_id, boot_id, lane, seq)
            if not expected[device_id].find(boot_id, lane, seq):
                strangers.add((device_id, boot_id, lane, seq))
        if strangers:  # most have come, or were forgotten, since the journal was read
            verdicts = core.ask(lambda s=strangers: [(key, _is_known(core.devices.get(key[0]), *key[1:])) for key in sorted(s)])
            for key, known in verdicts:
                if known is None:
                    found.unverified += 1
                elif not known:
                    found.note("spurious", *key)
    for device_id, each in expected.items():
        found.devices += 1
        found.messages += each.count
        lost = each.lost
        for key in islice(each.not_found(), min(lost, SHOWN)):
            found.note("lost", device_id, *key)
        found.totals["lost"] += max(0, lost - SHOWN)


def _is_known(device: Device | None, boot_id: int, lane: int, seq: int) -> bool | None:
    """Whether a device has sent such a message; None if its numbers of that boot have been given up."""
    boot = device.boots.get(boot_id) if device else None
    if device is not None and device.forgot_boots and (boot is None or boot.partial):
        if boot is not None and seq in (boot.wills if lane == WILL else boot.seen):
            return True
        return None
    return boot is not None and seq in (boot.wills if lane == WILL else boot.seen)


class Comparison:
    """One that somebody asks after; when nobody does any more, it ends."""

    def __init__(self, worker: Any, device_id: str | None) -> None:
        self.name = secrets.token_hex(8)
        self._part, self._asked_s = 0.0, time.monotonic()
        self._found: dict[str, Any] | None = None
        self._error: str | None = None
        self._thread = threading.Thread(target=self._run, args=(worker, device_id), name="reconcile", daemon=True)
        self._thread.start()

    @property
    def is_under_way(self) -> bool:
        return self._thread.is_alive()

    def told(self) -> dict[str, Any]:
        self._asked_s = time.monotonic()
        return {"part": self._part, "found": self._found, "error": self._error}

    def _run(self, worker: Any, device_id: str | None) -> None:
        try:
            self._found = reconcile(worker, device_id, self._set_part, lambda: time.monotonic() - self._asked_s < ABANDONED_S)
        except Abandoned:
            self._error = "nobody asked any more"
        except Mistake as mistake:
            self._error = str(mistake)
        except Exception as error:
            observe.log().exception("reconcile_failed")
            self._error = f"it failed: {error}"

    def _set_part(self, part: float) -> None:
        self._part = part
