"""Empty the outbox into the store: one request at a time, for as long as it takes."""

import os
import random
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass

from ingest import failpoints, observe
from ingest.admit import fingerprint
from ingest.errors import BucketAtFault, Unavailable
from ingest.pipeline import Core
from ingest.sink import RefusedEntry, Sink

PROBE = 20
"""Entries in a write while the store is failing."""

WIDER_PROBE = 200
"""Entries in a write while the store is failing and has refused some: fewer may all be of one device, and only many tell whether
it is at fault or the store."""

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
FORGET_EVERY_S = 3_600.0
"""How often what is too old is looked for."""

DAY_MS = 86_400_000
GATHER_S = 0.1
"""How far apart writes are while less than a full one waits: a small one costs almost as much as a large one."""


@dataclass(slots=True)
class StoreState:
    ok: bool = True
    detail: str = "no write yet"


class Drain:
    """The writer thread. What the store has not confirmed stays in the outbox."""

    def __init__(self, core: Core, sink: Sink, batch: int, retention_days: int, summary_retention_days: int) -> None:
        self._core = core
        self._sink = sink
        self._batch = batch
        self._retention_days = retention_days
        self._summary_retention_days = summary_retention_days
        self._forget_at = 0.0
        self._upto = 0
        self._failures = 0
        self._doubted: set[int] | None = None
        self._stopping = threading.Event()
        self.state = StoreState()
        self._thread = threading.Thread(target=self._guarded, name="store", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, deadline_s: float) -> None:
        self._stopping.set()
        self._core.outbox_bell.set()
        self._thread.join(deadline_s)

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException:
            observe.log().exception("writer_died")
            os._exit(70)

    def _run(self) -> None:
        """The next batch is read, and the last one settled, while a write is under way."""
        self._open()
        settled: Future | None = None
        coming = self._read(self._upto)
        while not self._stopping.is_set():
            more_to_forget = self._forget()
            entries = coming.result()
            if not entries:
                self._core.outbox_bell.wait(0.0 if more_to_forget else 1.0)
                self._core.outbox_bell.clear()  # before reading: what comes from here on rings again
                coming = self._read(self._upto)
                continue
            began, is_full = time.monotonic(), len(entries) >= self._batch
            if is_full:
                coming = self._read(entries[-1].id)
            failpoints.reach("write-begun")
            try:
                refused = self._sink.write(entries)
            except Unavailable as error:
                self._wait_out(error)
                coming = self._read(self._upto)
                continue
            failpoints.reach("written")
            if self._is_doubtful(refused):
                coming = self._read(self._upto)
                continue
            if settled is not None:
                settled.result()
                failpoints.reach("settled")
            settled = self._core.request(
                lambda e=entries, r=refused: self._core.settle(e, r, fingerprint), write=True
            )
            self._upto = entries[-1].id
            self._is_back()
            if not is_full:
                self._stopping.wait(max(0.0, began + GATHER_S - time.monotonic()))
                coming = self._read(self._upto)

    def _open(self) -> None:
        """A store that could not be opened at the start, for want of room."""
        while not self._stopping.is_set() and not self._sink.is_open:
            try:
                upto = self._sink.open(self._core.journal.uuid)
            except Unavailable as error:
                self._wait_out(error)
                continue
            if upto is not None:
                self._core.request(lambda upto=upto: self._core.settle_upto(upto), write=True).result()

    def _forget(self) -> bool:
        """A piece of what is too old is deleted between two writes; whether there is more."""
        if time.monotonic() < self._forget_at or self._core.clock_doubted:
            return False
        now_ms = self._core.clock.now_ms()
        if self._sink.forget(now_ms - self._retention_days * DAY_MS, now_ms - self._summary_retention_days * DAY_MS):
            return True
        failpoints.reach("store-forgot")
        self._forget_at = time.monotonic() + FORGET_EVERY_S
        return False

    def _read(self, after: int) -> Future:
        most = self._batch if not self._failures else PROBE if self._doubted is None else WIDER_PROBE
        return self._core.request(lambda: self._core.journal.outbox_after(after, most))

    def _is_doubtful(self, refused: list[RefusedEntry]) -> bool:
        """While the store is failing, an entry is at fault when a wider probe was refused it twice: what is refused once may
        have met a bucket at fault, of which the probe said too little or which was mended in the middle of it."""
        if not self._failures or not refused:
            return False
        before, now = self._doubted, {each.entry.id for each in refused}
        self._doubted = set() if before is None else before | now
        return before is None or not now <= before

    def _is_back(self) -> None:
        if not self.state.ok:
            observe.log().info("store_back", store=self._sink.name)
        self._failures, self._doubted = 0, None
        self.state = StoreState(True, "writing")
        observe.STORE_OK.set(1)

    def _wait_out(self, error: Unavailable) -> None:
        self._failures += 1
        self._doubted = set() if isinstance(error, BucketAtFault) else None
        observe.SINK_FAILURES.inc()
        observe.STORE_OK.set(0)
        if self.state.ok or self.state.detail != str(error):
            observe.log().warning("store_lost", store=self._sink.name, detail=str(error))
        self.state = StoreState(False, str(error))
        delay_s = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(self._failures - 1, 8)) * random.uniform(0.5, 1.0)
        until = time.monotonic() + (error.retry_after_s if error.retry_after_s is not None else delay_s)
        while not self._stopping.is_set() and (left := until - time.monotonic()) > 0:
            self._stopping.wait(min(left, 0.5))
