"""What a worker shows of itself: plain data for the page, the commands and the metrics."""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any, NamedTuple
from unicodedata import category

from ingest import boards, expiry, observe
from ingest.admit import NOBODY
from ingest.device import Device
from ingest.errors import Mistake
from ingest.filters import MOST_ID, read_filter, read_refused_filter, read_security_filter
from ingest.journal.quarantine import RefusedFilter, State
from ingest.journal.webhook import FAILED, WAITING
from ingest.pressure import Pressure
from ingest.reconcile import Comparison, reconcile
from ingest.safety.line import MEANS
from ingest.standing import NO_ALERTS, is_running, state_of
from schemas.alerts import Alert, AlertState
from schemas.rejections import EXPLAINED
from schemas.security import SECURITY_EXPLAINED, CertificateKind

RATE_WINDOW_S = 10.0
FRESH_S = 0.5
SHOWN_BYTES = 16_384
MOST_NAME, MOST_WORDS = 128, 2_000


REPLAYED_AT_ONCE, WOULD_AT_ONCE = 500, 50
"""Entries in one question to the core: it does nothing else meanwhile."""

REPLAY_PATIENCE_S, LOOK_S = 10.0, 0.02


class Look(NamedTuple):
    """What was seen of the line in one instant, on the core's thread: no part of it is older than another."""

    at_s: float
    overview: dict[str, Any]
    opened: dict[str, dict[str, int]]
    """Open alerts of each device, by severity."""
    counts: dict[str, dict[str, int]]
    """Messages of each device, by what became of them."""
    webhook: dict[str, int | None]
    pressure: Pressure
    canary_age_s: float | None


class Views:
    running = True

    def __init__(self, worker: Any) -> None:
        self.worker = worker
        self._core = worker.core
        self._journal = worker.journal
        self._version = version("microcurrent-telemetry")
        self._rates: list[tuple[float, int]] = []
        self._comparing = threading.Lock()
        self._comparison: Comparison | None = None
        self._latest: Look | None = None

    def now_ms(self) -> int:
        return self.worker.clock.now_ms()

    def _look(self) -> Look:
        """The line as it was at most half a second ago, and never as it was before an earlier answer."""
        latest = self._latest
        if latest is None or time.monotonic() - latest.at_s > FRESH_S:
            latest = self._core.ask(self._see)
            if self._latest is None or latest.at_s > self._latest.at_s:
                self._latest = latest
        return latest

    def overview(self) -> dict[str, Any]:
        return self._look().overview

    def _see(self) -> Look:
        """On the core's thread, between its steps."""
        worker, core, journal, now_ms = self.worker, self._core, self._journal, self.now_ms()
        ledger, by_device, oldest_ms = journal.ledger().to_json(), journal.alerts_open(), journal.oldest_outbox_ms()
        webhook, canary, devices = journal.webhook_counts(), core.lookout.canary, self._shown_devices()
        link, store = worker.receiver.link, worker.drain.state
        overview = {
            "now_ms": now_ms,
            "started_ms": worker.started_ms,
            "kept_since_ms": journal.kept_since_ms(),
            "version": self._version,
            "mode": "demo" if worker.settings.clock_file else "run",
            "ledger": ledger,
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
                    "oldest_pending_s": max(0.0, (now_ms - oldest_ms) / 1000) if oldest_ms else None,
                },
                "pressure": asdict(core.disk.pressure),
                "commit_ms": round(core.commit_s * 1000, 2),
                "set_aside": {"messages": journal.aside, "devices": len(core.backlog.aside), "detail": core.backlog.of_whom},
                "blind": self._blind(),
                "canary": self._canary(),
                "certificates": self._certificates(now_ms),
                "security_by_kind": journal.security_by_kind(),
                "observed_until_ms": core.observed_until_ms,
                "rate_per_s": self._rate(ledger["accepted"]),
                "quarantine_by_reason": journal.quarantine_by_reason(),
                "quarantine": journal.quarantine_state(),
                "alerts_undelivered": journal.notices_waiting(),
                "webhook": self._webhook(webhook),
            },
            "alerts_open": {s: sum(c[s] for c in by_device.values()) for s in (*NO_ALERTS, "unacknowledged")},
            "devices": {
                "known": len(devices),
                "online": sum(d.online is True for d in devices),
                "running": sum(is_running(d) for d in devices),
            },
        }
        counts = {d.device_id: {name: getattr(d, name) for name in COUNTS} for d in devices}
        return Look(time.monotonic(), overview, by_device, counts, webhook, core.disk.pressure, canary.age_s if canary else None)

    def _blind(self) -> dict[str, Any] | None:
        """What cannot be seen, of the alert that stands; None while there is none."""
        blindness = self._core.lookout.blindness
        alert = blindness.alert
        if alert is None:
            return None
        causes = [
            {"cause": span.cause.value, "since_ms": span.from_ms, "means": MEANS[span.cause], "detail": span.detail}
            for span in blindness.causes
        ]  # fmt: skip
        return {"alert_id": alert.id, "since_ms": alert.onset_ms, "causes": causes}

    def _canary(self) -> dict[str, Any] | None:
        """None if there is none, or no worker runs."""
        canary = self._core.lookout.canary
        if canary is None:
            return None
        return {
            "interval_s": canary.interval_s,
            "through_ms": canary.through_ms,
            "took_s": canary.took_s,
            "missing_since_ms": canary.missing_since[1] if canary.missing_since else None,
            "stuck": canary.words if canary.missing_since else "",
            "ends_at": canary.ends_at,
        }

    def _certificates(self, now_ms: int) -> dict[str, Any] | None:
        """None before the worker has looked, or if none runs."""
        lookout = self._core.lookout
        seen = lookout.certificates()
        return expiry.shown(seen, now_ms, lookout.expiry.warn_days) if seen else None

    def _webhook(self, counts: dict[str, int | None]) -> dict[str, Any] | None:
        """None if there is none; `ok` is None while no worker runs that could know."""
        if self._core.notices.webhook is None:
            return None
        notifier = self.worker.notifier
        state = {"ok": notifier.state.ok, "detail": notifier.state.detail} if notifier else {"ok": None, "detail": "not running"}
        return state | counts

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
        now_ms, seen = self.now_ms(), self._look()
        rows = [self._device_row(d, seen, now_ms) for d in self._shown_devices() if d.device_id in seen.counts]
        rows.sort(key=lambda row: row["device_id"])
        return {"now_ms": now_ms, "devices": rows}

    def _device_row(self, device: Device, seen: Look, now_ms: int) -> dict[str, Any]:
        opened = seen.opened.get(device.device_id, NO_ALERTS)
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
            **seen.counts[device.device_id],
            "missing": device.missing,
            "health": state_of(device, opened, profile is not None, now_ms),
        }

    def alerts(self, words: Mapping[str, str]) -> dict[str, Any]:
        """The alerts that `ingest.filters` makes of the words."""
        wanted = asdict(read_filter(words, self.now_ms()))
        return {"alerts": self._core.ask(lambda: self._journal.alerts(**wanted))}

    def alert(self, alert_id: str) -> dict | None:
        def read() -> dict | None:
            alert = self._journal.alert(alert_id)
            if alert is None:
                return None
            return {"alert": alert.model_dump(mode="json"), "events": self._journal.events(alert_id)}

        return self._core.ask(read)

    def acknowledge(self, alert_id: str, by: str, note: str) -> dict | None:
        by, note = person(by), words_of(note)
        return self._shown(self._core.ask(lambda: self._core.acts.acknowledge(alert_id, by, note), write=True))

    def assign(self, alert_id: str, to: str, by: str, note: str) -> dict | None:
        to, by, note = person(to), person(by), words_of(note)
        return self._shown(self._core.ask(lambda: self._core.acts.assign(alert_id, to, by, note), write=True))

    def comment(self, alert_id: str, by: str, text: str) -> dict | None:
        by, text = person(by), words_of(text, needed=True)
        return self._shown(self._core.ask(lambda: self._core.acts.comment(alert_id, by, text), write=True))

    @staticmethod
    def _shown(alert: Alert | None) -> dict[str, Any] | None:
        return {"alert": alert.model_dump(mode="json")} if alert else None

    def resend(self) -> dict[str, int]:
        """What the webhook refused waits for it again."""
        again = self._core.ask(self._journal.webhook_again, write=True)
        self._core.webhook_bell.set()
        return {"again": again}

    def security(self, words: Mapping[str, str]) -> dict[str, Any]:
        """The security events that `ingest.filters` makes of the words, the newest first."""
        kind, most = read_security_filter(words)
        return {"explained": SECURITY_EXPLAINED, "events": self._core.ask(lambda: self._journal.security_events(kind, most))}

    def quarantine(self, words: Mapping[str, str]) -> dict[str, Any]:
        """The refused messages that `ingest.filters` makes of the words, and how many there are of them in all."""
        wanted, most = read_refused_filter(words, self.now_ms())

        def read() -> dict[str, Any]:
            return {**self._journal.quarantine_counts(wanted), "entries": self._journal.quarantine(most=most, wanted=wanted)}

        return {**self._core.ask(read), "explained": EXPLAINED}

    def quarantined(self, entry_id: int) -> dict[str, Any] | None:
        found = self._core.ask(lambda: self._journal.quarantined_entry(entry_id)) if 0 < entry_id <= MOST_ID else None
        if found is None:
            return None
        entry, payload, happened = found
        return entry | {"payload_text": printable(payload), "explained": EXPLAINED.get(entry["reason"], ""), "events": happened}

    def would_replay(self, which: Mapping[str, Any]) -> dict[str, Any]:
        """What a replay of some refused messages would come to; with `next`, there are more to be asked for."""
        wanted = self._which(which)
        found = self._core.ask(lambda: self._core.acts.would_replay(wanted, WOULD_AT_ONCE))
        return {"outcomes": found["outcomes"], "next": found["last"]}

    def replay(self, which: Mapping[str, Any], by: str, note: str) -> dict[str, Any]:
        """Send refused messages through the line again, and tell what came of it; with `next`, there are more to be sent.

        Those of a stopped worker wait for its next start.
        """
        by, note, wanted = person(by), words_of(note), self._which(which)
        found = self._core.ask(lambda: self._core.acts.replay(wanted, REPLAYED_AT_ONCE, by, note), write=True)
        self._core.wake()
        sent = found["sent"]
        if self.running and sent:
            until = time.monotonic() + REPLAY_PATIENCE_S
            while self._core.ask(self._journal.first_unprocessed) <= found["raw"] and time.monotonic() < until:
                time.sleep(LOOK_S)
        now = self._core.ask(lambda: self._journal.chosen(RefusedFilter(ids=tuple(sent)), len(sent)))
        states = Counter(entry["state"] for entry in now)
        return {
            "replayed": states[State.REPLAYED],
            "waiting": states[State.WAITING],
            "refused": dict(Counter(entry["reason"] for entry in now if entry["state"] == State.OPEN)),
            "not_whole": found["not_whole"],
            "not_open": found["not_open"],
            "next": found["last"],
        }

    def discard(self, which: Mapping[str, Any], by: str, note: str) -> dict[str, Any]:
        """A person wants no more of these; with `next`, there are more to be discarded."""
        by, note, wanted = person(by), words_of(note), self._which(which)
        found = self._core.ask(lambda: self._core.acts.discard(wanted, REPLAYED_AT_ONCE, by, note), write=True)
        return {"discarded": found["discarded"], "not_open": found["not_open"], "next": found["last"]}

    def _which(self, which: Mapping[str, Any]) -> RefusedFilter:
        """Entries by `ids`, or by `words` as they are listed by; of the latter those after `after`, up to `upto`."""
        ids, words = which.get("ids"), which.get("words")
        if (ids is None) == (words is None) or set(which) - {"ids", "words", "after", "upto"}:
            raise Mistake("say which refused messages: either 'ids', or 'words' that choose them")
        numbers = [n for n in (which.get("after"), which.get("upto"), *(ids if isinstance(ids, list) else [])) if n is not None]
        if not all(type(n) is int and 0 <= n <= MOST_ID for n in numbers) or not isinstance(ids, list | None) or not isinstance(words, dict | None):
            raise Mistake("ids, after and upto are numbers of entries; words are texts")
        if ids is not None:
            if not 1 <= len(ids) <= REPLAYED_AT_ONCE:
                raise Mistake(f"name 1 to {REPLAYED_AT_ONCE} entries at once")
            return RefusedFilter(ids=tuple(ids), after=which.get("after"))
        if not all(isinstance(text, str) for text in words.values()):
            raise Mistake("ids, after and upto are numbers of entries; words are texts")
        wanted, _ = read_refused_filter({"state": State.OPEN.value} | words, self.now_ms())
        return replace(wanted, after=which.get("after"), upto=which.get("upto"))

    def reader(self) -> Any:
        """For one set of questions of the dashboards; None if the store is asked elsewhere."""
        make = getattr(self.worker.sink, "reader", None)
        return make() if make else None

    def board(self, dashboard: boards.Dashboard, view: boards.View, reader: Any) -> dict[str, Any]:
        """What a dashboard shows, and the alerts that are drawn into it. Closes the reader."""
        try:
            return {**boards.results(dashboard, view, reader), "alerts": self._drawn(dashboard, view)}
        finally:
            reader.close()

    def _drawn(self, dashboard: boards.Dashboard, view: boards.View) -> list[dict[str, Any]]:
        if not dashboard.annotated:
            return []
        devices = view.chosen.get("device_id", ())
        whose = devices[0] if len(devices) == 1 else None
        found = self._core.ask(lambda: self._journal.alerts(None, whose, most=boards.MOST_ALERTS, since_ms=view.from_ms, until_ms=view.to_ms))
        kept = [a for a in found if a["state"] != AlertState.WITHDRAWN and all(not v or a[tag] in v for tag, v in view.chosen.items())]
        return [{name: alert[name] for name in DRAWN} for alert in kept]

    def reconcile(self, device_id: str | None = None, progress: Callable[[float], None] = lambda part: None) -> dict[str, Any]:
        return reconcile(self.worker, device_id, progress)

    def begin_reconcile(self, device_id: str | None) -> dict[str, Any]:
        """Compare in a thread of its own, and one at a time: each reads all that is stored."""
        with self._comparing:
            if self._comparison is not None and self._comparison.is_under_way:
                raise Mistake("somebody is comparing journal and store just now; ask again when that is done", 1)
            self._comparison = Comparison(self.worker, device_id)
        return {"comparison": self._comparison.name}

    def reconciled(self, name: str) -> dict[str, Any] | None:
        """How far a comparison is: `part`, and in the end `found` or `error`."""
        asked = self._comparison
        return asked.told() if asked is not None and asked.name == name else None

    def refresh_gauges(self) -> None:
        look = self._look()
        seen = look.overview
        for where in ("inbox", "outbox"):
            observe.PENDING.labels(where).set(seen["ledger"][where])
        observe.SET_ASIDE.set(seen["pipeline"]["set_aside"]["messages"])
        for state in (WAITING, FAILED):
            observe.WEBHOOK_OWED.labels(state).set(look.webhook[state])
        for severity in NO_ALERTS:
            observe.ALERTS_OPEN.labels(severity).set(seen["alerts_open"][severity])
        kept = seen["pipeline"]["quarantine"]
        for state in State:
            observe.REFUSED_MESSAGES.labels(state).set(kept[state])
        observe.REFUSED_BYTES.set(kept["bytes"])
        pressure = look.pressure
        observe.PRESSURE.set(pressure.level.rank)
        observe.JOURNAL_BYTES.labels("used").set(pressure.used_bytes)
        observe.JOURNAL_BYTES.labels("allowed").set(pressure.limit_bytes)
        observe.DISK_FREE.set(pressure.free_bytes)
        observe.CANARY_AGE.set(-1.0 if look.canary_age_s is None else look.canary_age_s)
        read = self._core.lookout.certificates()
        for kind in CertificateKind:
            ends_ms = [each.ends_ms for each in read.found if each.kind is kind] if read else []
            observe.CERTIFICATE_SECONDS.labels(kind).set((min(ends_ms) - seen["now_ms"]) / 1000 if ends_ms else math.nan)
        observe.OLDEST_PENDING.set(seen["pipeline"]["store"]["oldest_pending_s"] or 0.0)


DRAWN = ("id", "rule", "severity", "state", "device_id", "opened_ms", "closed_ms", "value", "limit", "unit")
"""What a chart says of an alert."""

COUNTS = ("accepted", "pending", "stored", "duplicate", "quarantined")

LIVE = (
    "i_set_ua", "i_peak_ua", "i_rms_ua", "contact_state", "z_ohm", "run_state", "zone",
    "temp_head_c", "battery_mv", "charging",
)  # fmt: skip


def person(name: str) -> str:
    """The name of somebody who acts on an alert, if it can be kept."""
    name = _kept(name)
    if not 1 <= len(name) <= MOST_NAME:
        raise Mistake(f"a person's name has 1 to {MOST_NAME} characters")
    return name


def words_of(text: str, needed: bool = False) -> str:
    """What a person says of an alert, if it can be kept."""
    text = _kept(text)
    if len(text) > MOST_WORDS:
        raise Mistake(f"a note or comment has at most {MOST_WORDS} characters; this one has {len(text)}")
    if needed and not text:
        raise Mistake("a comment needs words")
    return text


def _kept(text: str) -> str:
    text = text.strip()
    if any(category(c) in ("Cc", "Cs") and c not in "\n\t" for c in text):
        raise Mistake("a name, note or comment is plain text, without control characters")
    return text


def printable(payload: bytes) -> str:
    """Bytes as text that is safe in a terminal and in a page."""
    text = payload[:SHOWN_BYTES].decode("utf-8", errors="backslashreplace")
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown + (f" … ({len(payload)} bytes)" if len(payload) > SHOWN_BYTES else "")


