"""Page, interface and metrics where they are closed: who is asked, who is slowed down, and who is not."""

import http.client
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.browser import Browser
from tests.servers import LOOPBACK, free_port, wait_until
from tests.system.line import Installation

pytestmark = pytest.mark.system

PASSWORD, TOKEN = "correct-horse-battery", "a-token-for-prometheus-0123456789"
OWN = {"X-Microcurrent": "page", "Content-Type": "application/json"}


class House:
    def __init__(self, line: Installation) -> None:
        self.line = line
        self._at = urlsplit(line.address)

    def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None, source: str = LOOPBACK
    ) -> tuple[int, dict[str, str], bytes]:
        with closing(http.client.HTTPConnection(self._at.hostname, self._at.port, timeout=120, source_address=(source, 0))) as connection:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            said = b"" if path == "/api/live" and response.status == 200 else response.read()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, said

    def log_in(self, password: Any, source: str = LOOPBACK, **headers: str) -> tuple[int, str]:
        status, said, _ = self.ask("POST", "/login", {**OWN, **headers}, json.dumps({"password": password}).encode(), source)
        return status, said.get("set-cookie", "")

    def session(self, source: str = LOOPBACK) -> dict[str, str]:
        status, cookie = self.log_in(PASSWORD, source)
        assert 200 == status
        return {"Cookie": cookie.partition(";")[0]}


def alive(line: Installation) -> bool:
    try:
        return line.request("GET", "/healthz")[0] == 200
    except (OSError, KeyError, ValueError):
        return False


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A worker whose broker is away: its page does not mind."""
    directory = tmp_path_factory.mktemp("page")
    (directory / "password").write_text(PASSWORD + "\n")
    (directory / "token").write_text(TOKEN + "\n")
    line = Installation(
        directory, broker="external", mqtt_port=free_port(), http_password_file=directory / "password", http_token_file=directory / "token"
    )
    try:
        line.start(ready=False)
        wait_until(lambda: alive(line) or not line.running, 40, "the worker's page")
        yield House(line)
    finally:
        line.end_everything()


GET = (
    "/index.html", "/app.js", "/js/api.js", "/api/overview", "/api/devices", "/api/alerts", "/api/alerts/x", "/api/quarantine", "/api/quarantine/1",
    "/api/dashboards", "/api/dashboards/microcurrent-fleet", "/api/dashboards/microcurrent-fleet/data", "/api/live", "/api/security", "/metrics", "/nothing",
)  # fmt: skip
POST = ("/api/alerts/x/ack", "/api/alerts/x/assign", "/api/alerts/x/comment", "/api/webhook/resend", "/api/reconcile")


@pytest.mark.parametrize("shown", ["nothing", "a wrong cookie", "a cookie of another key", "Basic"])
def test_nothing_is_told_or_done_without_a_login(house: House, shown: str) -> None:
    foreign = "microcurrent=99999999999.AAAAAAAAAAAAAAAA." + "0" * 64
    headers = {
        "nothing": {}, "a wrong cookie": {"Cookie": "microcurrent=x"}, "a cookie of another key": {"Cookie": foreign},
        "Basic": {"Authorization": "Basic Y29ycmVjdA=="},
    }[shown]  # fmt: skip
    assert dict.fromkeys(GET, 401) == {path: house.ask("GET", path, headers)[0] for path in GET}
    assert dict.fromkeys(POST, 401) == {path: house.ask("POST", path, headers | OWN, b"{}")[0] for path in POST}
    status, said, _ = house.ask("GET", "/", headers)
    assert (303, "login") == (status, said["location"])


@pytest.mark.parametrize("path", ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/js/..%2f..%2f..%2fweb.py", "//etc/passwd", "/login/../api/overview", "/login.html/../app.js"])
def test_no_way_of_writing_a_path_leads_around_the_login_or_out_of_the_page(house: House, path: str) -> None:
    assert house.ask("GET", path)[0] in (401, 404)
    status, _, body = house.ask("GET", path, {"Authorization": f"Bearer {TOKEN}"})
    assert b"root:" not in body and (status == 404 or b"<!doctype html>" not in body or path.startswith("/login"))


def test_only_what_a_login_and_a_health_check_need_is_open_and_tells_nothing(house: House) -> None:
    for path in ("/login", "/login.js", "/style.css", "/js/theme.js", "/icon.svg"):
        assert 200 == house.ask("GET", path)[0], path
    assert b'{"ok":true}' == house.ask("GET", "/healthz")[2]
    status, _, body = house.ask("GET", "/readyz")
    assert (503, {"error": "not subscribed at the broker"}) == (status, json.loads(body))


def test_a_login_gives_a_cookie_that_no_script_and_no_other_site_can_use(house: House) -> None:
    status, cookie = house.log_in(PASSWORD)
    assert 200 == status
    assert {"httponly", "samesite=strict", "path=/"} <= {part.strip().lower() for part in cookie.split(";")} and "secure" not in cookie.lower()
    assert "secure" in house.log_in(PASSWORD, **{"X-Forwarded-Proto": "https"})[1].lower()
    session = {"Cookie": cookie.partition(";")[0]}
    for path in ("/", "/app.js", "/api/overview", "/api/live", "/metrics"):
        assert 200 == house.ask("GET", path, session)[0], path
    assert PASSWORD not in cookie
    name, _, value = session["Cookie"].partition("=")
    until, rest = value.split(".", 1)
    for changed in (f"{int(until) + 1}.{rest}", f"{until}.{rest[:-1]}{'0' if rest[-1] != '0' else '1'}", ""):
        assert 401 == house.ask("GET", "/api/overview", {"Cookie": f"{name}={changed}"})[0]
    # An act still needs the header that no other site can send; the name of the host is still looked at.
    assert 403 == house.ask("POST", "/api/alerts/x/ack", session, b'{"by": "somebody"}')[0]
    assert 404 == house.ask("POST", "/api/alerts/x/ack", session | OWN, b'{"by": "somebody"}')[0]
    assert 400 == house.ask("GET", "/api/overview", session | {"Host": "evil.example"})[0]


def test_what_is_no_password_is_said_to_be_none(house: House) -> None:
    assert 403 == house.ask("POST", "/login", {}, b'{"password": "x"}')[0]
    for body in (b"", b"{", b"[]", b"{}", b"7"):
        assert 400 == house.ask("POST", "/login", OWN, body, "127.0.10.9")[0], body
    for wrong in (7, None, ["x"]):
        assert 401 == house.log_in(wrong, "127.0.10.9")[0]
    assert 413 == house.ask("POST", "/login", OWN, b"x" * 10_000)[0]


@pytest.mark.parametrize("way", ["password", "token"])
def test_a_thousand_tries_of_one_source_are_ten_and_nobody_else_is_shut_out(house: House, way: str) -> None:
    thief, other = ("127.0.10.1", "127.0.10.2") if way == "password" else ("127.0.10.3", "127.0.10.4")
    before = house.session(thief)

    def attempt(said: str, source: str) -> int:
        spoofed = {"X-Forwarded-For": said, "X-Real-IP": said}
        if way == "password":
            return house.log_in(said, source, **spoofed)[0]
        return house.ask("GET", "/metrics", {"Authorization": f"Bearer {said}", **spoofed}, source=source)[0]

    codes = [attempt(f"10.0.{n // 250}.{n % 250}", thief) for n in range(1_000)]
    assert [401] * 10 + [429] * 990 == codes
    right = PASSWORD if way == "password" else TOKEN
    assert 429 == attempt(right, thief)  # the right guess came too late
    assert 200 == attempt(right, other)
    assert 200 == house.ask("GET", "/api/overview", before, source=thief)[0]  # who had logged in from there goes on
    command = {"Authorization": f"Bearer {(house.line.data / 'credentials' / 'command-token').read_text()}"}
    assert 200 == house.ask("GET", "/api/overview", command, source=thief)[0]
    seen = {(e["kind"], e["source"]): e["times"] for e in wait_until(lambda: events(house, thief), 15, "both to be on record")}
    assert 10 == seen["auth_failure", thief] and 991 <= seen["throttled", thief]


def events(house: House, source: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(f"file:{house.line.data / 'journal.db'}?mode=ro", uri=True, timeout=120)) as journal:
        rows = journal.execute("SELECT kind, source, times FROM security_event WHERE source = ?", (source,)).fetchall()
    found = [dict(zip(("kind", "source", "times"), row, strict=True)) for row in rows]
    return found if sum(e["times"] for e in found) >= 1_001 else []


def test_commands_show_a_token_that_only_their_user_can_read_and_to_their_worker_alone(house: House) -> None:
    token = house.line.data / "credentials" / "command-token"
    assert 0o600 == token.stat().st_mode & 0o777
    assert house.line.answer("status", codes=(0, 1))["running"]
    away = token.with_name("away")
    token.rename(away)
    try:
        refused = house.line.command("status")
        assert 73 == refused.returncode and 1 == refused.stderr.count("\n"), refused.stderr  # not known as its worker, so its files are tried
    finally:
        away.rename(token)
    assert [] == [secret for secret in (PASSWORD, TOKEN, token.read_text()) if secret in house.line.log.read_text()]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"http_host": "0.0.0.0"}, "MICROCURRENT_HTTP_HOST=0.0.0.0 opens page, interface and metrics to your network"),
        ({"http_password_file": "nothing-there"}, "cannot read the page's password"),
        ({"http_password_file": "short"}, "the page's password has 5 characters; use 12 or more"),
    ],
)
def test_a_page_that_would_be_open_or_easily_guessed_does_not_start(tmp_path: Path, settings: dict[str, str], sentence: str) -> None:
    (tmp_path / "short").write_text("12345")
    line = Installation(tmp_path, broker="external", mqtt_port=free_port(), **settings)
    refused = line.command("run")
    assert 2 == refused.returncode and sentence in refused.stderr, refused.stderr
    assert refused.stderr.startswith("microcurrent: ") and 1 == refused.stderr.count("\n")


def test_a_person_logs_in_in_a_browser_and_is_asked_again_when_the_login_is_over(house: House, tmp_path: Path) -> None:
    def enter(said: str) -> None:
        browser.run("document.getElementById('password').value = arguments[0]; document.querySelector('#login button').click()", said)

    with Browser(tmp_path / "browser") as browser:
        browser.open(f"{house.line.address}/#/pipeline")
        browser.wait(lambda: browser.run("return location.pathname") == "/login", "the login")
        enter("not the password")
        browser.wait(lambda: browser.text("#said") == "that is not right", "a word about it")
        browser.screenshot(tmp_path / "login.png")
        enter(PASSWORD)
        browser.wait(lambda: browser.run("return document.getElementById('starting')?.hidden ?? true") and "Pipeline" in browser.text("h1"), "the page")
        browser.wait(lambda: browser.text("#link-word") not in ("", "Connecting"), "what is of this second")
        browser.chrome("Network.clearBrowserCookies")
        browser.run("location.reload()")
        browser.wait(lambda: browser.run("return location.pathname") == "/login", "the login again")
        assert [] == [line for line in browser.errors() if "401" not in line]
