"""The ledger against what the store really holds, device by device."""

from typing import Any

from ingest.admit import DAY_MS, SEQUENCED, STORE_MARGIN_MS, WILL

SHOWN = 100


def reconcile(worker: Any) -> dict[str, Any]:
    """Compare every message on record that the store still has to keep with the store.

    lost: confirmed by the store once, and not there. doubled: there with a reading twice.
    spurious: there, and never received.
    """
    core, journal, sink = worker.core, worker.journal, worker.sink
    found: dict[str, list[dict]] = {"lost": [], "doubled": [], "spurious": []}
    totals = {"lost": 0, "doubled": 0, "spurious": 0}
    messages = devices = 0

    def note(kind: str, device_id: str, boot_id: int, seq: int) -> None:
        totals[kind] += 1
        if len(found[kind]) < SHOWN:
            found[kind].append({"device_id": device_id, "boot_id": boot_id, "seq": seq})

    since_ms = core.clock.now_ms() - worker.settings.retention_days * DAY_MS + STORE_MARGIN_MS
    for device_id in sorted(core.devices):
        expected = core.ask(lambda d=device_id: set(journal.message_keys(d, since_ms)), timeout_s=120)
        devices += 1
        messages += len(expected)
        held: set[tuple[int, int, int]] = set()
        for boot_id, seq, is_will, rows, times in sink.held(device_id):
            held.add((boot_id, WILL if is_will else SEQUENCED, seq))
            if rows > times:
                note("doubled", device_id, boot_id, seq)
        for boot_id, _, seq in sorted(expected - held):
            note("lost", device_id, boot_id, seq)
        boots = core.devices[device_id].boots
        for boot_id, lane, seq in sorted(held - expected):
            boot = boots.get(boot_id)
            if boot is None or seq not in (boot.wills if lane == WILL else boot.seen):
                note("spurious", device_id, boot_id, seq)
    ledger = core.ask(journal.ledger)
    return {
        "ok": ledger.balanced and not any(totals.values()),
        "ledger": ledger.to_json(),
        "balanced": ledger.balanced,
        "devices": devices,
        "messages": messages,
        **totals,
        "differences": found,
    }
