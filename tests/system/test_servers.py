"""The real servers the other tests stand on do what those tests take for granted."""

import queue
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from urllib3.exceptions import HTTPError

from tests import servers
from tests.servers import InfluxDB, Mosquitto, PublishFailed, accepts, free_port, wait_until
from tests.system.conftest import APART

pytestmark = pytest.mark.system


@contextmanager
def subscriber(broker: Mosquitto, topic: str, client_id: str = "listener") -> Iterator[queue.Queue[tuple[str, bytes]]]:
    """A persistent QoS 1 subscriber; what it receives comes out of the queue."""
    heard: queue.Queue[tuple[str, bytes]] = queue.Queue()
    subscribed: queue.Queue[bool] = queue.Queue()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5)
    client.on_connect = lambda c, *_: c.subscribe(topic, qos=1)
    client.on_subscribe = lambda *_: subscribed.put(True)
    client.on_message = lambda _c, _u, message: heard.put((message.topic, message.payload))
    keep = Properties(PacketTypes.CONNECT)
    keep.SessionExpiryInterval = 3600
    client.connect(broker.host, broker.port, clean_start=False, properties=keep)
    client.loop_start()
    try:
        subscribed.get(timeout=120)
        yield heard
    finally:
        client.disconnect()
        client.loop_stop()


@contextmanager
def writer(store: InfluxDB, *, enable_gzip: bool = False) -> Iterator[InfluxDBClient]:
    with InfluxDBClient(store.url, token="any", org="any", enable_gzip=enable_gzip, timeout=120_000) as client:
        yield client


def write(client: InfluxDBClient, store: InfluxDB, lines: str) -> None:
    client.write_api(write_options=SYNCHRONOUS).write(bucket=store.database, record=lines)


def test_a_message_published_is_a_message_received(mosquitto: Mosquitto) -> None:
    payload = bytes(range(256))
    with subscriber(mosquitto, "mc/v1/+/current") as heard:
        mosquitto.publish("mc/v1/example-1/current", payload)
        assert ("mc/v1/example-1/current", payload) == heard.get(timeout=120)


def test_a_broker_stopped_and_started_again_keeps_its_port_and_its_sessions(mosquitto: Mosquitto) -> None:
    port = mosquitto.port
    with subscriber(mosquitto, "mc/v1/+/current"):
        pass
    mosquitto.publish("mc/v1/example-1/current", "while away")
    mosquitto.stop()
    assert (False, False) == (mosquitto.running, accepts(port))
    mosquitto.start()
    with subscriber(mosquitto, "mc/v1/+/current") as heard:
        assert ("mc/v1/example-1/current", b"while away") == heard.get(timeout=120)
    assert port == mosquitto.port


def test_a_broker_killed_before_its_snapshot_has_lost_the_session(mosquitto: Mosquitto) -> None:
    with subscriber(mosquitto, "mc/v1/+/current"):
        pass
    mosquitto.kill()
    mosquitto.data.unlink(missing_ok=True)
    mosquitto.start()
    with subscriber(mosquitto, "mc/v1/+/current") as heard:
        mosquitto.publish("mc/v1/example-1/current", "after")
        assert ("mc/v1/example-1/current", b"after") == heard.get(timeout=120)


def test_a_broker_with_users_refuses_strangers_and_enforces_its_acl(tmp_path: Path) -> None:
    acl = "pattern write mc/v1/%u/current\npattern read mc/v1/%u/current\n"
    with Mosquitto(tmp_path, users={"example-1": "secret-1", "example-2": "secret-2"}, acl=acl) as broker:
        with pytest.raises(PublishFailed, match="Not authorized"):
            broker.publish("mc/v1/example-1/current", "x")
        broker.publish("mc/v1/example-1/current", "x", user="example-1")
        with pytest.raises(PublishFailed, match="Not authorized"):
            broker.publish("mc/v1/example-1/current", "x", user="example-2")


def test_a_packet_over_the_limit_is_refused_and_the_broker_serves_on(mosquitto: Mosquitto) -> None:
    with subscriber(mosquitto, "mc/v1/+/current") as heard:
        with pytest.raises(PublishFailed, match="connection was lost"):
            mosquitto.publish("mc/v1/example-1/current", b"x" * 1_048_577, version="311")
        mosquitto.publish("mc/v1/example-1/current", "small")
        assert ("mc/v1/example-1/current", b"small") == heard.get(timeout=120)


def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="ended with code"):
        Mosquitto(tmp_path, settings={"no_such_option": "1"}).start()


@pytest.mark.parametrize("enable_gzip", [False, True], ids=["plain", "gzip"])
def test_what_the_v2_client_writes_influxql_reads(influxdb: InfluxDB, enable_gzip: bool) -> None:
    with writer(influxdb, enable_gzip=enable_gzip) as client:
        write(client, influxdb, "current,device_id=example-1 i_peak_ua=201.2,seq=412i,boost=false 1795298400000000001")
    assert [
        {"time": 1795298400000000001, "boost": False, "device_id": "example-1", "i_peak_ua": 201.2, "seq": 412}
    ] == influxdb.query('SELECT * FROM "current"')


def test_rows_of_a_grouped_query_carry_their_tags(influxdb: InfluxDB) -> None:
    with writer(influxdb) as client:
        write(client, influxdb, "m,device_id=a x=1 1\nm,device_id=a x=3 2\nm,device_id=b x=5 3")
    assert [
        {"device_id": "a", "time": 0, "mean": 2},
        {"device_id": "b", "time": 0, "mean": 5},
    ] == influxdb.query('SELECT mean(x) FROM "m" GROUP BY device_id')


def test_a_field_of_another_type_is_refused_with_400_in_the_engines_own_words(influxdb: InfluxDB) -> None:
    with writer(influxdb) as client:
        write(client, influxdb, "m value=1i 1")
        with pytest.raises(ApiException) as refused:
            write(client, influxdb, "m value=1.5 2")
    assert 400 == refused.value.status
    assert "field type conflict" in refused.value.body
    assert [{"time": 1, "value": 1}] == influxdb.query('SELECT * FROM "m"')


def test_a_line_that_cannot_be_read_is_refused_with_400(influxdb: InfluxDB) -> None:
    with writer(influxdb) as client, pytest.raises(ApiException) as refused:
        write(client, influxdb, "m value= 1")
    assert 400 == refused.value.status


def test_an_unknown_bucket_is_refused_with_404(influxdb: InfluxDB) -> None:
    with writer(influxdb) as client, pytest.raises(ApiException) as refused:
        client.write_api(write_options=SYNCHRONOUS).write(bucket="nowhere", record="m value=1 1")
    assert 404 == refused.value.status


def test_the_v2_client_finds_the_store_alive(influxdb: InfluxDB) -> None:
    with writer(influxdb) as client:
        assert client.ping()


@pytest.mark.parametrize("end", [InfluxDB.stop, InfluxDB.kill], ids=["stopped", "killed"])
def test_a_store_that_ends_refuses_connections_and_comes_back_with_its_data(influxdb: InfluxDB, end) -> None:
    with writer(influxdb) as client:
        write(client, influxdb, "m value=1 1")
        end(influxdb)
        with pytest.raises(HTTPError):
            write(client, influxdb, "m value=2 2")
        influxdb.start()
        write(client, influxdb, "m value=3 3")
    assert [{"time": 1, "value": 1}, {"time": 3, "value": 3}] == influxdb.query('SELECT * FROM "m"')


def test_a_missing_server_skips_the_test_by_name_and_fails_it_in_ci(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tests.servers.SYSTEM_PATH", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="mosquitto is not installed"):
        Mosquitto(tmp_path)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="influxd is not installed"):
        InfluxDB(tmp_path)


def test_waiting_ends_with_the_conditions_value_or_says_what_was_awaited() -> None:
    answers = iter([0, None, "here"])
    assert "here" == wait_until(lambda: next(answers), 5, "an answer")
    with pytest.raises(pytest.fail.Exception, match=f"waited {0.05 * servers.PATIENCE:g} s for rain"):
        wait_until(lambda: False, 0.05, "rain")


def test_a_free_port_has_no_listener_and_is_given_to_nobody_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        given = [free_port() for _ in range(50)]
        assert not any(accepts(port) for port in given)
        assert len(given) == len(set(given)) and max(given) < somebody.getsockname()[1]


@pytest.mark.parametrize("name", sorted(APART))
def test_a_file_whose_tests_run_in_any_process_shares_no_fixture_among_them(name: str) -> None:
    assert not re.search(r'scope="(module|package|session)"', Path(__file__).with_name(name).read_text())
