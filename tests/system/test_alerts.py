"""A dangerous value is said at once, to those who must hear it, and what people answer is kept."""

import hmac
import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import Mosquitto, free_port, wait_until
from tests.system.line import Oracle, alerts_heard, document, listener, message, now_ms, topic, with_mosquitto

pytestmark = pytest.mark.system

DEADLINE_S = 2.0
"""From publishing to hearing the alert. A machine may stand still for so long, but not each time."""

TRIES = 5


def test_an_overcurrent_is_said_in_time_and_its_acknowledgement_survives_a_restart(tmp_path: Path, mosquitto: Mosquitto) -> None:
    with with_mosquitto(tmp_path / "line", mosquitto) as line, listener(mosquitto.port, "mc/v1/+/alert") as heard:
        with Oracle(mosquitto.port) as oracle:
            oracle.publish("example-1", 0)
            line.wait_settled(1)
            assert [] == heard
            oracle.publish("example-1", 1, i_peak_ua=900.0)
            wait_until(lambda: heard, 10, "the alert")
            assert any(heard_after_s(oracle, heard, f"another-{n}") < DEADLINE_S for n in range(TRIES))
        _, on, _ = heard[0]
        assert "mc/v1/example-1/alert" == on
        (said,) = [alert for alert in alerts_heard(heard) if alert["device_id"] == "example-1"]
        assert ("overcurrent-peak", "critical", "example-1", "s-1", "open", 900.0, 600.0, "µA", False) == tuple(
            said[n] for n in ("rule", "severity", "device_id", "session_id", "state", "value", "limit", "unit", "from_rejected")
        )
        (listed,) = line.answer("alerts", "list", "--device", "example-1")
        assert said["id"] == listed["id"]
        assert [] == line.answer("alerts", "list", "--device", "example-2")
        acknowledged = line.answer("alerts", "ack", said["id"], "--by", "Dr. Ohm", "--note", "called the user")
        assert ("Dr. Ohm", "called the user") == tuple(acknowledged["acknowledged"][n] for n in ("by", "note"))
        wait_until(lambda: alerts_heard(heard, "acknowledged"), 10, "the acknowledgement on the device's topic")

        line.stop()
        stopped = line.answer("alerts", "show", said["id"])
        line.start()
        again = line.answer("alerts", "show", said["id"])
        for shown in (stopped, again):
            assert acknowledged["acknowledged"] == shown["alert"]["acknowledged"]
            events = [(event["event"], event["actor"], event["note"]) for event in shown["events"]]
            assert ("opened", None, None) == events[0]
            assert ("acknowledged", "Dr. Ohm", "called the user") in events
        opened = [alert["id"] for alert in alerts_heard(heard)]
        assert len(opened) == len(set(opened)), "an alert is opened once, whatever restarts"


def heard_after_s(oracle: Oracle, heard: list[tuple[float, str, bytes]], device_id: str) -> float:
    """How long after it was published a danger of this device is heard of."""
    published_s = time.monotonic()
    oracle.publish(device_id, 0, i_peak_ua=900.0)
    return wait_until(lambda: [at_s for at_s, on, _ in list(heard) if on == topic(device_id, "alert")], 10, "the alert")[0] - published_s


def test_an_alert_acknowledged_while_the_worker_is_stopped_is_said_when_it_runs_again(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    with with_mosquitto(tmp_path / "line", mosquitto) as line:
        mosquitto.publish(topic("example-1"), message(0, i_peak_ua=900.0))
        (alert,) = wait_until(lambda: line.answer("alerts", "list"), 10, "an alert")
        line.stop()
        line.answer("alerts", "ack", alert["id"], "--by", "night shift")
        with listener(mosquitto.port, "mc/v1/+/alert") as heard:
            line.start()
            (said,) = wait_until(lambda: alerts_heard(heard, "acknowledged"), 10, "the acknowledgement")
        assert "night shift" == said["acknowledged"]["by"]


DANGEROUS = {
    "truncated": lambda: message(5, i_peak_ua=900.0)[:-30],
    "an unknown key": lambda: json.dumps(document(5, i_peak_ua=900.0) | {"mood": "fine"}).encode(),
    "a text for a number": lambda: json.dumps(document(5, i_peak_ua=900.0, duty="half")).encode(),
    "beyond every bound": lambda: message(5, i_peak_ua=1e9),
    "infinite": lambda: message(5, i_peak_ua=900.0).replace(b"900.0", b"1e999"),
    "equal keys": lambda: message(5, i_peak_ua=900.0).replace(b'"i_peak_ua"', b'"i_peak_ua": 1.0, "i_peak_ua"'),
    "another encoding": lambda: message(5, i_peak_ua=900.0).decode().encode("utf-16"),
    "another version": lambda: json.dumps(document(5, i_peak_ua=900.0) | {"v": 2}).encode(),
}


def test_a_dangerous_value_raises_its_alert_even_when_its_message_is_refused(tmp_path: Path, mosquitto: Mosquitto) -> None:
    with with_mosquitto(tmp_path / "line", mosquitto) as line, listener(mosquitto.port, "mc/v1/+/alert") as heard:
        for n, payload in enumerate(DANGEROUS.values()):
            mosquitto.publish(topic(f"example-{n}"), payload())

        def peaks() -> list[dict]:
            """What is beyond the bounds of the contract is told as implausible besides."""
            return [alert for alert in alerts_heard(heard) if alert["rule"] == "overcurrent-peak"]

        wait_until(lambda: len(peaks()) >= len(DANGEROUS), 10, f"{len(DANGEROUS)} alerts")
        said = {alert["device_id"]: (alert["rule"], alert["severity"], alert["from_rejected"]) for alert in peaks()}
        assert dict.fromkeys((f"example-{n}" for n in range(len(DANGEROUS))), ("overcurrent-peak", "critical", True)) == said
        ledger = line.wait_settled(len(DANGEROUS))
        assert (len(DANGEROUS), 0) == (ledger["quarantined"], ledger["stored"])
        reasons = {entry["device_id"]: entry["reason"] for entry in line.answer("quarantine", "list")["entries"]}
        assert ["json_syntax", "schema", "schema", "range", "nonfinite", "dup_keys", "encoding", "version_unsupported"] == [
            reasons[f"example-{n}"] for n in range(len(DANGEROUS))
        ]


def test_the_same_dangerous_message_twice_is_one_alert(tmp_path: Path, mosquitto: Mosquitto) -> None:
    with with_mosquitto(tmp_path / "line", mosquitto) as line, listener(mosquitto.port, "mc/v1/+/alert") as heard:
        for device, payload in (("example-1", message(0, i_peak_ua=900.0)), ("example-2", b'{"i_peak_ua": 1900.0, broken')):
            mosquitto.publish(topic(device), payload)
            mosquitto.publish(topic(device), payload)
        ledger = line.wait_settled(4)
        assert (1, 2, 1) == (ledger["stored"], ledger["duplicate"], ledger["quarantined"])
        wait_until(lambda: len(alerts_heard(heard)) >= 2, 10, "two alerts")
        assert ["example-1", "example-2"] == sorted(alert["device_id"] for alert in alerts_heard(heard))
        (entry,) = line.answer("quarantine", "list")["entries"]
        assert 2 == entry["times"]


# -- people, and programs that tell them -------------------------------------------------------------------


@pytest.mark.long
def test_alerts_are_assigned_commented_and_found_again_running_or_stopped(tmp_path: Path, mosquitto: Mosquitto) -> None:
    with with_mosquitto(tmp_path / "line", mosquitto) as line, listener(mosquitto.port, "mc/v1/+/alert") as heard:
        for device, fields in (("example-1", {"i_peak_ua": 900.0}), ("example-2", {"i_rms_ua": 580.0, "i_peak_ua": 590.0})):
            mosquitto.publish(topic(device), message(0, **fields))
        wait_until(lambda: len(alerts_heard(heard)) == 2, 10, "two alerts")
        one, two = (next(a["id"] for a in alerts_heard(heard) if a["device_id"] == d) for d in ("example-1", "example-2"))
        assigned = line.answer("alerts", "assign", one, "--to", "night shift", "--by", "Ada", "--note", "call the user")
        assert "night shift" == assigned["assigned_to"]
        own = {"X-Microcurrent": "test"}
        status, _, body = line.request("POST", f"/api/alerts/{two}/assign", b'{"to": "Ben", "by": "Ada"}', own)
        assert (200, "Ben") == (status, json.loads(body)["alert"]["assigned_to"])
        status, _, _ = line.request("POST", f"/api/alerts/{one}/comment", b'{"by": "Ben", "text": "she feels well"}', own)
        assert 200 == status
        wait_until(lambda: alerts_heard(heard, "commented"), 10, "the comment on the device's topic")

        def listed(*words: str) -> set[str]:
            return {alert["id"] for alert in line.answer("alerts", "list", *words)}

        def all_is_found() -> None:
            assert {one, two} == listed() == listed("--state", "open", "--since", "1h") == listed("--fw", "2.3.1", "--model", "toneduo-400")
            assert {one} == listed("--assigned-to", "night shift") == listed("--rule", "overcurrent-peak") == listed("--device", "example-1")
            assert set() == listed("--until", "1h") == listed("--state", "over") == listed("--severity", "info") == listed("--fw", "9")
            shown = line.answer("alerts", "show", one)
            assert [("assigned", "Ada", "call the user"), ("commented", "Ben", "she feels well")] == [
                (e["event"], e["actor"], e["note"]) for e in shown["events"] if e["actor"]
            ]

        all_is_found()
        query = "/api/alerts?state=attention&since=1h&assigned_to=Ben&unacknowledged=true"
        assert [two] == [alert["id"] for alert in line.get(query)["alerts"]]
        for wrong in ("state=nonsense", "since=yesterday", "severity=grave", "sincee=1h", "limit=0"):
            status, _, body = line.request("GET", f"/api/alerts?{wrong}")
            assert (400, ["error"]) == (status, list(json.loads(body))), wrong
        refused = line.command("alerts", "list", "--since", "yesterday")
        assert (2, "") == (refused.returncode, refused.stdout)
        assert refused.stderr.startswith("microcurrent: since 'yesterday' is no time; ")

        line.stop()
        all_is_found()
        line.answer("alerts", "comment", two, "found in the files", "--by", "Cleo")
        line.answer("alerts", "ack", two, "--by", "Cleo")
        assert {one} == listed("--unacknowledged")
        line.start()
        assert {one} == listed("--unacknowledged")
        assert 2 == len(alerts_heard(heard)), "an alert is opened once, whatever restarts"


@pytest.mark.parametrize("act", ["assign", "comment", "ack"])
def test_whoever_acts_on_an_alert_needs_the_header_and_all_the_words(tmp_path: Path, mosquitto: Mosquitto, act: str) -> None:
    whole = {"assign": {"to": "Ben", "by": "Ada"}, "comment": {"by": "Ada", "text": "seen"}, "ack": {"by": "Ada"}}[act]
    with with_mosquitto(tmp_path / "line", mosquitto) as line:
        mosquitto.publish(topic("example-1"), message(0, i_peak_ua=900.0))
        (alert,) = wait_until(lambda: line.get("/api/alerts")["alerts"], 10, "an alert")
        path, own = f"/api/alerts/{alert['id']}/{act}", {"X-Microcurrent": "page"}
        assert 403 == line.request("POST", path, json.dumps(whole).encode())[0]
        spoilt = [{k: v for k, v in whole.items() if k != lacking} for lacking in whole]
        spoilt += [whole | {name: wrong} for name in whole for wrong in (7, " ", None)] + [whole | {"mood": "fine"}]
        for said in spoilt:
            assert 400 == line.request("POST", path, json.dumps(said).encode(), own)[0], said
        assert 404 == line.request("POST", f"/api/alerts/0000/{act}", json.dumps(whole).encode(), own)[0]
        assert ["opened"] == [event["event"] for event in line.get(f"/api/alerts/{alert['id']}")["events"]]
        assert 200 == line.request("POST", path, json.dumps(whole).encode(), own)[0]


@contextmanager
def webhook(port: int, answers: list[int]) -> Iterator[list[tuple[dict[str, str], bytes]]]:
    """A receiver that gives these answers in turn, the last for ever: (headers by lower-case name, body)."""
    heard: list[tuple[dict[str, str], bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(answers.pop(0) if len(answers) > 1 else answers[0])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield heard
    finally:
        server.shutdown()
        server.server_close()


def test_the_webhook_hears_of_alerts_that_were_raised_while_it_and_the_worker_were_away(tmp_path: Path, mosquitto: Mosquitto) -> None:
    port, key = free_port(), tmp_path / "key"
    key.write_text("s3cret\n")
    hook = {"webhook_url": f"http://127.0.0.1:{port}/hook", "webhook_secret_file": key}
    with with_mosquitto(tmp_path / "line", mosquitto, **hook) as line, listener(mosquitto.port, "mc/v1/+/alert") as published:
        mosquitto.publish(topic("example-1"), message(0, i_peak_ua=900.0))
        wait_until(lambda: published, 10, "the alert, whatever the webhook does")
        line.wait_for(lambda seen: seen["pipeline"]["webhook"]["ok"] is False, 10, "the webhook to be missed")
        (found,) = [f for f in line.answer("check", codes=(1,)) if f["what"] == "webhook"]
        assert (False, True) == (found["ok"], f"http://127.0.0.1:{port}: Connection refused; 1 waiting" in found["detail"])
        assert line.kill_worker()
        with webhook(port, [503, 200, 422, 200]) as heard:
            line.wait_for(lambda seen: seen["pipeline"]["webhook"]["waiting"] == 0, 30, "the webhook to have all")
            said = json.loads(published[0][2])
            opened = [(headers, body) for headers, body in heard if json.loads(body) == said]
            assert 2 == len(opened) == len(heard), "refused for the time being, then taken"
            assert 1 == len({headers["idempotency-key"] for headers, _ in opened})
            for headers, body in opened:
                at, mac = (part.split("=")[1] for part in headers["x-microcurrent-signature"].split(","))
                assert hmac.digest(b"s3cret", at.encode() + b"." + body, "sha256").hex() == mac
                assert "opened" == headers["x-microcurrent-event"]

            line.answer("alerts", "comment", said["alert"]["id"], "will be refused", "--by", "Ada")
            line.wait_for(lambda seen: seen["pipeline"]["webhook"]["failed"] == 1, 10, "a refusal")
            assert "0 waiting, 1 failed, 0 dropped" in line.command("status").stdout
            assert 403 == line.request("POST", "/api/webhook/resend", b"{}")[0]
            assert {"again": 1} == line.answer("alerts", "resend")
            line.wait_for(lambda seen: seen["pipeline"]["webhook"]["failed"] + seen["pipeline"]["webhook"]["waiting"] == 0, 10, "the second try")
            assert heard[-1][1] == heard[-2][1] and "commented" == json.loads(heard[-1][1])["event"]
            (found,) = [f for f in line.answer("check") if f["what"] == "webhook"]
            assert found["ok"] is True


def test_an_upload_of_hours_is_one_notice_and_all_of_it_is_on_record(tmp_path: Path, mosquitto: Mosquitto) -> None:
    port = free_port()
    with (
        webhook(port, [200]) as posted,
        with_mosquitto(tmp_path / "line", mosquitto, webhook_url=f"http://127.0.0.1:{port}/") as line,
        listener(mosquitto.port, "mc/v1/+/alert") as heard,
        Oracle(mosquitto.port) as oracle,
    ):
        began_ms, spikes = now_ms() - 3 * 3_600_000, 30
        for n in range(spikes):
            for second in range(20):
                reading = {"i_peak_ua": 900.0} if second == 0 else {}
                oracle.publish("example-1", 20 * n + second, ts_ms=began_ms + 1_000 * (20 * n + second), **reading)
        line.wait_settled(20 * spikes)
        wait_until(lambda: len(line.get("/api/alerts?rule=overcurrent-peak")["alerts"]) == spikes, 20, "every alert on record at once")
        oracle.publish("example-1", 5_000, i_peak_ua=900.0, session_id="s-2")
        wait_until(lambda: alerts_heard(heard), 10, "the danger of now")
        assert [False] == [alert["retrospective"] for alert in alerts_heard(heard)]
        digests = wait_until(lambda: [d for _, _, payload in heard if (d := json.loads(payload))["event"] == "digest"], 40, "the digest")
        assert [("example-1", {"overcurrent-peak": spikes})] == [(d["device_id"], d["by_rule"]) for d in digests]
        wait_until(lambda: any(json.loads(body) == digests[0] for _, body in posted), 10, "the digest at the webhook")
