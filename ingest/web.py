"""The worker's own web server: health, metrics, the JSON interface, and the page.

It listens on loopback unless it is told otherwise; `web_access.py` says who may ask. Reads come from memory, the journal (through the core's thread) and the
embedded store; nothing here decides anything.
"""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import uvicorn
from prometheus_client import generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ingest import boards, observe
from ingest.embedded.page import CONTENT_SECURITY_POLICY, STATIC
from ingest.errors import Mistake, NoRoom
from ingest.journal.alerts import ATTENTION
from ingest.views import Views
from ingest.web_access import Access, OnlyWithAccess
from ingest.web_connection import MOST_AT_ONCE, Connection, Server

BEAT_S = 5.0
MOST_BODY = 1 << 18
MOST_READERS, MOST_ASKED = 2, 8
PATIENCE_S = 10.0
LOOK_S = 0.25
FOREIGN = "the header X-Microcurrent is missing; another site may be asking"
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS), status, media_type="application/json")


def _wrong(sentence: str, status: int = 400) -> Response:
    return _json({"error": sentence}, status)


class _SecureHeaders:
    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        async def with_headers(message: dict) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((k.lower().encode(), v.encode()) for k, v in _HEADERS.items())]
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


class _OneLength:
    """Refuses a request that says twice how long it is: a proxy in front may have gone by the other word, and what is left
    over would be taken for the next request on a connection that several people share (RFC 9112, 6.1)."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope["headers"]}:
            refused = _wrong("a request has one length")
            refused.headers["Connection"] = "close"
            await refused(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class _Bounded:
    """Reads no body to its end that is longer than anything that can be asked for."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        read = 0

        async def so_far() -> dict:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MOST_BODY:
                raise HTTPException(413, "this is more than can be asked for")
            return message

        await self._app(scope, so_far, send)


def _hung_up(request: Request, error: Exception) -> Response:
    """Nobody waits for this answer, and it is nothing to log."""
    return _wrong("the request ended in the middle")


class _Noted(logging.Handler):
    """What the server says of a failure is a line of the log like any other."""

    def emit(self, record: logging.LogRecord) -> None:
        observe.log().error("page_failed", detail=record.getMessage(), exc_info=record.exc_info)


def application(views: Views, allowed_hosts: list[str], ending: threading.Event, access: Access) -> Starlette:
    """All routes over one worker's views. Streams end soon after `ending` is set."""

    desk = _Desk()

    async def call(work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)

    async def overview(request: Request) -> Response:
        return _json(await call(views.overview))

    async def devices(request: Request) -> Response:
        return _json(await call(views.devices))

    async def alerts(request: Request) -> Response:
        try:
            return _json(await call(views.alerts, request.query_params))
        except Mistake as mistake:
            return _wrong(str(mistake))

    async def alert(request: Request) -> Response:
        found = await call(views.alert, request.path_params["id"])
        return _json(found) if found else _wrong("no such alert", 404)

    def act(work: Any, **fields: str | None) -> Any:
        """A person's act on an alert: a POST of these texts, and of no others; None marks one that must be there."""

        async def answer(request: Request) -> Response:
            if "x-microcurrent" not in request.headers:
                return _wrong(FOREIGN, 403)
            texts = _texts(await request.body(), fields)
            if texts is None:
                wanted = ", ".join(f"{name!r}" + ("" if default is None else " (optional)") for name, default in fields.items())
                return _wrong(f"send a JSON object of texts: {wanted}")
            try:
                found = await call(work, request.path_params["id"], *texts)
            except Mistake as mistake:
                return _wrong(str(mistake))
            except NoRoom as error:
                return _wrong(str(error), 503)
            return _json(found) if found else _wrong("no such alert", 404)

        return answer

    async def resend(request: Request) -> Response:
        if "x-microcurrent" not in request.headers:
            return _wrong(FOREIGN, 403)
        try:
            return _json(await call(views.resend))
        except NoRoom as error:
            return _wrong(str(error), 503)

    async def dashboards(request: Request) -> Response:
        return _json(boards.listed())

    async def dashboard(request: Request) -> Response:
        try:
            return _json(boards.definition(request.path_params["uid"]))
        except Mistake as mistake:
            return _wrong(str(mistake), 404)

    async def board(request: Request) -> Response:
        try:
            wanted = boards.dashboard_of(request.path_params["uid"])
        except Mistake as mistake:
            return _wrong(str(mistake), 404)
        try:
            view = boards.read_view(wanted, request.query_params.multi_items(), views.now_ms())
        except Mistake as mistake:
            return _wrong(str(mistake))
        reader = views.reader()
        if reader is None:
            return _wrong(boards.ELSEWHERE, 404)
        return await desk.answer(request, reader, lambda: views.board(wanted, view, reader))

    async def quarantine(request: Request) -> Response:
        try:
            return _json(await call(views.quarantine, request.query_params))
        except Mistake as mistake:
            return _wrong(str(mistake))

    async def security(request: Request) -> Response:
        try:
            return _json(await call(views.security, request.query_params))
        except Mistake as mistake:
            return _wrong(str(mistake))

    async def quarantined(request: Request) -> Response:
        found = await call(views.quarantined, request.path_params["id"])
        return _json(found) if found else _wrong("no such entry", 404)

    def handle(work: Any, *texts: str) -> Any:
        """A person's act on refused messages: a POST of {"which": …} and of these texts."""

        async def answer(request: Request) -> Response:
            if "x-microcurrent" not in request.headers:
                return _wrong(FOREIGN, 403)
            said = _object(await request.body())
            which = said.pop("which", None)
            if not isinstance(which, dict) or set(said) - set(texts) or not all(isinstance(text, str) for text in said.values()):
                return _wrong("send a JSON object: 'which', an object, and the texts " + ", ".join(texts))
            try:
                return _json(await call(work, which, *(said.get(name, "") for name in texts)))
            except Mistake as mistake:
                return _wrong(str(mistake))

        return answer

    async def begin_reconcile(request: Request) -> Response:
        if "x-microcurrent" not in request.headers:
            return _wrong(FOREIGN, 403)
        texts = _texts(await request.body(), {"device": ""})
        if texts is None:
            return _wrong("send a JSON object of texts: 'device' (optional)")
        try:
            return _json(await call(views.begin_reconcile, texts[0] or None))
        except Mistake as mistake:
            return _wrong(str(mistake), 409)

    async def reconciled(request: Request) -> Response:
        found = views.reconciled(request.path_params["name"])
        return _json(found) if found else _wrong("no such comparison", 404)

    async def live(request: Request) -> Response:
        async def events() -> Any:
            said: bytes | None = None
            while not ending.is_set() and not await request.is_disconnected():
                yield _event("overview", orjson.dumps(await call(views.overview)))
                yield _event("devices", orjson.dumps(await call(views.devices)))
                opened = orjson.dumps(await call(views.alerts, {"state": ATTENTION, "limit": "1000"}))
                if opened != said:
                    said = opened
                    yield _event("alerts", opened)
                await asyncio.sleep(1.0)

        return StreamingResponse(events(), media_type="text/event-stream")

    async def healthz(request: Request) -> Response:
        late = time.monotonic() - views.worker.core.beat > BEAT_S
        challenge = request.query_params.get("challenge", "")
        whose = {"proof": access.proof(challenge)} if 16 <= len(challenge) <= 128 else {}
        return _json({"error": "the core has not moved for 5 s", **whose}, 503) if late else _json({"ok": True, **whose})

    async def readyz(request: Request) -> Response:
        link = views.worker.receiver.link
        return _json({"ok": True}) if link.connected else _wrong("not subscribed at the broker" if access.closed else link.detail, 503)

    async def metrics(request: Request) -> Response:
        await call(views.refresh_gauges)
        return Response(generate_latest(observe.REGISTRY), media_type="text/plain; version=0.0.4")

    async def login(request: Request) -> Response:
        return FileResponse(STATIC / "login.html")

    routes = [
        Route("/login", login),
        Route("/login", access.log_in, methods=["POST"]),
        Route("/api/overview", overview),
        Route("/api/devices", devices),
        Route("/api/dashboards", dashboards),
        Route("/api/dashboards/{uid}", dashboard),
        Route("/api/dashboards/{uid}/data", board),
        Route("/api/alerts", alerts),
        Route("/api/alerts/{id}", alert),
        Route("/api/alerts/{id}/ack", act(views.acknowledge, by=None, note=""), methods=["POST"]),
        Route("/api/alerts/{id}/assign", act(views.assign, to=None, by=None, note=""), methods=["POST"]),
        Route("/api/alerts/{id}/comment", act(views.comment, by=None, text=None), methods=["POST"]),
        Route("/api/webhook/resend", resend, methods=["POST"]),
        Route("/api/security", security),
        Route("/api/quarantine", quarantine),
        Route("/api/quarantine/{id:int}", quarantined),
        Route("/api/quarantine/preview", handle(views.would_replay), methods=["POST"]),
        Route("/api/quarantine/replay", handle(views.replay, "by", "note"), methods=["POST"]),
        Route("/api/quarantine/discard", handle(views.discard, "by", "note"), methods=["POST"]),
        Route("/api/reconcile", begin_reconcile, methods=["POST"]),
        Route("/api/reconcile/{name}", reconciled),
        Route("/api/live", live),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
        Mount("/", StaticFiles(directory=STATIC, html=True)),
    ]
    # A page of another site must not reach this one by a name of its own.
    trusted = Middleware(TrustedHostMiddleware, allowed_hosts=allowed_hosts)
    gates = [Middleware(_SecureHeaders), Middleware(_OneLength), trusted, Middleware(OnlyWithAccess, access=access), Middleware(_Bounded)]
    return Starlette(routes=routes, middleware=gates, exception_handlers={ClientDisconnect: _hung_up})


def _names(host: str, allowed: str) -> list[str]:
    """What may stand in the address of a request."""
    if allowed:
        return allowed.split(",")
    return ["localhost", "127.0.0.1", "[::1]", host] if host in ("127.0.0.1", "::1", "localhost") else ["*"]


def _event(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def _object(body: bytes) -> dict[str, Any]:
    """A JSON object; an empty one if it is none."""
    try:
        said = orjson.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _texts(body: bytes, fields: dict[str, str | None]) -> list[str] | None:
    """The texts of a JSON object in the order of the fields; None if it does not hold them."""
    try:
        said = orjson.loads(body)
    except ValueError:
        return None
    if not isinstance(said, dict) or set(said) - set(fields):
        return None
    texts = [said.get(name, default) for name, default in fields.items()]
    return texts if all(isinstance(text, str) for text in texts) else None


def _whole(text: str | None, default: int, low: int, high: int) -> int:
    try:
        return min(high, max(low, int(text))) if text else default
    except ValueError:
        return default


class _Desk:
    """Where dashboards are asked for: few at a time, so that nobody's questions hold up the worker."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(MOST_READERS, thread_name_prefix="boards")
        self._asked = 0

    async def answer(self, request: Request, reader: Any, work: Callable[[], Any]) -> Response:
        """Its JSON. What takes too long, or is waited for no more, is ended: the reader then says so, panel by panel."""
        if self._asked >= MOST_ASKED:
            reader.close()
            return _wrong("too many dashboards are asked for at once; ask again in a few seconds", 503)
        self._asked += 1
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE_S
        try:
            answer = loop.run_in_executor(self._threads, lambda: _json(work()))
            while not (await asyncio.wait({answer}, timeout=LOOK_S))[0]:
                if loop.time() > until or await request.is_disconnected():
                    reader.stop()
            return answer.result()
        finally:
            self._asked -= 1


class Web:
    """The server in a thread of its own."""

    def __init__(self, worker: Any) -> None:
        self._settings = worker.settings
        self._views = Views(worker)
        self._ending = threading.Event()
        self._access = Access(worker.settings, worker.core.security, worker.clock)

    def start(self) -> str:
        """Bind and serve; returns the address. A taken port is a Mistake."""
        host, port = self._settings.http_host, self._settings.http_port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError as error:
            sock.close()
            raise Mistake(
                f"page: cannot listen on {host}:{port} ({error.strerror}); stop what uses it, or set MICROCURRENT_HTTP_PORT"
            ) from error
        app = application(self._views, _names(host, self._settings.http_allowed_hosts), self._ending, self._access)
        said = logging.getLogger("uvicorn")
        said.handlers, said.propagate = [_Noted()], False
        # Nobody's word is taken for where a request comes from: tries are counted by it.
        config = uvicorn.Config(
            app, http=Connection, backlog=MOST_AT_ONCE, ws="none", log_config=None, log_level="error", access_log=False, lifespan="off",
            timeout_graceful_shutdown=2, proxy_headers=False,
        )  # fmt: skip
        self._server = Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([sock],), name="web", daemon=True)
        self._thread.start()
        near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # who listens everywhere is asked at loopback
        shown = f"[{near}]" if ":" in near else near
        return f"http://{shown}:{sock.getsockname()[1]}"

    def stop(self) -> None:
        self._ending.set()
        self._server.should_exit = True
        self._thread.join(3.0)
