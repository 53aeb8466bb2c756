"""What the line cannot see is an alarm: one for each outage, told on every way that is left. Break → claim → mend → claim.

The hold is short here; how long it is, is tested where time can be set.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.servers import LOOPBACK, InfluxDB, Mosquitto, wait_until
from tests.system.line import (
    Installation,
    Oracle,
    alerts_heard,
    balanced,
    document,
    influx_settings,
    listener,
    topic,
    with_mosquitto,
)  # fmt: skip

pytestmark = pytest.mark.system

HOLD_S = 6
QUICK = {"blind_after_s": HOLD_S, "canary_interval_s": 1}
"""Shorter, and a busy machine that stands still for a moment is told as well, as it should be."""
WORKER = "ingest-watched"


def blind(line: Installation) -> list[dict[str, Any]]:
    """Alerts of blindness, the oldest first."""
    return line.get("/api/alerts?rule=pipeline-blind")["alerts"][::-1]


def causes(line: Installation) -> set[str]:
    said = line.overview()["pipeline"]["blind"]
    return {each["cause"] for each in said["causes"]} if said else set()


def wait_seeing(line: Installation) -> None:
    """Until a canary has come through the whole path."""
    line.wait_for(lambda seen: (seen["pipeline"]["canary"] or {}).get("through_ms"), 20, "a canary to come through")


def wait_closed(line: Installation, number: int = 1) -> list[dict[str, Any]]:
    def all_closed() -> list[dict[str, Any]]:
        found = blind(line)
        return found if len(found) == number and all(a["state"] == "closed" for a in found) else []

    return wait_until(all_closed, 25, f"{number} alert(s) of blindness, closed")


def steps(line: Installation, alert: dict[str, Any]) -> list[str]:
    return [event["event"] for event in line.get(f"/api/alerts/{alert['id']}")["events"]]


@contextmanager
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An address to post to, and what was posted."""
    posted: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer((LOOPBACK, 0), Hook)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://{LOOPBACK}:{server.server_address[1]}/", posted
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.long
def test_a_broker_that_is_away_is_one_alert_that_goes_out_where_it_can(tmp_path: Path, mosquitto: Mosquitto) -> None:
    with webhook() as (address, posted), with_mosquitto(tmp_path / "line", mosquitto, webhook_url=address, **QUICK) as line:
        wait_seeing(line)
        assert blind(line) == []
        mosquitto.stop()
        line.wait_for(lambda seen: seen["pipeline"]["blind"], 10, "blindness to be told")
        wait_until(lambda: posted, 10, "the webhook to hear of it")
        assert [(p["event"], p["alert"]["rule"], p["alert"]["severity"]) for p in posted] == [("opened", "pipeline-blind", "critical")]
        assert posted[0]["alert"]["device_id"].startswith("~worker-")
        assert causes(line) == {"broker-away"}
        status = line.command("status")
        assert (1, True) == (status.returncode, "not connected to the broker" in status.stdout)

        mosquitto.start()
        with listener(mosquitto.port, "mc/v1/+/alert") as heard:
            (alert,) = wait_closed(line)
            assert "unseen before: from" in alert["detail"] and "broker" in alert["detail"]
            wait_until(lambda: [a["id"] for a in alerts_heard(heard, "closed")] == [alert["id"]], 10, "its end on the alert topic")
        assert (steps(line, alert)[0], steps(line, alert)[-1]) == ("opened", "closed")
        wait_until(lambda: [p["event"] for p in posted][-1] == "closed", 10, "the webhook to hear its end")
        line.wait_for(lambda seen: seen["ledger"]["accepted"] == 0 and balanced(seen["ledger"]), 5, "a ledger without canaries")
        assert 0 == line.command("status").returncode
        assert [] == line.get("/api/devices")["devices"]
        assert line.reconcile()["ok"]


def test_a_store_that_is_away_is_one_alert_on_mqtt_and_afterwards_it_is_in_the_store(
    tmp_path: Path, mosquitto: Mosquitto, influxdb: InfluxDB
) -> None:
    with (
        with_mosquitto(tmp_path / "line", mosquitto, **influx_settings(influxdb), **QUICK) as line,
        listener(mosquitto.port, "mc/v1/+/alert") as heard,
    ):
        wait_seeing(line)
        assert line.overview()["pipeline"]["canary"]["ends_at"] == "read back"
        influxdb.stop()
        wait_until(lambda: alerts_heard(heard), 20, "blindness on the alert topic")
        assert causes(line) == {"store-away"}
        influxdb.start()
        (alert,) = wait_closed(line)
        told = wait_until(
            lambda: influxdb.query(f"SELECT * FROM \"long\".alert WHERE rule = 'pipeline-blind' AND state = 'closed' AND alert_id = '{alert['id']}'"),
            15, "the alert in the store",
        )  # fmt: skip
        assert (len(told), "the store takes no data" in told[0]["detail"]) == (1, True)
        canaries = influxdb.query("SELECT seq FROM canary")
        assert len(canaries) == len({row["seq"] for row in canaries}) > 0
        assert {a["id"] for a in alerts_heard(heard)} == {alert["id"]}


def test_a_broker_that_lost_the_session_is_told_with_the_time_of_which_messages_may_be_missing(tmp_path: Path) -> None:
    forgetful = {"persistence": "false", "persistence_location": None, "autosave_interval": None}
    with Mosquitto(tmp_path / "mosquitto", settings=forgetful) as broker, with_mosquitto(tmp_path / "line", broker, **QUICK) as line:
        wait_seeing(line)
        broker.kill()
        broker.start()
        (alert,) = wait_closed(line)
        assert "the broker lost the worker's session; messages of this time may be missing" in alert["detail"]
        assert alert["onset_ms"] < alert["closed_ms"]
        assert [event for event in steps(line, alert) if event in ("opened", "closed")] == ["opened", "closed"]


def test_rights_that_are_taken_away_are_seen_though_the_connection_stands(tmp_path: Path) -> None:
    """The worker may still subscribe and hear; what it says itself goes nowhere, so silence would mean nothing."""
    users = {WORKER: "w" * 40, "oracle": "o" * 40}
    rights = "user {0}\ntopic read mc/v1/+/+\ntopic write mc/v1/+/ack\ntopic write mc/v1/+/alert\n{1}user oracle\ntopic write mc/v1/+/+\n"
    own = f"topic write mc/v1/{WORKER}/runtime\n"
    secret = tmp_path / "password"
    secret.write_text(users[WORKER])
    with Mosquitto(tmp_path / "mosquitto", users=users, acl=rights.format(WORKER, own)) as broker:
        known = {"mqtt_username": WORKER, "mqtt_client_id": WORKER, "mqtt_password_file": secret}
        with with_mosquitto(tmp_path / "line", broker, **known, **QUICK) as line:
            wait_seeing(line)
            acl = broker.directory / "acl"
            acl.write_text(rights.format(WORKER, ""))
            broker.reload()
            line.wait_for(lambda seen: seen["pipeline"]["blind"], 15, "blindness to be told")
            assert line.overview()["pipeline"]["broker"]["connected"]
            assert "pulses-lost" in causes(line) or "canary-lost" in causes(line)
            with Oracle(broker.port, user="oracle", password=users["oracle"]) as oracle:
                oracle.publish("example-1", 0, i_peak_ua=900.0)
                wait_until(lambda: line.get("/api/alerts?rule=overcurrent-peak")["alerts"], 10, "a danger that is heard all the same")
            acl.write_text(rights.format(WORKER, own))
            broker.reload()
            (alert,) = wait_closed(line)
            assert "own messages do not come back" in alert["detail"]


def test_a_fleet_that_falls_silent_in_use_is_told_and_so_is_its_return(tmp_path: Path, mosquitto: Mosquitto) -> None:
    def running(seq: int) -> bytes:
        said = document(seq)
        said["samples"] = [{
            "dt_ms": 0, "run_state": "running", "program_id": "lift", "elapsed_s": seq, "output_on_s": seq, "zone": "cheek_l",
            "zone_source": "program", "zone_elapsed_s": seq, "auto_off_s": None, "end_reason": None,
        }]  # fmt: skip
        return json.dumps(said).encode()

    with with_mosquitto(tmp_path / "line", mosquitto, **QUICK) as line, Oracle(mosquitto.port) as oracle:
        for seq in range(3):
            for n in range(3):
                oracle.publish_raw(topic(f"example-{n}", "runtime"), running(seq))
        line.wait_settled(9)
        line.wait_for(lambda seen: seen["pipeline"]["blind"], 25, "silence to be told")
        assert causes(line) == {"fleet-silent"}
        oracle.publish_raw(topic("example-0", "runtime"), running(3))
        (alert,) = wait_closed(line)
        assert "no device is heard, though several should be" in alert["detail"]


def test_a_message_in_anothers_name_is_an_event_a_count_a_row_in_the_store_and_an_alert(
    tmp_path: Path, mosquitto: Mosquitto, influxdb: InfluxDB
) -> None:
    with with_mosquitto(tmp_path / "line", mosquitto, **influx_settings(influxdb), **QUICK) as line:
        for seq in range(2):
            mosquitto.publish(topic("example-1"), json.dumps(document(seq) | {"device_id": "example-2"}))
        (alert,) = wait_until(lambda: line.get("/api/alerts?rule=security-event")["alerts"], 10, "an alert")
        assert (alert["severity"], alert["state"]) == ("warning", "open")
        assert "identity_mismatch" in alert["detail"] and "example-1" in alert["detail"]
        wait_until(lambda: [e["times"] for e in line.answer("security")] == [2], 10, "both on record")
        (event,) = line.answer("security", "--kind", "identity_mismatch")
        assert ("identity_mismatch", "example-1") == (event["kind"], event["who"])
        counted = [row for row in line.request("GET", "/metrics")[2].decode().splitlines() if row.startswith("microcurrent_security_events_total")]
        assert counted == ['microcurrent_security_events_total{kind="identity_mismatch"} 2.0']
        stored = "SELECT sum(events) AS events FROM security GROUP BY kind"
        wait_until(lambda: [(row["kind"], row["events"]) for row in influxdb.query(stored)] == [("identity_mismatch", 2)], 25, "both in the store")
        assert (2, 2) == (line.ledger()["accepted"], line.ledger()["quarantined"])


@pytest.mark.long
def test_with_the_embedded_broker_the_canary_flies_and_a_worker_that_was_away_says_from_when_to_when(tmp_path: Path) -> None:
    with Installation(tmp_path / "line", mqtt_port=0, **QUICK) as line:
        wait_seeing(line)
        assert "through broker, judge and store" in " ".join(line.command("check").stdout.split())
        assert blind(line) == []
        line.stop()
        ended_s = time.monotonic()
        off = line.command("check", canary_interval_s=0)
        assert "MICROCURRENT_CANARY_INTERVAL_S turns it on" in " ".join(off.stdout.split())
        wait_until(lambda: time.monotonic() - ended_s > HOLD_S + 1, 10, "the hold to be over")
        line.start()
        (alert,) = wait_closed(line)
        assert "no worker watched; what devices sent is judged late (it had been stopped)" in alert["detail"]
        assert alert["closed_ms"] - alert["onset_ms"] >= 1_000 * HOLD_S
