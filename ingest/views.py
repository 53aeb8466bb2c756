"""What a worker shows of itself: plain data for the page, the commands and the metrics."""

import time
from hashlib import sha256
from importlib.metadata import version
from typing import Any

from ingest import observe
from ingest.admit import NOBODY
from ingest.device import Device
from ingest.errors import Mistake
from ingest.safety.data import GAP_MS
from ingest.series import device_series
from schemas.rejections import EXPLAINED

RATE_WINDOW_S = 10.0
FRESH_S = 0.5
SHOWN_BYTES = 16_384
NO_ALERTS = {"critical": 0, "warning": 0, "info": 0}


class Views:
    def __init__(self, worker: Any) -> None:
        self.worker = worker
        self._core = worker.core
        self._journal = worker.journal
        self._rates: list[tuple[float, int]] = []
        self._facts: dict[str, Any] = {}
        self._facts_at = 0.0

    def now_ms(self) -> int:
        return self.worker.clock.now_ms()

    def _journal_facts(self) -> dict[str, Any]:
        """What only the journal knows, asked at most every half second."""
        if time.monotonic() - self._facts_at > FRESH_S or not self._facts:
            self._facts = self._core.ask(self._read_journal)
            self._facts_at = time.monotonic()
        return self._facts

    def _read_journal(self) -> dict[str, Any]:
        journal = self._journal
        return {
            "ledger": journal.ledger().to_json(),
            "open": journal.alerts_open(),
            "by_reason": journal.quarantine_by_reason(),
            "oldest_ms": journal.oldest_outbox_ms(),
            "undelivered": journal.notices_waiting(),
        }

    def overview(self) -> dict[str, Any]:
        worker, now_ms = self.worker, self.now_ms()
        facts = self._journal_facts()
        devices = self._shown_devices()
        link, store = worker.receiver.link, worker.drain.state
        opened = {s: sum(c[s] for c in facts["open"].values()) for s in (*NO_ALERTS, "unacknowledged")}
        return {
            "now_ms": now_ms,
            "started_ms": worker.started_ms,
            "version": version("microcurrent-telemetry"),
            "mode": "demo" if worker.settings.clock_file else "run",
            "ledger": facts["ledger"],
            "pipeline": {
                "broker": {
                    "connected": link.connected,
                    "since_ms": link.since_ms,
                    "session_present": link.session_present,
                    "session_lost_ms": worker.receiver.session_lost_ms,
                    "pulses": link.pulses,
                    "detail": link.detail,
                },
                "store": {
                    "name": worker.sink.name,
                    "ok": store.ok,
                    "detail": store.detail,
                    "oldest_pending_s": max(0.0, (now_ms - facts["oldest_ms"]) / 1000) if facts["oldest_ms"] else None,
                },
                "observed_until_ms": self._core.observed_until_ms,
                "rate_per_s": self._rate(facts["ledger"]["accepted"]),
                "quarantine_by_reason": facts["by_reason"],
                "alerts_undelivered": facts["undelivered"],
            },
            "alerts_open": opened,
            "devices": {
                "known": len(devices),
                "online": sum(d.online is True for d in devices),
                "running": sum(d.live.get("run_state") == "running" and d.online is True for d in devices),
            },
        }

    def _rate(self, accepted: int) -> float:
        now = time.monotonic()
        self._rates.append((now, accepted))
        while len(self._rates) > 2 and now - self._rates[0][0] > RATE_WINDOW_S:
            self._rates.pop(0)
        began, first = self._rates[0]
        return (accepted - first) / (now - began) if now > began else 0.0

    def _shown_devices(self) -> list[Device]:
        return [d for d in list(self._core.devices.values()) if d.device_id != NOBODY]

    def devices(self) -> dict[str, Any]:
        now_ms = self.now_ms()
        opened = self._journal_facts()["open"]
        rows = [self._device_row(d, opened.get(d.device_id, NO_ALERTS), now_ms) for d in self._shown_devices()]
        rows.sort(key=lambda row: row["device_id"])
        return {"now_ms": now_ms, "devices": rows}

    def _device_row(self, device: Device, opened: dict[str, int], now_ms: int) -> dict[str, Any]:
        profile = self.worker.profiles.find(device.model, device.hw, device.fw) if device.model else None
        live = dict(device.live)
        return {
            "device_id": device.device_id,
            "model": device.model,
            "hw": device.hw,
            "fw": device.fw,
            "profile": profile.name if profile else None,
            "online": device.online,
            "session_id": device.session_id,
            "last_seen_ms": device.last_seen_ms or None,
            "last_event_ms": device.last_event_ms or None,
            **{name: live.get(name) for name in LIVE},
            "alerts_open": {s: opened[s] for s in NO_ALERTS},
            "accepted": device.accepted,
            "pending": device.pending,
            "stored": device.stored,
            "duplicate": device.duplicate,
            "quarantined": device.quarantined,
            "missing": device.missing,
            "health": _health(device, live, opened, now_ms, profile is not None),
        }

    def alerts(self, state: str | None, device: str | None, severity: str | None, rule: str | None, most: int) -> dict:
        found = self._core.ask(lambda: self._journal.alerts(state, device, severity, rule, most))
        return {"alerts": found}

    def alert(self, alert_id: str) -> dict | None:
        def read() -> dict | None:
            alert = self._journal.alert(alert_id)
            if alert is None:
                return None
            return {"alert": alert.model_dump(mode="json"), "events": self._journal.events(alert_id)}

        return self._core.ask(read)

    def acknowledge(self, alert_id: str, by: str, note: str) -> dict | None:
        by, note = readable(by, note)
        alert = self._core.ask(lambda: self._core.acknowledge(alert_id, by, note), write=True)
        return {"alert": alert.model_dump(mode="json")} if alert else None

    def quarantine(self, reason: str | None, device: str | None, most: int) -> dict[str, Any]:
        def read() -> tuple[list[dict], dict[str, int]]:
            return self._journal.quarantine(reason, device, most), self._journal.quarantine_by_reason()

        entries, by_reason = self._core.ask(read)
        return {"total": sum(by_reason.values()), "by_reason": by_reason, "explained": EXPLAINED, "entries": entries}

    def quarantined(self, entry_id: int) -> dict[str, Any] | None:
        found = self._core.ask(lambda: self._journal.quarantined_entry(entry_id))
        if found is None:
            return None
        entry, payload = found
        return entry | {"payload_text": printable(payload), "sha256": sha256(payload).hexdigest()}

    def series(self, device_id: str, from_ms: int, to_ms: int, points: int) -> dict[str, Any] | None:
        query = getattr(self.worker.sink, "query", None)
        if query is None:
            return None
        device = self._core.devices.get(device_id)
        profile = None
        if device is not None and device.model:
            profile = self.worker.profiles.find(device.model, device.hw, device.fw)
        found = device_series(query, device_id, from_ms, to_ms, points)
        alerts = self._core.ask(lambda: self._journal.alerts_between(device_id, from_ms, to_ms))
        return {**found, "profile": _limits(profile) if profile else None, "alerts": alerts}

    def reconcile(self) -> dict[str, Any]:
        from ingest.reconcile import reconcile

        return reconcile(self.worker)

    def refresh_gauges(self) -> None:
        seen = self.overview()
        for where in ("inbox", "outbox"):
            observe.PENDING.labels(where).set(seen["ledger"][where])
        for severity in NO_ALERTS:
            observe.ALERTS_OPEN.labels(severity).set(seen["alerts_open"][severity])
        observe.OLDEST_PENDING.set(seen["pipeline"]["store"]["oldest_pending_s"] or 0.0)


LIVE = (
    "i_set_ua", "i_peak_ua", "i_rms_ua", "contact_state", "z_ohm", "run_state", "zone",
    "temp_head_c", "battery_mv", "charging",
)  # fmt: skip


def _health(device: Device, live: dict, opened: dict[str, int], now_ms: int, judged: bool) -> str:
    """One word for a device. What is not known is never called well."""
    if opened["critical"]:
        return "critical"
    if opened["warning"]:
        return "warning"
    running = live.get("run_state") == "running"
    if device.online is False or (running and now_ms - device.last_seen_ms > GAP_MS):
        return "silent"
    if not judged or device.online is None:
        return "unknown"
    return "ok" if running else "idle"


def _limits(profile: Any) -> dict[str, Any]:
    return {
        "name": profile.name,
        "notice": profile.notice,
        "i_peak_max_ua": profile.output.i_peak_max_ua,
        "i_rms_max_ua": profile.i_rms_max_ua,
        "z_good_max_ohm": profile.electrodes.z_good_max_ohm,
        "z_off_ohm": profile.electrodes.z_off_ohm,
        "temp_max_c": profile.device.temp_max_c,
        "session_max_s": profile.session.max_s,
    }


def readable(by: str, note: str) -> tuple[str, str]:
    """The name and the note of an acknowledgement, if they can be kept."""
    by, note = by.strip(), note.strip()
    if not 1 <= len(by) <= 128 or len(note) > 2_000:
        raise Mistake("who acknowledges needs 1 to 128 characters, and the note at most 2000")
    try:
        (by + note).encode()
    except UnicodeEncodeError as error:
        raise Mistake("the name or the note is not readable text") from error
    return by, note


def printable(payload: bytes) -> str:
    """Bytes as text that is safe in a terminal and in a page."""
    text = payload[:SHOWN_BYTES].decode("utf-8", errors="backslashreplace")
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown + (f" … ({len(payload)} bytes)" if len(payload) > SHOWN_BYTES else "")


