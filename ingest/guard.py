"""The thread that brings the core what other processes saw: the supervisor, commands, and the broker's log."""

import threading

from ingest.broker_log import MosquittoLog
from ingest.clock import Clock
from ingest.handover import Handover
from ingest.security import SecurityLog
from ingest.settings import Settings
from ingest.tail import Tail

LOOK_S = 0.5


class Guard:
    """Looks twice a second; it holds nothing up and nothing waits for it."""

    def __init__(self, settings: Settings, security: SecurityLog, clock: Clock) -> None:
        self._security = security
        self._clock = clock
        self._handover = Handover(settings.data_dir, security)
        paths = [path for path in (settings.mqtt_log_file, settings.credentials_log_file) if path]
        self._logs = [(Tail(path), MosquittoLog()) for path in paths]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="guard", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(3.0)
        for tail, _ in self._logs:
            tail.close()

    def look(self) -> None:
        self._handover.look()
        now_ms = self._clock.now_ms()
        for tail, log in self._logs:
            for line in tail.lines():
                if seen := log.read(line):
                    self._security.note(seen.kind, now_ms, seen.who, seen.source, seen.detail)

    def _run(self) -> None:
        while True:
            self.look()
            if self._stopping.wait(LOOK_S):
                return
