"""Any request to the page is answered, none with a failure of ours, and none takes effect that should not."""

import http.client
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import hypothesis.strategies as st
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from structlog.testing import capture_logs

from dashboards.catalogue import DASHBOARDS
from ingest.app import build
from ingest.filters import WORDS
from ingest.settings import Settings
from ingest.web import MOST_BODY, Web
from schemas.topics import Stream
from tests.line import START_MS, Line, deliver, message, pulse
from tests.servers import LOOPBACK, accepts, wait_until

PATHS = (
    "/", "/api/overview", "/api/devices", "/api/security", "/api/dashboards", "/api/alerts", "/api/quarantine", "/api/reconcile", "/healthz", "/readyz", "/metrics", "/static/app.js",
    "/api/webhook/resend", "/login", "/api/quarantine/preview", "/api/quarantine/replay", "/api/quarantine/discard", "/api/reconcile/{}", *(f"/api/dashboards/{dashboard.uid}{end}" for dashboard in DASHBOARDS for end in ("", "/data")),
    *(f"/api/alerts/{{}}{end}" for end in ("", "/ack", "/assign", "/comment")), "/api/quarantine/{}", "/api/dashboards/{}", "/api/dashboards/{}/data", "/{}", "/static/{}", "/api/{}",
)  # fmt: skip
KEYS = (*WORDS, "reason", "kind", "from_ms", "to_ms", "points", "device_id", "ids", "offset")
characters = st.characters(codec="utf-8")
odd = st.sampled_from(
    ["", "0", "-1", "1", "9" * 30, "1e9", "NaN", "2h", "tone-1", "open", "..", "%2e%2e", "%00", "%ff", "%", "%zz", "'", '"', ";", "\\", "a/b", "<b>", "[", "{}", "null", "2026-11-20", "inf", "\u0661"]
)
texts = odd | st.text(characters, max_size=12)
which = st.fixed_dictionaries(
    {},
    optional={
        "ids": st.lists(st.integers(-1, 2**64) | texts | st.none() | st.booleans(), max_size=3) | texts | st.integers(0, 3),
        "words": st.dictionaries(st.sampled_from(KEYS) | texts, texts | st.integers(0, 3) | st.none(), max_size=3) | texts,
        "after": st.integers(-1, 2**64) | texts, "upto": st.integers(0, 9) | texts,
    },
).map(lambda said: {"which": said, "by": "me"})  # fmt: skip
bodies = st.one_of(
    which.map(lambda said: orjson.dumps(said) if "18446744073709551616" not in str(said) else b"{}"),
    st.binary(max_size=60),
    st.dictionaries(st.sampled_from(["by", "note", "to", "text", "ids", "reason", "x"]), texts | st.integers() | st.none() | st.lists(texts, max_size=3), max_size=5).map(
        lambda said: orjson.dumps({key: value if not isinstance(value, int) or abs(value) < 2**63 else None for key, value in said.items()})
    ),
)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The real page over a journal with something in it, without a broker."""
    directory: Path = tmp_path_factory.mktemp("page") / "data"
    directory.mkdir()
    with Line(directory) as line:
        line.run(deliver(Stream.CURRENT, message(Stream.CURRENT, 0, i_peak_ua=1_400.0, v_peak_mv=11_200.0)), deliver(Stream.CURRENT, b"\x1b[2J<b>"), pulse(START_MS + 9_000))
    worker = build(Settings(data_dir=directory, http_port=0, _env_file=None), connect=False)
    core = threading.Thread(target=worker.core.run, daemon=True)
    core.start()
    web = Web(worker)
    try:
        port = int(web.start().rsplit(":", 1)[1])
        wait_until(lambda: accepts(port), 20, "the page")
        yield port
    finally:
        web.stop()
        worker.core.stop()
        core.join(120)
        worker.sink.close()
        worker.journal.close()


def ask(port: int, request: bytes, *, ends: bool = False) -> tuple[int, bytes]:
    """(status, body) of one request as it stands; 0 if the connection is only closed. `ends`: nothing more will come."""
    with closing(socket.create_connection((LOOPBACK, port), timeout=120)) as connection:
        connection.sendall(request)
        if ends:
            connection.shutdown(socket.SHUT_WR)
        answer = http.client.HTTPResponse(connection, method=request[:4].strip().decode("latin-1"))
        try:
            answer.begin()
            return answer.status, answer.read()
        except (http.client.HTTPException, ConnectionError):
            return 0, b""


def written(method: str, target: str, body: bytes = b"", *, host: bytes = b"localhost", more: bytes = b"X-Microcurrent: 1\r\n") -> bytes:
    head = f"{method} ".encode() + target.encode() + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n" + more
    return head + (b"Content-Length: %d\r\n" % len(body) if body or method == "POST" else b"") + b"\r\n" + body


def quoted(text: str) -> str:
    """As a client writes it: what is not ASCII, and what would end the request line, in per cent."""
    return "".join(c if 0x21 <= ord(c) < 0x7F and c not in "#?&" else "".join(f"%{byte:02X}" for byte in c.encode()) for c in text)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "GET", "GET", "POST", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "X"]), path=st.sampled_from(PATHS), inner=texts,
    words=st.lists(st.tuples(st.sampled_from(KEYS) | texts, texts), max_size=4), body=bodies,
)  # fmt: skip
def test_any_request_is_answered_and_none_with_a_failure(port: int, method: str, path: str, inner: str, words: list[tuple[str, str]], body: bytes) -> None:
    target = path.replace("{}", quoted(inner)) + ("?" + "&".join(f"{quoted(key)}={quoted(value)}" for key, value in words) if words else "")
    status, said = ask(port, written(method, target, body if method in ("POST", "PUT") else b""))
    assert 200 <= status < 500 or (status, path) in {(503, "/readyz"), (503, "/healthz")}, (status, target, said[:300])


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=st.binary(max_size=200) | st.tuples(st.binary(max_size=30), st.integers(0, 120)).map(lambda drawn: written("GET", "/api/overview")[: drawn[1]] + drawn[0] + written("GET", "/")[drawn[1] :]))
def test_any_bytes_to_the_page_are_answered_or_closed(port: int, request: bytes) -> None:
    status, _ = ask(port, request, ends=True)
    assert status < 500
    assert 200 == ask(port, written("GET", "/api/dashboards"))[0]


def test_a_body_larger_than_anything_that_can_be_asked_for_is_not_read(port: int) -> None:
    body = b'{"by": "' + b"x" * MOST_BODY + b'"}'
    assert 413 == ask(port, written("POST", "/api/alerts/0123456789abcdef/ack", body))[0]
    small = b'{"by": "' + b"x" * 1_000 + b'"}'
    assert 400 == ask(port, written("POST", "/api/alerts/0123456789abcdef/ack", small))[0]


def test_a_body_that_ends_too_soon_is_nothing_to_log(port: int) -> None:
    with capture_logs() as said:
        for _ in range(5):
            with closing(socket.create_connection((LOOPBACK, port))) as connection:
                connection.sendall(written("POST", "/api/alerts/x/ack", b'{"by": "me"}')[:-5])
            assert 200 == ask(port, written("GET", "/api/dashboards"))[0]
    assert [] == said


@pytest.mark.parametrize("body", [b"0\r\n\r\n", b"2\r\n{}\r\n0\r\n\r\n"])
def test_what_follows_a_request_of_two_lengths_is_no_other_request(port: int, body: bytes) -> None:
    """A proxy that goes by the other length would hand over what is left as somebody else's."""
    head = written("POST", "/login", more=b"X-Microcurrent: 1\r\nTransfer-Encoding: chunked\r\n").replace(b"Connection: close\r\n", b"").replace(b": 0", b": 4")
    with closing(socket.create_connection((LOOPBACK, port), timeout=20)) as connection:
        connection.sendall(head + body + written("GET", "/metrics"))
        seen = b""
        while piece := connection.recv(1 << 16):
            seen += piece
    assert seen.startswith(b"HTTP/1.1 400") and seen.count(b"HTTP/1.1") == 1


def test_who_does_not_say_what_they_want_is_hung_up_on_and_who_looks_on_is_not(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.web_connection.REQUEST_S", 1.5)
    with ExitStack() as open_now:
        onlooker = open_now.enter_context(closing(socket.create_connection((LOOPBACK, port), timeout=20)))
        onlooker.sendall(written("GET", "/api/live"))
        assert onlooker.recv(12) == b"HTTP/1.1 200"
        waited_for = []
        for begun in (b"", b"GET /healthz HT", written("GET", "/healthz")[:-2], written("POST", "/login", b"{}")[:-1]):
            for known in (True, False):
                connection = open_now.enter_context(closing(socket.create_connection((LOOPBACK, port), timeout=20)))
                if known:
                    connection.sendall(written("GET", "/healthz").replace(b"close", b"keep-alive"))
                    served = http.client.HTTPResponse(connection)
                    served.begin()
                    assert served.status == 200 and served.read()
                connection.sendall(begun)
                waited_for.append(connection)
        assert all(hung_up(connection) for connection in waited_for)
        seen = b""
        while seen.count(b"event: overview") < 3:
            seen += onlooker.recv(1 << 20) or pytest.fail("who looks on was hung up on")


def hung_up(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_what_the_server_says_of_a_failure_is_an_event_like_any_other(port: int) -> None:
    with capture_logs() as said:
        try:
            raise ValueError("of\nmany\nlines")
        except ValueError:
            logging.getLogger("uvicorn.error").exception("it broke")
    assert [("page_failed", "it broke")] == [(event["event"], event["detail"]) for event in said]
