"""How the commands reach a worker's data: through the running worker, or straight from its files."""

import hmac
import http.client
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlencode, urlsplit

from ingest.errors import Mistake
from ingest.journal import FILE_NAME
from ingest.settings import Settings
from ingest.tokens import command_token, proof

LOOK_S = 0.1
ADDRESS_FILE = "worker.json"


class Records(Protocol):
    """What the commands ask for."""

    running: bool

    def overview(self) -> dict[str, Any]: ...
    def devices(self) -> dict[str, Any]: ...
    def alerts(self, words: Mapping[str, str]) -> dict[str, Any]: ...
    def alert(self, alert_id: str) -> dict[str, Any] | None: ...
    def acknowledge(self, alert_id: str, by: str, note: str) -> dict[str, Any] | None: ...
    def assign(self, alert_id: str, to: str, by: str, note: str) -> dict[str, Any] | None: ...
    def comment(self, alert_id: str, by: str, text: str) -> dict[str, Any] | None: ...
    def resend(self) -> dict[str, int]: ...
    def security(self, words: Mapping[str, str]) -> dict[str, Any]: ...
    def quarantine(self, words: Mapping[str, str]) -> dict[str, Any]: ...
    def quarantined(self, entry_id: int) -> dict[str, Any] | None: ...
    def would_replay(self, which: Mapping[str, Any]) -> dict[str, Any]: ...
    def replay(self, which: Mapping[str, Any], by: str, note: str) -> dict[str, Any]: ...
    def discard(self, which: Mapping[str, Any], by: str, note: str) -> dict[str, Any]: ...
    def reconcile(self, device_id: str | None = None, progress: Callable[[float], None] = ...) -> dict[str, Any]: ...


class Remote:
    """The running worker, over its loopback interface."""

    running = True

    def __init__(self, address: str, token: str | None = None) -> None:
        self.url = address
        self._token = token
        self._address = urlsplit(address)

    def _call(self, method: str, path: str, query: dict[str, Any] | None = None, body: dict | None = None, timeout_s: float = 30) -> Any:
        given = {name: value for name, value in (query or {}).items() if value is not None}
        connection = http.client.HTTPConnection(self._address.hostname, self._address.port, timeout=timeout_s)
        shown = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            connection.request(
                method,
                path + ("?" + urlencode(given) if given else ""),
                body=json.dumps(body) if body is not None else None,
                headers={"X-Microcurrent": "command", "Content-Type": "application/json", **shown},
            )
            answer = connection.getresponse()
            said = answer.read()
            content = json.loads(said) if answer.status != 404 and said else None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Mistake(f"{self._address.geturl()}: the worker does not answer ({error}); is it still running?", 1) from error
        finally:
            connection.close()
        if answer.status == 404:
            return None
        if answer.status >= 400:
            raise Mistake(f"the worker refused: {content.get('error', answer.reason)}", 1)
        return content

    def overview(self) -> dict[str, Any]:
        return self._call("GET", "/api/overview")

    def devices(self) -> dict[str, Any]:
        return self._call("GET", "/api/devices")

    def alerts(self, words: Mapping[str, str]) -> dict[str, Any]:
        return self._call("GET", "/api/alerts", dict(words))

    def alert(self, alert_id: str) -> dict[str, Any] | None:
        return self._call("GET", f"/api/alerts/{quote(alert_id, safe='')}")

    def acknowledge(self, alert_id: str, by: str, note: str) -> dict[str, Any] | None:
        return self._act(alert_id, "ack", by=by, note=note)

    def assign(self, alert_id: str, to: str, by: str, note: str) -> dict[str, Any] | None:
        return self._act(alert_id, "assign", to=to, by=by, note=note)

    def comment(self, alert_id: str, by: str, text: str) -> dict[str, Any] | None:
        return self._act(alert_id, "comment", by=by, text=text)

    def resend(self) -> dict[str, int]:
        return self._call("POST", "/api/webhook/resend", body={})

    def _act(self, alert_id: str, act: str, **said: str) -> dict[str, Any] | None:
        return self._call("POST", f"/api/alerts/{quote(alert_id, safe='')}/{act}", body=said)

    def security(self, words: Mapping[str, str]) -> dict[str, Any]:
        return self._call("GET", "/api/security", dict(words))

    def quarantine(self, words: Mapping[str, str]) -> dict[str, Any]:
        return self._call("GET", "/api/quarantine", dict(words))

    def quarantined(self, entry_id: int) -> dict[str, Any] | None:
        return self._call("GET", f"/api/quarantine/{entry_id}")

    def would_replay(self, which: Mapping[str, Any]) -> dict[str, Any]:
        return self._call("POST", "/api/quarantine/preview", body={"which": which})

    def replay(self, which: Mapping[str, Any], by: str, note: str) -> dict[str, Any]:
        return self._call("POST", "/api/quarantine/replay", body={"which": which, "by": by, "note": note})

    def discard(self, which: Mapping[str, Any], by: str, note: str) -> dict[str, Any]:
        return self._call("POST", "/api/quarantine/discard", body={"which": which, "by": by, "note": note})

    def reconcile(self, device_id: str | None = None, progress: Callable[[float], None] = lambda part: None) -> dict[str, Any]:
        begun = self._call("POST", "/api/reconcile", body={"device": device_id or ""})
        while (seen := self._call("GET", f"/api/reconcile/{begun['comparison']}")) is not None:
            if seen["error"]:
                raise Mistake(seen["error"], 1)
            if seen["found"]:
                return seen["found"]
            progress(seen["part"])
            time.sleep(LOOK_S)
        raise Mistake(f"{self.url}: the worker has been started again meanwhile; ask again", 1)


def _is_worker_of(data_dir: Path, address: str) -> bool:
    """Whether what answers there is the worker of this directory, and not another program on its old port.

    It proves that it knows the token, which is then shown to it and to nobody else.
    """
    token = command_token(data_dir)
    if token is None:
        return False
    parts, challenge = urlsplit(address), secrets.token_urlsafe(16)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=5)
    try:
        connection.request("GET", f"/healthz?challenge={challenge}")
        answer = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        connection.close()
    said = answer.get("proof") if isinstance(answer, dict) else None
    return isinstance(said, str) and hmac.compare_digest(said.encode(), proof(token, challenge).encode())


def address_of(data_dir: Path) -> str | None:
    """Where the worker of a data directory answers, if it runs."""
    try:
        address = json.loads((data_dir / ADDRESS_FILE).read_text())["address"]
    except (OSError, ValueError, KeyError):
        return None
    return address if _is_worker_of(data_dir, address) else None


@contextmanager
def records(settings: Settings) -> Iterator[Records]:
    """The running worker's records, or those of a stopped one."""
    address = address_of(settings.data_dir)
    if address is not None:
        yield Remote(address, command_token(settings.data_dir))
        return
    if not (settings.data_dir / FILE_NAME).exists():
        raise Mistake(
            f"{settings.data_dir}: no worker runs here and there is no journal; start one with 'microcurrent run', "
            "or name its data directory with --data-dir"
        )
    from ingest.app import build
    from ingest.views import Views

    worker = build(settings, connect=False)
    thread = threading.Thread(target=worker.core.run, name="core", daemon=True)
    thread.start()
    try:
        views = Views(worker)
        views.running = False
        yield views
    finally:
        worker.core.stop()
        thread.join(10.0)
        worker.sink.close()
        worker.journal.close()
