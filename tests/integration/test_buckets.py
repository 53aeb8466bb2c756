"""Two buckets: readings in one, what lasts in the other, and an outage of either only delays."""

from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.servers import InfluxDB, Mosquitto, wait_until
from tests.system.line import Installation, balanced, held_by_influx, influx_settings, message, now_ms, topic, with_mosquitto

pytestmark = pytest.mark.system


def alerts(store: InfluxDB, policy: str, database: str | None = None) -> list[str]:
    return [row["rule"] for row in store.query(f'SELECT "rule", "value" FROM "{policy}"."alert"', database=database)]


def settled(line: Installation, messages: int) -> None:
    ledger = line.wait_settled(messages)
    assert (messages, 0) == (ledger["stored"], ledger["quarantined"])
    assert balanced(ledger)


def test_readings_go_to_one_bucket_and_alerts_to_the_other(tmp_path: Path, mosquitto: Mosquitto, influxdb: InfluxDB) -> None:
    with with_mosquitto(tmp_path / "line", mosquitto, **influx_settings(influxdb)) as line:
        mosquitto.publish(topic("example-1"), message(0, i_peak_ua=900.0))
        settled(line, 1)
        wait_until(lambda: alerts(influxdb, "long") == ["overcurrent-peak"], 10, "the alert in the long bucket")
        assert [] == alerts(influxdb, "autogen")
        assert {("example-1", 7, 0): 1} == held_by_influx(influxdb)
        assert [] == influxdb.query('SELECT i_peak_ua FROM "long"."current"')
        assert line.reconcile()["ok"]


def test_one_bucket_may_take_everything(tmp_path: Path, mosquitto: Mosquitto, influxdb: InfluxDB) -> None:
    settings = influx_settings(influxdb) | {"influx_long_bucket": influxdb.database}
    with with_mosquitto(tmp_path / "line", mosquitto, **settings) as line:
        mosquitto.publish(topic("example-1"), message(0, i_peak_ua=900.0))
        settled(line, 1)
        wait_until(lambda: alerts(influxdb, "autogen") == ["overcurrent-peak"], 10, "the alert")
        assert [] == alerts(influxdb, "long")


@pytest.mark.parametrize("which", ["influx_bucket", "influx_long_bucket"])
def test_while_one_bucket_is_away_nothing_is_lost_of_either(tmp_path: Path, mosquitto: Mosquitto, influxdb: InfluxDB, which: str) -> None:
    settings = influx_settings(influxdb) | {which: "later"}
    with with_mosquitto(tmp_path / "line", mosquitto, **settings) as line:
        for seq in range(5):
            mosquitto.publish(topic("example-1"), message(seq, i_peak_ua=900.0))
        seen = line.wait_for(lambda seen: "404" in seen["pipeline"]["store"]["detail"], 10, "the refusal")
        assert "bucket later" in seen["pipeline"]["store"]["detail"]
        assert (0, 0) == (seen["ledger"]["quarantined"], seen["ledger"]["duplicate"])
        influxdb.query('CREATE DATABASE "later"')
        line.stop()
        line.start()
        settled(line, 5)
        near, far = ("later", None) if which == "influx_bucket" else (None, "later")
        count = 'SELECT count("seq") FROM "current"'
        assert [5] == [row["count"] for row in influxdb.query(count, database=near)]
        policy = "long" if far is None else "autogen"
        wait_until(lambda: alerts(influxdb, policy, far) == ["overcurrent-peak"], 10, "the alert")


def test_a_point_that_the_long_bucket_will_never_take_holds_up_no_reading(tmp_path: Path, mosquitto: Mosquitto, influxdb: InfluxDB) -> None:
    url = f"{influxdb.url}/api/v2/write?bucket={influxdb.long_bucket}&precision=ns"
    line_of_another = f'alert,device_id=by-hand value="much" {now_ms() * 1_000_000}'.encode()
    with urlopen(Request(url, data=line_of_another, method="POST"), timeout=120) as answer:
        assert 204 == answer.status
    with with_mosquitto(tmp_path / "line", mosquitto, **influx_settings(influxdb)) as line:
        for seq in range(5):
            mosquitto.publish(topic("example-1"), message(seq, i_peak_ua=900.0))
        settled(line, 5)
        wait_until(lambda: "store_refused" in line.log.read_text(), 10, "the refusal in the log")
        assert {("example-1", 7, seq): 1 for seq in range(5)} == held_by_influx(influxdb)


def test_check_tries_both_buckets_and_names_the_one_that_fails(tmp_path: Path, influxdb: InfluxDB) -> None:
    both = influx_settings(influxdb)

    def said(**settings: str) -> str:
        return Installation(tmp_path / "line", **{**both, **settings}).command("check").stdout

    assert f"takes writes to buckets {influxdb.database} and {influxdb.long_bucket}" in said()
    for which in ("influx_bucket", "influx_long_bucket"):
        assert "check url, org, bucket nowhere and token" in said(**{which: "nowhere"})
