"""One line in a shell ends as one point in the store, or as one entry in quarantine."""

import json
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest

from tests.servers import InfluxDB, Mosquitto, wait_until
from tests.system.line import Distance, Installation, Oracle, influx_settings, message, topic, with_mosquitto

pytestmark = pytest.mark.system

TS_MS = 1_795_298_400_000
BOOT = 3_735_928_559


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_one_line_from_a_shell_becomes_one_point_and_an_unreadable_one_is_kept_with_its_reason(
    tmp_path: Path, mosquitto: Mosquitto, influxdb: InfluxDB, protocol: str
) -> None:
    settings = influx_settings(influxdb)
    with with_mosquitto(tmp_path / "line", mosquitto, mqtt_protocol=protocol, retention_days=36_500, summary_retention_days=36_500, **settings) as line:
        mosquitto.publish(topic("example-1"), message(412, boot_id=BOOT, ts_ms=TS_MS, session_id="s-7f3a"))
        mosquitto.publish(topic("example-1"), '{"v": 1, "boot_id":')
        line.wait_settled(2)
        (point,) = influxdb.query('SELECT * FROM "current"')
        assert {"device_id": "example-1", "model": "toneduo-400", "fw": "2.3.1"} == {
            name: point[name] for name in ("device_id", "model", "fw")
        }
        assert {
            "boot_id": BOOT, "seq": 412, "session_id": "s-7f3a", "hw": "B", "device_ms": TS_MS, "clock_ok": True,
            "window_ms": 1000, "i_set_ua": 200.0, "i_peak_ua": 201.2, "i_rms_ua": 142.1, "i_dc_ua": 0.4,
            "q_pos_uc": 71.0, "q_neg_uc": 70.8, "v_peak_mv": 1610.0, "clip_frac": 0.0, "freq_hz": 8.3,
            "pulse_us": 60000.0, "duty": 0.5, "level": 3, "boost": False, "output_enabled": True, "mode": "alt_burst",
        } == {name: value for name, value in point.items() if name not in ("time", "received_ms", "device_id", "model", "fw")}  # fmt: skip
        assert TS_MS == point["time"] // 1_000_000
        (kept,) = line.answer("quarantine", "list")["entries"]
        assert ("json_syntax", "mc/v1/example-1/current", "example-1", 19) == (
            kept["reason"], kept["topic"], kept["device_id"], kept["bytes"],
        )  # fmt: skip
        shown = line.answer("quarantine", "show", str(kept["id"]))
        assert '{"v": 1, "boot_id":' == shown["payload_text"]
        ledger = line.ledger()
        assert (2, 0, 1, 0, 1) == tuple(ledger[n] for n in ("accepted", "pending", "stored", "duplicate", "quarantined"))
        line.stop()
        # Both were acknowledged: a broker sends what was not to whoever takes up the session again.
        assert [] == redelivered(mosquitto, (line.data / "credentials" / "client-id").read_text().strip(), protocol)


def redelivered(broker: Mosquitto, client_id: str, protocol: str) -> list[str]:
    """The topics of what the broker still holds for a session, once a fresh message has passed through it."""
    heard: list[str] = []
    version = mqtt.MQTTv5 if protocol == "5" else mqtt.MQTTv311
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id, protocol=version, clean_session=None if protocol == "5" else False)
    present: list[bool] = []
    client.on_connect = lambda _c, _u, flags, _r, _p: present.append(flags.session_present)
    client.on_message = lambda _c, _u, m: heard.append(m.topic)
    options = {"clean_start": False} if protocol == "5" else {}
    client.connect(broker.host, broker.port, **options)
    client.loop_start()
    try:
        wait_until(lambda: present, 10, "a connection")
        assert [True] == present, "the broker has no session of this name"
        broker.publish("mc/v1/probe/current", "the last in the queue")
        wait_until(lambda: "mc/v1/probe/current" in heard, 10, "the probe")
    finally:
        client.disconnect()
        client.loop_stop()
    return [on for on in heard if on != "mc/v1/probe/current" and not on.startswith("mc/v1/ingest-")]


@pytest.mark.parametrize(("protocol", "window"), [("5", 1_000), ("3.1.1", 20)])
def test_what_waited_at_a_distant_broker_is_taken_once_and_the_line_goes_on(tmp_path: Path, protocol: str, window: int) -> None:
    """A broker sends what it holds for a session before it has heard the subscription: that is acknowledged too."""
    with (
        Mosquitto(tmp_path / "mosquitto", settings={"max_inflight_messages": "20"}) as broker,
        Distance(broker.port, one_way_s=0.03) as way,
        Installation(tmp_path / "line", broker="external", mqtt_port=way.port, mqtt_protocol=protocol) as line,
    ):
        line.stop()
        with Oracle(broker.port) as oracle:
            for seq in range(2 * window):
                oracle.publish("example-1", seq)
            oracle.wait_acked(2 * window)
            line.start()
            oracle.publish("example-1", 2 * window)
            ledger = line.wait_settled(2 * window + 1, 15)
            assert (2 * window + 1, 0, 0) == (ledger["stored"], ledger["duplicate"], ledger["quarantined"])
            before = line.overview()["pipeline"]["observed_until_ms"]
            line.wait_for(lambda seen: (seen["pipeline"]["observed_until_ms"] or 0) > (before or 0), 10, "a pulse to come back")
            line.stop()
        assert [] == redelivered(broker, (line.data / "credentials" / "client-id").read_text().strip(), protocol)


def test_a_broker_that_speaks_only_mqtt_311_is_fallen_back_to(tmp_path: Path) -> None:
    """The embedded broker stands for any such: here it is somebody else's, and the worker an external one of it."""
    with Installation(tmp_path / "theirs", broker="embedded", mqtt_port=0) as theirs:
        credentials = theirs.data / "credentials"
        port = int((credentials / "broker.port").read_text())
        user = json.loads((credentials / "worker.json").read_text())
        theirs.leave_only_the_broker()
        password = tmp_path / "password"
        password.write_text(user["password"])
        ours = Installation(
            tmp_path / "ours", broker="external", mqtt_port=port, mqtt_client_id=user["name"],
            mqtt_username=user["name"], mqtt_password_file=password,
        )  # fmt: skip
        with ours:
            seen = ours.overview()["pipeline"]["broker"]
            assert (True, f"MQTT 3.1.1 at 127.0.0.1:{port}") == (seen["connected"], seen["detail"])
