"""The HTTP interface of a running worker: what it shows, and what it refuses."""

import http.client
import json
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.servers import Mosquitto, wait_until
from tests.system.line import Installation, Oracle, balanced, message, topic, with_mosquitto

pytestmark = pytest.mark.system

HOSTILE = b'<script>alert(1)</script>\x1b[2J\x1b]0;gone\x07\r\nlevel=info event=all_is_well\x00\xff "\'\xe2\x80\xae'


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running line with one alert and one hostile message in quarantine; the tests only look at it."""
    directory = tmp_path_factory.mktemp("page")
    with Mosquitto(directory / "mosquitto") as broker, with_mosquitto(directory / "line", broker) as running:
        broker.publish(topic("example-1"), message(0, i_peak_ua=900.0))
        broker.publish(topic("example-1"), HOSTILE)
        running.wait_settled(2)
        yield running


def test_health_readiness_and_metrics_are_told(line: Installation) -> None:
    assert line.get("/healthz")["ok"] is True
    assert line.get("/readyz")["ok"] is True
    status, headers, body = line.request("GET", "/metrics")
    assert (200, True) == (status, headers["content-type"].startswith("text/plain"))
    metrics = dict(text.rsplit(" ", 1) for text in body.decode().splitlines() if text and not text.startswith("#"))
    assert ("2.0", "1.0", "1.0") == tuple(
        metrics[f"microcurrent_{name}"] for name in ("accepted_messages_total", "stored_messages_total", "broker_connected")
    )
    assert ["1.0"] == [value for name, value in metrics.items() if name.startswith("microcurrent_quarantined_messages_total")]


@pytest.mark.parametrize("path", ["/", "/api/overview", "/api/devices", "/api/alerts", "/api/quarantine", "/metrics", "/nothing"])
def test_every_answer_forbids_foreign_scripts_and_frames(line: Installation, path: str) -> None:
    _, headers, _ = line.request("GET", path)
    policy = headers["content-security-policy"]
    assert policy.startswith(("default-src 'none'", "default-src 'self'")) and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "nosniff" == headers["x-content-type-options"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_another_host_name_is_refused(line: Installation, host: str) -> None:
    """A page of another site could otherwise reach this one by a name of its own."""
    status, _, _ = line.request("GET", "/api/alerts", headers={"Host": host})
    assert 400 == status


def test_an_acknowledgement_needs_the_header_that_no_other_site_can_send(line: Installation) -> None:
    (alert,) = line.get("/api/alerts")["alerts"]
    path, body = f"/api/alerts/{alert['id']}/ack", b'{"by": "somebody"}'
    assert 403 == line.request("POST", path, body)[0]
    assert 403 == line.request("POST", path, body, {"Content-Type": "application/json"})[0]
    assert line.request("GET", path)[0] in (404, 405)
    own = {"X-Microcurrent": "page"}
    for wrong in (b"", b"{", b"[]", b'{"by": 7}', b'{"by": " "}', b'{"by": "x", "note": 7}', b'{"by": "%s"}' % (b"x" * 129)):
        assert 400 == line.request("POST", path, wrong, own)[0], wrong
    assert 404 == line.request("POST", "/api/alerts/0000/ack", body, own)[0]
    assert line.get(f"/api/alerts/{alert['id']}")["alert"]["acknowledged"] is None


@pytest.mark.parametrize(
    "path",
    ["/../../../../etc/passwd", "/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2f..%2fetc%2fpasswd", "/js/../../__init__.py", "//etc/passwd", "/%00"],
)
def test_no_path_leads_out_of_the_page(line: Installation, path: str) -> None:
    status, _, body = line.request("GET", path)
    assert 404 == status
    assert b"root:" not in body


def test_a_hostile_payload_is_shown_escaped_everywhere(line: Installation) -> None:
    (entry,) = line.get("/api/quarantine")["entries"]
    shown = line.get(f"/api/quarantine/{entry['id']}")["payload_text"]
    printed = line.command("quarantine", "show", str(entry["id"]))
    listed = line.command("quarantine", "list")
    for text in (shown, printed.stdout, listed.stdout):
        assert not {c for c in text if not c.isprintable()} - {"\n"}
    assert "\n" not in shown and "\\x1b[2J" in shown and "<script>" in shown
    assert "all_is_well" not in [text.split("event=")[1].split()[0] for text in line.log.read_text().splitlines() if "event=" in text]
    status, headers, _ = line.request("GET", f"/api/quarantine/{entry['id']}")
    assert (200, "application/json") == (status, headers["content-type"])


@pytest.mark.parametrize(
    "path",
    [
        "/api/alerts?state=nonsense", "/api/alerts?limit=-1", "/api/alerts?limit=x", "/api/quarantine?limit=99999999999999999999",
        "/api/dashboards/microcurrent-fleet/data?device_id=%27%3B%20DROP%20TABLE%20current%3B--", "/api/dashboards/nothing/data?from_ms=x&to_ms=-5&points=1e9",
    ],
)  # fmt: skip
def test_odd_questions_are_answered_or_refused_and_never_break_it(line: Installation, path: str) -> None:
    status, _, body = line.request("GET", path)
    assert status in (200, 400, 404)
    json.loads(body)


@pytest.mark.parametrize("number", ["0", "-1", "9" * 30, "x"])
def test_a_quarantine_number_that_is_none_is_not_found(line: Installation, number: str) -> None:
    assert 404 == line.request("GET", f"/api/quarantine/{number}")[0]


def test_the_page_itself_is_there_and_needs_nothing_from_elsewhere(line: Installation) -> None:
    status, headers, body = line.request("GET", "/")
    assert (200, True) == (status, headers["content-type"].startswith("text/html"))
    assert b"://" not in body.replace(b"http://www.w3.org", b"")


def test_the_live_stream_says_how_things_are(line: Installation) -> None:
    at = urlsplit(line.address)
    connection = http.client.HTTPConnection(at.hostname, at.port, timeout=120)
    try:
        connection.request("GET", "/api/live")
        response = connection.getresponse()
        said = {response.readline().split(b": ")[1].strip(): json.loads(response.readline()[6:]) for _ in range(3) if not _skip(response, _)}
    finally:
        connection.close()
    assert {b"overview", b"devices", b"alerts"} == set(said)
    assert 2 == said[b"overview"]["ledger"]["accepted"]


def _skip(response: http.client.HTTPResponse, n: int) -> bool:
    """Between two events is an empty line."""
    if n:
        response.readline()
    return False


def test_a_worker_ends_soon_though_somebody_looks_at_it(tmp_path: Path, mosquitto: Mosquitto) -> None:
    with with_mosquitto(tmp_path / "line", mosquitto) as line:
        at = urlsplit(line.address)
        with socket.create_connection((at.hostname, at.port)) as looking:
            looking.sendall(b"GET /api/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert looking.recv(1_000)
            assert 0 == line.stop(deadline_s=8)
    assert 0 == line.logged("Traceback")


def test_the_dashboards_of_a_worker_that_writes_elsewhere_are_elsewhere(tmp_path: Path, mosquitto: Mosquitto) -> None:
    with with_mosquitto(tmp_path / "line", mosquitto, store="influxdb", influx_url="http://127.0.0.1:9") as line:
        status, _, body = line.request("GET", "/api/dashboards/microcurrent-fleet/data")
        assert (404, {"error": "this worker writes to InfluxDB; its dashboards are in Grafana"}) == (status, json.loads(body))


def test_a_client_that_hangs_on_keeps_nobody_from_answers(line: Installation) -> None:
    at = urlsplit(line.address)
    idle = [socket.create_connection((at.hostname, at.port)) for _ in range(50)]
    try:
        for each in idle[:25]:
            each.sendall(b"GET /api/overview HTTP/1.1\r\nHost: loc")
        assert line.get("/healthz")["ok"] is True
    finally:
        for each in idle:
            each.close()


HELD = {"silent": b"", "half a request": b"GET /healthz HTTP/1.1\r\nHost: loc", "answered": b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"}


@pytest.mark.parametrize("said", HELD)
def test_connections_to_the_page_never_take_the_files_that_the_worker_needs(line: Installation, said: str) -> None:
    """Each is an open file of the worker; with none left it could neither keep a message nor reach broker and store."""
    at, pid = urlsplit(line.address), line.worker_pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (450, before[1]))
    try:
        with ExitStack() as held:
            for _ in range(500):
                connection = held.enter_context(socket.create_connection((at.hostname, at.port), timeout=20))
                connection.sendall(HELD[said])
                if said == "answered":
                    assert connection.recv(12) == b"HTTP/1.1 200"
            assert line.get("/healthz")["ok"] is True
            assert pid == line.worker_pid and 0 == line.logged("out of system resource") == line.logged("Too many open files")
            assert 256 <= len(list(Path(f"/proc/{pid}/fd").iterdir())) < 450
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_a_page_on_ipv6_is_reachable_by_page_and_commands(tmp_path: Path) -> None:
    if not socket.has_ipv6 or not _has_ipv6_loopback():
        pytest.skip("this machine has no IPv6 loopback")
    with Mosquitto(tmp_path / "mosquitto") as broker, with_mosquitto(tmp_path / "line", broker, http_host="::1") as line:
        broker.publish(topic("example-1"), message(0))
        wait_until(lambda: line.answer("status", codes=(0, 1))["ledger"]["stored"] == 1, 10, "one message")
        assert line.answer("status")["running"] is True


def _has_ipv6_loopback() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_all_that_an_answer_shows_is_of_one_instant(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """A ledger from before a message beside a device from after it would be a message that nobody accounts for."""
    with with_mosquitto(tmp_path / "line", mosquitto) as line, Oracle(mosquitto.port) as oracle:
        for sent in range(1, 11):
            oracle.publish(f"example-{sent}", 0)
            seen = line.overview()
            while seen["ledger"]["accepted"] < sent:
                assert seen["devices"]["known"] <= seen["ledger"]["accepted"] and balanced(seen["ledger"])
                rows = line.get("/api/devices")["devices"]
                assert all(balanced(row) for row in rows)
                seen = line.overview()
                assert sum(row["accepted"] for row in rows) <= seen["ledger"]["accepted"]
