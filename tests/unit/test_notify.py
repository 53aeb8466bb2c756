"""The webhook gets everything it is owed, in order and once, however its receiver behaves; the line waits for nothing."""

import hmac
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest

from ingest import notify
from ingest.errors import Mistake, Unavailable
from ingest.journal import Journal
from ingest.journal.webhook import WebhookEntry
from ingest.notify import Answer, Attempt, Notifier, Outcome, Target, signature, target_of
from ingest.settings import load_settings
from tests.line import START_MS, Line
from tests.servers import free_port, wait_until

ENTRY = WebhookEntry(1, "k-1", "opened", '{"alert": "µA"}'.encode())
DEADLINE_S = 10.0


class Request(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """A real server. `answers` are given in turn, the last for ever: a status, headers with it, or something to do."""

    def __init__(self, port: int = 0) -> None:
        self.heard: list[Request] = []
        self.answers: list[Any] = [200]
        self.released = threading.Event()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.heard.append(Request(self.path, dict(self.headers), body))
                answer = receiver.answers.pop(0) if len(receiver.answers) > 1 else receiver.answers[0]
                if callable(answer):
                    answer(self)
                    return
                status, headers = answer if isinstance(answer, tuple) else (answer, {})
                self.send_response(status)
                for name, value in {"Content-Length": "0", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()

            do_GET = do_HEAD = do_POST

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook?key=abc"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def hang(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self.released.wait(DEADLINE_S)

    def drip(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        """Always a little more of an answer that never ends."""
        with suppress(OSError):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            while not self.released.wait(0.05):
                handler.wfile.write(b"x")
                handler.wfile.flush()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


def target(url: str, *, secret: bytes | None = None, timeout_s: float = DEADLINE_S) -> Target:
    return Target(url, secret, timeout_s)


def post(url: str, **how: Any) -> Answer:
    return Attempt(target(url, **how)).post(ENTRY, 1_795_298_400)


# -- one attempt ----------------------------------------------------------------------------------------


def test_an_entry_is_posted_whole_with_its_key_its_event_and_a_signature(receiver: Receiver) -> None:
    answer = post(receiver.url, secret=b"s3cret")
    assert answer == Answer(Outcome.DELIVERED, f"http://127.0.0.1:{receiver.port}: 200 OK")
    ((path, headers, body),) = receiver.heard
    expected = hmac.new(b"s3cret", b"1795298400." + ENTRY.payload, sha256).hexdigest()
    assert (path, body) == ("/hook?key=abc", ENTRY.payload)
    wanted = ("Content-Type", "Idempotency-Key", "X-Microcurrent-Event", "X-Microcurrent-Signature")
    assert [headers[name] for name in wanted] == ["application/json", "k-1", "opened", f"t=1795298400,v1={expected}"]


def test_a_signature_is_what_other_programs_compute() -> None:
    """printf '%s' '1.{}' | openssl dgst -sha256 -hmac key"""
    assert signature(b"key", 1, b"{}") == "t=1,v1=" + hmac.digest(b"key", b"1.{}", "sha256").hex()


def test_without_a_key_nothing_is_signed(receiver: Receiver) -> None:
    post(receiver.url)
    assert "X-Microcurrent-Signature" not in receiver.heard[0].headers


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_a_status_of_success_is_a_delivery(receiver: Receiver, status: int) -> None:
    receiver.answers = [status]
    assert post(receiver.url).outcome is Outcome.DELIVERED


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_heal_is_tried_later(receiver: Receiver, status: int) -> None:
    receiver.answers = [status]
    assert post(receiver.url).outcome is Outcome.LATER


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413, 422])
def test_what_will_be_refused_again_is_refused(receiver: Receiver, status: int) -> None:
    receiver.answers = [status]
    assert post(receiver.url).outcome is Outcome.REFUSED


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(receiver: Receiver, status: int) -> None:
    with Receiver() as elsewhere:
        receiver.answers = [(status, {"Location": elsewhere.url})]
        answer = post(receiver.url)
        assert (answer.outcome, "not followed" in answer.detail, elsewhere.heard) == (Outcome.LATER, True, [])


@pytest.mark.parametrize(
    ("said", "wait_s"),
    [("7", 7.0), ("0", 0.0), (formatdate(1_795_298_460, usegmt=True), 60.0), (formatdate(0, usegmt=True), 0.0), ("999999", 3_600.0),
     ("soon", None), ("-5", None), ("", None)],
)  # fmt: skip
def test_how_long_the_receiver_asks_to_wait_is_understood(receiver: Receiver, said: str, wait_s: float | None) -> None:
    receiver.answers = [(503, {"Retry-After": said})]
    assert post(receiver.url).retry_after_s == wait_s


@pytest.mark.parametrize("manner", ["hang", "drip"])
def test_a_receiver_that_does_not_come_to_an_end_is_cut_off(receiver: Receiver, manner: str) -> None:
    receiver.answers = [getattr(receiver, manner)]
    began = time.monotonic()
    answer = post(receiver.url, timeout_s=0.3)
    assert answer == Answer(Outcome.LATER, f"http://127.0.0.1:{receiver.port}: no answer within 0.3 s")
    assert time.monotonic() - began < DEADLINE_S / 2


def test_nobody_there_is_tried_later_and_told_without_the_secret_in_the_address() -> None:
    port = free_port()
    answer = post(f"http://127.0.0.1:{port}/hook/5ecret?key=5ecret")
    assert answer == Answer(Outcome.LATER, f"http://127.0.0.1:{port}: Connection refused")


def test_what_is_no_http_is_tried_later() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def babble() -> None:
            with suppress(OSError):
                near, _ = server.accept()
                near.recv(100)
                near.sendall(b"220 smtp.example ESMTP\r\n")
                near.close()

        threading.Thread(target=babble, daemon=True).start()
        assert post(f"http://127.0.0.1:{server.getsockname()[1]}/").outcome is Outcome.LATER


def test_a_name_and_password_in_the_address_are_sent_as_such(receiver: Receiver) -> None:
    post(receiver.url.replace("127.0.0.1", "ada:p%40ss@127.0.0.1"))
    assert receiver.heard[0].headers["Authorization"] == "Basic YWRhOnBAc3M="


def test_looking_whether_it_can_be_reached_sends_nothing(receiver: Receiver) -> None:
    Attempt(target(receiver.url)).reach()
    assert receiver.heard == []
    with pytest.raises(Unavailable, match="Connection refused"):
        Attempt(target(f"http://127.0.0.1:{free_port()}/")).reach()


# -- the thread, on a real core -------------------------------------------------------------------------


@contextmanager
def notifying(line: Line, url: str, timeout_s: float = DEADLINE_S) -> Iterator[Notifier]:
    """The core in its thread, and the notifier beside it."""
    line.core._stopping.clear()
    core = threading.Thread(target=line.core.run, daemon=True)
    core.start()
    notifier = Notifier(line.core, target(url, timeout_s=timeout_s))
    notifier.start()
    try:
        yield notifier
    finally:
        notifier.stop(DEADLINE_S)
        assert not notifier._thread.is_alive()
        line.core.stop()
        core.join(DEADLINE_S)


def owe(line: Line, *bodies: str, rank: int = 2) -> None:
    def add() -> None:
        for body in bodies:
            line.journal.owe(f"key-{body}", "opened", rank, body.encode(), 100)

    line.write(add)


def counts(line: Line) -> dict[str, int | None]:
    return line.core.ask(line.journal.webhook_counts)


def until(condition: Callable[[], bool], what: str) -> None:
    wait_until(condition, DEADLINE_S, what)


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    monkeypatch.setattr(notify, "FIRST_DELAY_S", 0.01)
    with Line(tmp_path / "journal") as opened:
        yield opened


def test_what_is_owed_is_delivered_in_order_and_then_no_longer_owed(line: Line, receiver: Receiver) -> None:
    owe(line, "a", "b", "c")
    with notifying(line, receiver.url) as notifier:
        until(lambda: counts(line)["waiting"] == 0, "all to be delivered")
        seen = counts(line)
        assert notifier.state.ok
    assert [(r.body, r.headers["Idempotency-Key"]) for r in receiver.heard] == [(b"a", "key-a"), (b"b", "key-b"), (b"c", "key-c")]
    assert (seen["failed"], seen["dropped"]) == (0, 0)
    assert abs(seen["last_success_ms"] - time.time() * 1000) < 60_000


def test_a_receiver_that_fails_gets_the_same_again_until_it_takes_it(line: Line, receiver: Receiver) -> None:
    receiver.answers = [500, 429, 503, 200]
    owe(line, "a", "b")
    with notifying(line, receiver.url):
        until(lambda: counts(line)["waiting"] == 0, "both to be delivered")
    assert [(r.body, r.headers["Idempotency-Key"]) for r in receiver.heard] == [(b"a", "key-a")] * 4 + [(b"b", "key-b")]


def test_a_receiver_that_was_away_gets_everything_when_it_is_back(line: Line) -> None:
    port = free_port()
    owe(line, "a", "b")
    with notifying(line, f"http://127.0.0.1:{port}/") as notifier:
        until(lambda: not notifier.state.ok, "the receiver to be missed")
        assert counts(line)["waiting"] == 2
        with Receiver(port) as back:
            until(lambda: counts(line)["waiting"] == 0, "both to be delivered")
            assert [r.body for r in back.heard] == [b"a", b"b"]
            assert notifier.state.ok


def test_an_entry_that_is_refused_is_set_aside_and_the_rest_goes_on(line: Line, receiver: Receiver) -> None:
    receiver.answers = [200, 422, 200]
    owe(line, "a", "b", "c")
    with notifying(line, receiver.url):
        until(lambda: counts(line)["waiting"] == 0, "the queue to be empty")
        seen = counts(line)
        assert (seen["failed"], [r.body for r in receiver.heard]) == (1, [b"a", b"b", b"c"])
        assert line.core.ask(line.journal.webhook_again, write=True) == 1
        line.core.webhook_bell.set()
        until(lambda: len(receiver.heard) == 4, "the refused one to be sent again")
    assert receiver.heard[3].body == b"b"


def test_how_long_the_receiver_asks_to_wait_is_waited(line: Line, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    with notifying(line, receiver.url) as notifier:
        wait = notifier._stopping.wait
        monkeypatch.setattr(notifier._stopping, "wait", lambda s: waits.append(s) or wait(0))
        receiver.answers = [(429, {"Retry-After": "120"}), 200]
        owe_running(line, "a")
        until(lambda: len(receiver.heard) == 2, "the second attempt")
        monkeypatch.undo()
    assert waits == [120.0]


def owe_running(line: Line, body: str) -> None:
    line.core.ask(lambda: line.journal.owe(f"key-{body}", "opened", 2, body.encode(), 100), write=True)
    line.core.webhook_bell.set()


def test_attempts_follow_each_other_ever_more_slowly_up_to_five_minutes(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "FIRST_DELAY_S", 1.0)
    waits: list[float] = []
    notifier = Notifier(line.core, target("http://127.0.0.1:9/"))
    monkeypatch.setattr(notifier._stopping, "wait", waits.append)
    for _ in range(12):
        notifier._wait_out(Answer(Outcome.LATER, "away"))
    longest = [min(300.0, 2.0**n) for n in range(12)]
    assert [most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=True)] == [True] * 12
    assert len(set(waits)) == 12


def test_a_receiver_that_never_answers_delays_neither_the_line_nor_its_end(line: Line, receiver: Receiver) -> None:
    receiver.answers = [receiver.hang]
    owe(line, "a")
    with notifying(line, receiver.url):
        until(lambda: len(receiver.heard) == 1, "the request")
        began = time.monotonic()
        for _ in range(20):
            line.core.ask(lambda: None, write=True)
    assert time.monotonic() - began < DEADLINE_S / 2
    assert line.journal.webhook_counts()["waiting"] == 1


def test_what_was_not_delivered_when_the_worker_died_is_delivered_by_the_next_under_the_same_key(
    line: Line, receiver: Receiver, tmp_path: Path
) -> None:
    owe(line, "a", "b")
    with line.die(tmp_path / "next") as later, notifying(later, receiver.url):
        until(lambda: counts(later)["waiting"] == 0, "both to be delivered")
    assert [r.headers["Idempotency-Key"] for r in receiver.heard] == ["key-a", "key-b"]


# -- a queue that is full -------------------------------------------------------------------------------


def waiting(journal: Journal) -> list[str]:
    return [key for (key,) in journal._db.execute("SELECT key FROM webhook WHERE state = 'waiting' ORDER BY id")]


def test_in_a_full_queue_the_oldest_of_the_least_severe_gives_way_and_is_counted(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    lost = []
    with journal.step():
        for n, rank in enumerate([2, 1, 0, 1, 0, 2, 2, 1, 2]):
            lost.append(journal.owe(f"{n}:{rank}", "opened", rank, b"", 4))
    assert waiting(journal) == ["0:2", "5:2", "6:2", "8:2"]
    assert (lost, journal.webhook_counts()["dropped"]) == ([0, 0, 0, 0, 1, 1, 1, 1, 1], 5)
    with journal.step():
        journal.owe("9:2", "opened", 2, b"", 4)
    assert waiting(journal) == ["5:2", "6:2", "8:2", "9:2"]
    journal.close()


def test_in_a_full_queue_what_was_refused_gives_way_first(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with journal.step():
        journal.owe("refused", "opened", 2, b"", 2)
        journal.webhook_refused(journal.owed().id, "410 Gone")
        journal.owe("a", "opened", 0, b"", 2)
        assert journal.owe("b", "opened", 0, b"", 2) == 0
    assert (waiting(journal), journal.webhook_counts()["dropped"]) == (["a", "b"], 0)
    journal.close()


# -- settings -------------------------------------------------------------------------------------------


def test_the_address_and_the_key_are_read_from_their_files_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("https://hooks.example/services/5ecret\n")
    (tmp_path / "key").write_text("5ecret\n")
    found = target_of(load_settings(webhook_url_file=tmp_path / "url", webhook_secret_file=tmp_path / "key", webhook_timeout_s=3))
    assert found == Target("https://hooks.example/services/5ecret", b"5ecret", 3.0)
    assert found.place == "https://hooks.example"
    assert "5ecret" not in repr(found)


def test_without_an_address_there_is_no_webhook() -> None:
    assert target_of(load_settings()) is None


@pytest.mark.parametrize("url", ["ftp://a.example/5ecret", "https:///5ecret", "http://a:port/5ecret", "5ecret", "http://a/5 ecret", "http://ä/5ecret"])
def test_an_address_that_cannot_be_used_is_a_mistake_that_does_not_show_it(tmp_path: Path, url: str) -> None:
    (tmp_path / "url").write_text(url)
    with pytest.raises(Mistake, match="url: not an address that can be posted to") as told:
        target_of(load_settings(webhook_url_file=tmp_path / "url"))
    assert "5ecret" not in str(told.value)


def test_an_address_in_a_variable_that_cannot_be_used_is_not_shown_either() -> None:
    with pytest.raises(Mistake, match="MICROCURRENT_WEBHOOK_URL: its value") as told:
        load_settings(webhook_url="ftp://5ecret")
    assert "5ecret" not in str(told.value)


def test_two_addresses_are_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="set twice"):
        target_of(load_settings(webhook_url="http://a.example/", webhook_url_file=tmp_path / "url"))


def test_time_of_a_delivery_is_real_time_whatever_clock_the_line_follows(line: Line, receiver: Receiver) -> None:
    line.clock.ms = START_MS + 10**12
    owe(line, "a")
    with notifying(line, receiver.url):
        until(lambda: counts(line)["waiting"] == 0, "the delivery")
        assert abs(counts(line)["last_success_ms"] - time.time() * 1000) < 60_000
