"""Who may use the page, the JSON interface and the metrics.

On loopback everybody on this machine may, unless there is a password or a token. Elsewhere nobody may without one.
People log in with the password and get a cookie; programs send the token; commands send one that only this user can
read. Ten wrong tries a minute from one source are looked at; a login that stands is never shut out by those.
"""

import hashlib
import hmac
import secrets
import time
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ingest.clock import Clock
from ingest.files import write_private
from ingest.security import SecurityLog
from ingest.settings import Settings, read_secret
from ingest.throttle import Throttle, source_of
from ingest.tokens import TOKEN_FILE, check_access, proof
from schemas.security import SecurityKind

COOKIE = "microcurrent"
SESSION_S = 12 * 3600
MOST_BODY = 4_096
OPEN = frozenset({"/healthz", "/readyz", "/login", "/login.html", "/login.js", "/style.css", "/icon.svg", "/js/theme.js"})
"""What nobody needs a login for: to log in, and to be asked whether it lives."""

SESSIONS_FILE = "page-sessions"
LOG_IN = "log in first, or send the token of MICROCURRENT_HTTP_TOKEN_FILE as 'Authorization: Bearer …'"
TOO_OFTEN = "too many wrong tries from this address; wait a minute"


class Access:
    """Decides who is asking. In the web server's thread only."""

    def __init__(self, settings: Settings, security: SecurityLog, clock: Clock) -> None:
        check_access(settings)
        self._security = security
        self._clock = clock
        self._password = read_secret(settings.http_password_file, "the page's password")
        self._program_token = read_secret(settings.http_token_file, "the token of programs")
        self.closed = bool(self._password or self._program_token)
        self._command_token = _kept(settings.credentials_dir / TOKEN_FILE, lambda: f"{secrets.token_hex(8)}.{secrets.token_urlsafe(32)}")
        sessions = _kept(settings.credentials_dir / SESSIONS_FILE, lambda: secrets.token_urlsafe(32))
        self._key = hmac.new(sessions.encode(), (self._password or "").encode(), hashlib.sha256).digest()
        self._wrong = Throttle()

    def proof(self, challenge: str) -> str:
        return proof(self._command_token, challenge)

    def refusal(self, request: Request) -> Response | None:
        """None for whoever may go on; else what to answer."""
        if not self.closed:
            return None
        said = request.headers.get("authorization", "")
        if said[:7].lower() == "bearer ":
            return self._refused_token(request, said[7:].strip())
        if self._has_session(request):
            return None
        if request.url.path == "/":
            return RedirectResponse("login", 303)
        return _answer(LOG_IN, 401, {"WWW-Authenticate": "Bearer"})

    async def log_in(self, request: Request) -> Response:
        """A POST of {"password": …}; the answer carries the cookie."""
        if "x-microcurrent" not in request.headers:
            return _answer("the header X-Microcurrent is missing; another site may be asking", 403)
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > MOST_BODY:
                return _answer("no password is that long", 413)
        source, now_s = _source(request), time.monotonic()
        if self._wrong.shut(source, now_s):
            return self._throttled(source)
        try:
            password = orjson.loads(body)["password"]
        except (ValueError, TypeError, KeyError):
            return _answer("send a JSON object: {\"password\": …}", 400)
        if self._password is None:
            return _answer("there is no password here; a program can send the token", 403)
        if not isinstance(password, str) or not _same(password, self._password):
            return self._failed(source, source, now_s, "wrong password at the page")
        answer = Response(b"{}", media_type="application/json")
        secure = request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
        answer.set_cookie(COOKIE, self._session(), max_age=SESSION_S, httponly=True, samesite="strict", secure=secure, path="/")
        return answer

    # -- parts ----------------------------------------------------------------------------------

    def _refused_token(self, request: Request, token: str) -> Response | None:
        source, now_s = _source(request), time.monotonic()
        # A command's token begins with a name that nobody else knows: its tries are counted apart.
        name = self._command_token.partition(".")[0]
        counted = name if _same(token.partition(".")[0], name) else source
        if self._wrong.shut(counted, now_s):
            return self._throttled(source)
        right = _same(token, self._command_token) | _same(token, self._program_token or secrets.token_urlsafe(32))
        return None if right else self._failed(counted, source, now_s, "wrong token at the interface")

    def _failed(self, counted: str, source: str, now_s: float, detail: str) -> Response:
        self._wrong.failed(counted, now_s)
        self._security.note(SecurityKind.AUTH_FAILURE, self._clock.now_ms(), source=source, detail=detail)
        return _answer("that is not right", 401)

    def _throttled(self, source: str) -> Response:
        self._security.note(SecurityKind.THROTTLED, self._clock.now_ms(), source=source, detail="at the page")
        return _answer(TOO_OFTEN, 429, {"Retry-After": "60"})

    def _session(self) -> str:
        said = f"{int(time.time()) + SESSION_S}.{secrets.token_urlsafe(12)}"
        return f"{said}.{self._signed(said)}"

    def _has_session(self, request: Request) -> bool:
        try:
            cookies = SimpleCookie(request.headers.get("cookie", ""))
        except CookieError:
            return False
        value = cookies[COOKIE].value if COOKIE in cookies else ""
        said, _, signed = value.rpartition(".")
        until = said.partition(".")[0]
        fresh = until.isascii() and until.isdigit() and len(until) < 16 and int(until) > time.time()
        return self._password is not None and _same(signed, self._signed(said)) and fresh

    def _signed(self, said: str) -> str:
        return hmac.new(self._key, said.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


class OnlyWithAccess:
    """Lets a request through, or answers it."""

    def __init__(self, app: Any, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN:
            refusal = self._access.refusal(Request(scope, receive))
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _same(said: str, wanted: str) -> bool:
    """In a time that says nothing of either, their lengths included."""
    return hmac.compare_digest(hashlib.sha256(said.encode("utf-8", "replace")).digest(), hashlib.sha256(wanted.encode()).digest())


def _source(request: Request) -> str:
    return source_of(request.client.host) if request.client else ""


def _answer(sentence: str, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps({"error": sentence}), status, headers, media_type="application/json")


def _kept(path: Path, make: Any) -> str:
    if not path.exists():
        write_private(path, make())
    return path.read_text().strip()
