"""Database or broker down, killed, or with other ideas: break → claim → mend → claim."""

import time
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.servers import InfluxDB, Mosquitto, wait_until
from tests.system.line import (
    Oracle,
    alerts_heard,
    balanced,
    held_by_duckdb,
    held_by_influx,
    influx_settings,
    listener,
    message,
    now_ms,
    topic,
    with_mosquitto,
)  # fmt: skip

pytestmark = pytest.mark.system

OUTAGE_S = 3.0
"""What holds for these seconds holds for a day: nothing here waits for a time to pass."""

WEEK_MS = 7 * 86_400_000


def write(store: InfluxDB, line: str) -> None:
    """By hand, past the product."""
    url = f"{store.url}/api/v2/write?bucket={store.database}&precision=ns"
    with urlopen(Request(url, data=line.encode(), method="POST"), timeout=120) as answer:
        assert 204 == answer.status


@pytest.mark.long
def test_while_the_database_is_down_alerts_go_on_and_afterwards_every_reading_is_there(
    tmp_path: Path, mosquitto: Mosquitto, influxdb: InfluxDB
) -> None:
    with (
        with_mosquitto(tmp_path / "line", mosquitto, **influx_settings(influxdb)) as line,
        listener(mosquitto.port, "mc/v1/+/alert") as heard,
        Oracle(mosquitto.port) as oracle,
    ):
        oracle.publish("example-1", 0)
        line.wait_settled(1)

        influxdb.stop()
        end, seq = time.monotonic() + OUTAGE_S, 1
        while time.monotonic() < end:
            oracle.publish("example-1", seq, session_id=f"s-{seq // 500}")
            if seq % 100 == 50:
                oracle.publish("example-2", seq // 100, session_id=f"s-{seq}", i_peak_ua=900.0)
            seq += 1
            time.sleep(0.003)
        dangers = len(range(50, seq, 100))
        wait_until(lambda: [a["rule"] for a in alerts_heard(heard)].count("overcurrent-peak") == dangers, 5, f"{dangers} alerts")
        seen = line.wait_for(
            lambda seen: seen["ledger"]["accepted"] == seq + dangers and seen["ledger"]["inbox"] == 0 and not seen["pipeline"]["store"]["ok"],
            30, "all to be judged, and the outage to be seen",
        )  # fmt: skip
        assert (1, seq + dangers - 1) == (seen["ledger"]["stored"], seen["ledger"]["outbox"]), seen["ledger"]
        assert balanced(seen["ledger"])
        assert 1 == line.command("status").returncode

        influxdb.start()
        line.wait_settled(seq + dangers, 60)
        found = line.reconcile()
        assert (True, seq + dangers) == (found["ok"], found["messages"])
        assert dict.fromkeys(oracle.acked, 1) == held_by_influx(influxdb)
        assert 0 == line.command("status").returncode


def test_a_message_that_the_database_will_never_take_is_set_aside_and_all_others_are_stored(
    tmp_path: Path, mosquitto: Mosquitto, influxdb: InfluxDB
) -> None:
    """Types belong to a shard, that is to a week: somebody has written text where currents of six weeks ago go."""
    then_ms = now_ms() - 6 * WEEK_MS
    write(influxdb, f'current,device_id=by-hand i_peak_ua="much" {then_ms * 1_000_000}')
    with with_mosquitto(tmp_path / "line", mosquitto, **influx_settings(influxdb)) as line:
        with Oracle(mosquitto.port) as oracle:
            for seq in range(60):
                oracle.publish("example-1", seq, ts_ms=then_ms + 1_000 if seq == 30 else None)
            oracle.wait_acked(60)
        ledger = line.wait_settled(60)
        assert (59, 1) == (ledger["stored"], ledger["quarantined"])
        assert balanced(ledger)
        (entry,) = line.answer("quarantine", "list")["entries"]
        assert ("sink_rejected_400", "example-1", 30) == (entry["reason"], entry["device_id"], entry["seq"])
        assert "type conflict" in entry["detail"]
        found = line.reconcile()
        assert (True, 59) == (found["ok"], found["messages"])
        assert {("example-1", 7, seq): 1 for seq in range(60) if seq != 30} == {
            key: count for key, count in held_by_influx(influxdb).items() if key[0] == "example-1"
        }


@pytest.mark.parametrize("pause_s", [0.0, 0.1], ids=["in a flood", "one by one"])
def test_a_bucket_that_refuses_everybody_is_held_back_and_not_set_aside(
    tmp_path: Path, mosquitto: Mosquitto, influxdb: InfluxDB, pause_s: float
) -> None:
    """The first few may be taken for the messages' own fault, until it is seen that it is not theirs."""
    write(influxdb, f'current,device_id=by-hand i_peak_ua="much" {now_ms() * 1_000_000}')
    with with_mosquitto(tmp_path / "line", mosquitto, **influx_settings(influxdb)) as line, Oracle(mosquitto.port) as oracle:
        for n in range(40):
            oracle.publish(f"example-{n % 4}", n // 4)
            time.sleep(pause_s)
        oracle.wait_acked(40)
        seen = line.wait_for(
            lambda seen: seen["ledger"]["accepted"] == 40 and "schema incident" in seen["pipeline"]["store"]["detail"], 10, "the store to be held for unfit"
        )
        assert not seen["pipeline"]["store"]["ok"]
        assert seen["ledger"]["quarantined"] <= 6
        assert balanced(seen["ledger"])


def test_a_bucket_that_does_not_exist_holds_everything_until_it_does(tmp_path: Path, mosquitto: Mosquitto, influxdb: InfluxDB) -> None:
    settings = influx_settings(influxdb) | {"influx_bucket": "later"}
    with with_mosquitto(tmp_path / "line", mosquitto, **settings) as line:
        mosquitto.publish(topic("example-1"), message(0))
        seen = line.wait_for(lambda seen: "404" in seen["pipeline"]["store"]["detail"] and seen["ledger"]["outbox"] == 1, 10, "the refusal")
        assert (1, 0) == (seen["ledger"]["outbox"], seen["ledger"]["quarantined"])
        influxdb.query('CREATE DATABASE "later"')
        line.stop()
        line.start()
        line.wait_settled(1)
        assert [{"i_peak_ua": 201.2}] == [{"i_peak_ua": row["i_peak_ua"]} for row in influxdb.query('SELECT i_peak_ua FROM "current"', database="later")]


# -- the broker -------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_broker_that_lost_its_sessions_is_noticed_and_the_line_goes_on(tmp_path: Path, protocol: str) -> None:
    forgetful = {"persistence": "false", "persistence_location": None, "autosave_interval": None}
    with (
        Mosquitto(tmp_path / "mosquitto", settings=forgetful) as broker,
        with_mosquitto(tmp_path / "line", broker, mqtt_protocol=protocol) as line,
    ):
        pid = line.worker_pid
        broker.publish(topic("example-1"), message(0))
        line.wait_settled(1)
        assert line.overview()["pipeline"]["broker"]["session_lost_ms"] is None
        for n in range(1, 3):
            lost_before = line.overview()["pipeline"]["broker"]["session_lost_ms"] or 0
            broker.kill()
            line.wait_for(lambda seen: not seen["pipeline"]["broker"]["connected"], 10, "the loss to be noticed")
            assert 1 == line.command("status").returncode
            broker.start()
            line.wait_for(lambda seen: seen["pipeline"]["broker"]["connected"], 20, "the worker to be back")
            broker.publish(topic("example-1"), message(n))
            line.wait_settled(n + 1)
            status = line.answer("status")
            assert status["pipeline"]["broker"]["session_lost_ms"] > lost_before
        assert (pid, 0) == (line.worker_pid, line.logged("event=restarting"))
        assert line.reconcile()["ok"]


def test_a_broker_that_keeps_its_sessions_is_not_said_to_have_lost_them(tmp_path: Path, mosquitto: Mosquitto) -> None:
    with with_mosquitto(tmp_path / "line", mosquitto) as line:
        mosquitto.stop()
        line.wait_for(lambda seen: not seen["pipeline"]["broker"]["connected"], 10, "the loss to be noticed")
        mosquitto.start()
        seen = line.wait_for(lambda seen: seen["pipeline"]["broker"]["connected"], 20, "the worker to be back")
        assert (True, None) == tuple(seen["pipeline"]["broker"][n] for n in ("session_present", "session_lost_ms"))


def test_acknowledgements_of_a_broker_that_died_take_nothing_away_from_the_next(tmp_path: Path) -> None:
    """Packet ids start again at 1; an old acknowledgement would destroy a new message."""
    forgetful = {"persistence": "false", "persistence_location": None, "autosave_interval": None}
    rounds, each = 5, 400
    with Mosquitto(tmp_path / "mosquitto", settings=forgetful) as broker, with_mosquitto(tmp_path / "line", broker) as line:
        owed = set()
        for n in range(rounds):
            # While the line is back, and only then, a PUBACK means that the broker has it for the line.
            wait_until(lambda n=n: line.logged("event=broker_connected") > n, 30, "the worker to be back")
            with Oracle(broker.port, client_id=f"oracle-{n}") as oracle:
                for seq in range(each):
                    oracle.publish(f"example-{n}", seq)
                owed |= oracle.wait_acked(each)
                assert 0 == oracle.refused
                line.wait_for(lambda seen, n=n: seen["ledger"]["accepted"] >= each * (n + 1), 10, "them to be taken in")
                for seq in range(each, 2 * each):
                    oracle.publish(f"in-flight-{n}", seq)
                if n < rounds - 1:
                    broker.kill()  # with messages, and acknowledgements, on their way
                    broker.start()
        line.wait_settled(each * rounds)
        assert line.reconcile()["ok"]
        assert 0 == line.logged("event=restarting")
        line.stop()
    held = held_by_duckdb(line.data)
    assert owed <= set(held)
    assert {1} == set(held.values())
