"""Post what the webhook is owed: in order, one request at a time, signed, for as long as it takes.

What is owed is in the journal since the transaction that made it; here is only the way out. It has a
thread and connections of its own, so a receiver that is slow, silent or gone delays nothing else.
"""

import base64
import hmac
import http.client
import os
import random
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import StrEnum
from hashlib import sha256
from importlib.metadata import version
from urllib.parse import unquote, urlsplit

from ingest import failpoints, observe
from ingest.errors import EXIT_THREAD, Mistake, Unavailable
from ingest.journal.webhook import WebhookEntry
from ingest.notices import WebhookTerms
from ingest.pipeline import Core
from ingest.settings import Settings, read_secret

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 300.0
LONGEST_RETRY_AFTER_S = 3_600.0
LOOK_AGAIN_S = 5.0
MAY_HEAL = frozenset({408, 425, 429})


class Outcome(StrEnum):
    DELIVERED = "delivered"
    REFUSED = "refused"
    LATER = "later"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one attempt. `detail` holds no secret: neither path nor query of the address."""

    outcome: Outcome
    detail: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Target:
    url: str = field(repr=False)
    secret: bytes | None = field(repr=False)
    timeout_s: float

    @property
    def place(self) -> str:
        """The part of the address that may be shown."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"


@dataclass(slots=True)
class NotifierState:
    ok: bool = True
    detail: str = "nothing sent yet"


def is_configured(settings: Settings) -> bool:
    return bool(settings.webhook_url or settings.webhook_url_file)


def terms_of(settings: Settings) -> WebhookTerms | None:
    return WebhookTerms(settings.webhook_min_severity, settings.webhook_most) if is_configured(settings) else None


def target_of(settings: Settings) -> Target | None:
    """Where to post, or None if nowhere; an address or a key that cannot be used is a Mistake."""
    if not is_configured(settings):
        return None
    if settings.webhook_url and settings.webhook_url_file:
        raise Mistake("the webhook's address is set twice; keep MICROCURRENT_WEBHOOK_URL or MICROCURRENT_WEBHOOK_URL_FILE")
    url = settings.webhook_url or read_secret(settings.webhook_url_file, "the webhook's address") or ""
    where = settings.webhook_url_file or "MICROCURRENT_WEBHOOK_URL"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        usable = False
    if not usable:
        raise Mistake(f"{where}: not an address that can be posted to; write http://… or https://… with a host")
    secret = read_secret(settings.webhook_secret_file, "the webhook's key")
    return Target(url, secret.encode() if secret else None, settings.webhook_timeout_s)


def signature(secret: bytes, at_s: int, body: bytes) -> str:
    """`t=<unix s>,v1=<hex HMAC-SHA256 of "<t>.<body>">`: the receiver can tell who posts, and when it was posted."""
    return f"t={at_s},v1={hmac.new(secret, b'%d.' % at_s + body, sha256).hexdigest()}"


class Attempt:
    """One connection to the receiver, cut off when its time is over however slowly it still speaks."""

    def __init__(self, target: Target) -> None:
        self._target = target
        parts = urlsplit(target.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=target.timeout_s)
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._cut_off = threading.Event()

    def post(self, entry: WebhookEntry, at_s: int) -> Answer:
        """Send one entry. The answer's body is not read, and where it points is not followed."""
        timer = threading.Timer(self._target.timeout_s, self.cut)
        timer.daemon = True
        timer.start()
        place = self._target.place
        try:
            self._connection.request("POST", self._path, entry.payload, self._headers(entry, at_s))
            response = self._connection.getresponse()
            status, reason, after = response.status, response.reason, response.getheader("Retry-After")
            if self._cut_off.is_set():  # a head that was cut looks like one that has ended
                raise TimeoutError
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Answer(Outcome.LATER, f"{place}: {self._why(error)}")
        finally:
            timer.cancel()
            self._connection.close()
        detail = f"{place}: {status} {reason}".strip()
        if 200 <= status < 300:
            return Answer(Outcome.DELIVERED, detail)
        if 400 <= status < 500 and status not in MAY_HEAL:
            return Answer(Outcome.REFUSED, detail)
        if 300 <= status < 400:
            detail += ", which is not followed; correct the address"
        return Answer(Outcome.LATER, detail, _seconds(after, at_s))

    def reach(self) -> None:
        """Connect and say nothing; Unavailable if that fails."""
        try:
            self._connection.connect()
        except (OSError, ValueError) as error:
            raise Unavailable(f"{self._target.place}: {self._why(error)}") from error
        finally:
            self._connection.close()

    def cut(self) -> None:
        self._cut_off.set()
        sock = self._connection.sock
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _why(self, error: Exception) -> str:
        if self._cut_off.is_set() or isinstance(error, TimeoutError):
            return f"no answer within {self._target.timeout_s:g} s"
        return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__

    def _headers(self, entry: WebhookEntry, at_s: int) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"microcurrent/{version('microcurrent-telemetry')}",
            "Idempotency-Key": entry.key,
            "X-Microcurrent-Event": entry.event,
            "Connection": "close",
        }
        parts = urlsplit(self._target.url)
        if parts.username is not None:
            both = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers["Authorization"] = "Basic " + base64.b64encode(both.encode()).decode()
        if self._target.secret is not None:
            headers["X-Microcurrent-Signature"] = signature(self._target.secret, at_s, entry.payload)
        return headers


class Notifier:
    """The posting thread. What the receiver has not confirmed stays in the journal."""

    def __init__(self, core: Core, target: Target) -> None:
        self._core = core
        self._target = target
        self._failures = 0
        self._attempt: Attempt | None = None
        self._stopping = threading.Event()
        self.state = NotifierState()
        self._thread = threading.Thread(target=self._guarded, name="webhook", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, deadline_s: float) -> None:
        """What is under way is broken off; its key lets the receiver know it when it comes again."""
        self._stopping.set()
        self._core.webhook_bell.set()
        attempt = self._attempt
        if attempt is not None:
            attempt.cut()
        self._thread.join(deadline_s)

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException:
            observe.log().exception("webhook_died")
            os._exit(EXIT_THREAD)

    def _run(self) -> None:
        while not self._stopping.is_set():
            entry = self._core.request(self._core.journal.owed).result()
            if entry is None:
                self._core.webhook_bell.wait(LOOK_AGAIN_S)
                self._core.webhook_bell.clear()  # before reading: what comes from here on rings again
                continue
            self._attempt = Attempt(self._target)
            failpoints.reach("webhook-posting")
            answer = self._attempt.post(entry, int(time.time()))
            failpoints.reach("webhook-answered")
            if self._stopping.is_set() and answer.outcome is Outcome.LATER:
                return
            observe.WEBHOOK_ANSWERS.labels(answer.outcome).inc()
            if answer.outcome is Outcome.LATER:
                self._wait_out(answer)
            else:
                self._settle(entry, answer)

    def _settle(self, entry: WebhookEntry, answer: Answer) -> None:
        self._failures = 0
        journal = self._core.journal
        if answer.outcome is Outcome.DELIVERED:
            if not self.state.ok:
                observe.log().info("webhook_back")
            now_ms = time.time_ns() // 1_000_000
            settled = self._core.request(lambda: journal.webhook_took(entry.id, now_ms), write=True)
        else:
            observe.log().error("webhook_refused", detail=answer.detail, step=entry.event)
            settled = self._core.request(lambda: journal.webhook_refused(entry.id, answer.detail), write=True)
        self.state = NotifierState(answer.outcome is Outcome.DELIVERED, answer.detail)
        settled.result()

    def _wait_out(self, answer: Answer) -> None:
        self._failures += 1
        if self.state.ok or self.state.detail != answer.detail:
            observe.log().warning("webhook_lost", detail=answer.detail)
        self.state = NotifierState(False, answer.detail)
        delay_s = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(self._failures - 1, 9)) * random.uniform(0.5, 1.0)
        self._stopping.wait(max(delay_s, answer.retry_after_s or 0.0))


def _seconds(retry_after: str | None, at_s: int) -> float | None:
    """A Retry-After header, as seconds or as a date, in seconds from now; None if it says nothing usable."""
    if retry_after is None:
        return None
    try:
        wait_s = float(retry_after) if retry_after.isdecimal() else parsedate_to_datetime(retry_after).timestamp() - at_s
    except (ValueError, OverflowError):
        return None
    return min(LONGEST_RETRY_AFTER_S, max(0.0, wait_s))
