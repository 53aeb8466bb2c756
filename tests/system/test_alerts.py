"""A dangerous value is said at once, to those who must hear it, and what people answer is kept."""

import json
import time
from pathlib import Path

import pytest

from tests.servers import Mosquitto, wait_until
from tests.system.line import Oracle, alerts_heard, document, listener, message, topic, with_mosquitto

pytestmark = pytest.mark.system

DEADLINE_S = 2.0
"""From publishing to hearing the alert; a busy machine included."""


def test_an_overcurrent_is_said_in_time_and_its_acknowledgement_survives_a_restart(tmp_path: Path, mosquitto: Mosquitto) -> None:
    with with_mosquitto(tmp_path / "line", mosquitto) as line, listener(mosquitto.port, "mc/v1/+/alert") as heard:
        with Oracle(mosquitto.port) as oracle:
            oracle.publish("example-1", 0)
            line.wait_settled(1)
            assert [] == heard
            published_s = time.monotonic()
            oracle.publish("example-1", 1, i_peak_ua=900.0)
            wait_until(lambda: heard, 10, "the alert")
        ((heard_s, on, _),) = heard[:1]
        assert "mc/v1/example-1/alert" == on
        assert heard_s - published_s < DEADLINE_S
        (said,) = alerts_heard(heard)
        assert ("overcurrent-peak", "critical", "example-1", "s-1", "open", 900.0, 600.0, "µA", False) == tuple(
            said[n] for n in ("rule", "severity", "device_id", "session_id", "state", "value", "limit", "unit", "from_rejected")
        )
        (listed,) = line.answer("alerts", "list")
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
        assert 1 == len(alerts_heard(heard)), "an alert is opened once, whatever restarts"


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
        wait_until(lambda: len(alerts_heard(heard)) >= len(DANGEROUS), 10, f"{len(DANGEROUS)} alerts")
        said = {alert["device_id"]: (alert["rule"], alert["severity"], alert["from_rejected"]) for alert in alerts_heard(heard)}
        assert dict.fromkeys((f"example-{n}" for n in range(len(DANGEROUS))), ("overcurrent-peak", "critical", True)) == said
        ledger = line.wait_settled(len(DANGEROUS))
        assert (len(DANGEROUS), 0) == (ledger["quarantined"], ledger["stored"])
        reasons = {entry["device_id"]: entry["reason"] for entry in line.answer("quarantine", "list")}
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
        (entry,) = line.answer("quarantine", "list")
        assert 2 == entry["times"]
