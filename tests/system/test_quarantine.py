"""Refused messages through the command line: sent again whatever is killed, discarded, and counted; and reconcile finds what differs."""

import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import duckdb
import pytest

from tests.servers import LOOPBACK, InfluxDB, Mosquitto, wait_until
from tests.system.line import (
    Installation,
    Oracle,
    balanced,
    held_by_duckdb,
    held_by_influx,
    influx_settings,
    message,
    now_ms,
    topic,
    with_mosquitto,
)  # fmt: skip

pytestmark = pytest.mark.system

DAY_MS = 86_400_000
DEVICES = ("old-1", "old-2", "old-3")


HOSTILE = b"<script>alert(1)</script>\x1b[2J\r\nlevel=error '; DROP TABLE quarantine;--"


def refuse_old(line: Installation, broker: Mosquitto, each: int, *others: bytes) -> list[tuple[str, bytes]]:
    """Run with a retention of one day while devices publish what is three days old; what they said."""
    line.settings["retention_days"] = 1
    began_ms = now_ms() - 3 * DAY_MS
    said = [(device, message(seq, ts_ms=began_ms + 1_000 * seq)) for seq in range(each) for device in DEVICES]
    said += [(DEVICES[0], payload) for payload in others]
    with line:
        with Oracle(broker.port) as oracle:
            for device, payload in said:
                oracle.publish_raw(topic(device), payload)
        ledger = line.wait_settled(len(said))
    assert (len(said), len(said), 0) == (ledger["accepted"], ledger["quarantined"], ledger["stored"])
    line.settings["retention_days"] = 90
    return said


@pytest.mark.long
def test_a_replay_during_which_the_worker_is_killed_again_and_again_stores_each_message_once(tmp_path: Path, mosquitto: Mosquitto) -> None:
    chance, each, kills = random.Random(7), 400, 3
    line = with_mosquitto(tmp_path / "line", mosquitto)
    said = refuse_old(line, mosquitto, each)
    done = line.command("quarantine", "replay", "--device", "old-2", "--by", "Ada", "--note", "kept longer", "--yes")
    assert (3, f"0 replayed; {each} wait for the worker; 'quarantine list --state waiting' shows them\n") == (done.returncode, done.stdout)
    with line:
        which = json.dumps({"which": {"words": {}}, "by": "Ada"}).encode()
        for _ in range(kills):
            asked = threading.Thread(target=lambda: suppressed(lambda: line.request("POST", "/api/quarantine/replay", which, {"X-Microcurrent": "test"})))
            asked.start()
            time.sleep(chance.uniform(0.0, 0.05))  # the moment of the death is up to chance
            wait_until(line.kill_worker, 30, "a worker to kill")
            asked.join(120)
            line.wait_ready()
            with Oracle(mosquitto.port) as oracle:  # meanwhile a device says some of it again
                for device, payload in chance.sample(said, 3):
                    oracle.publish_raw(topic(device), payload)
        done = line.command("quarantine", "replay", "--all", "--yes", "--by", "Ada")
        assert 0 == done.returncode, done
        ledger = line.wait_settled(2 * len(said))
        assert balanced(ledger)
        assert (len(said), len(said)) == (ledger["stored"], ledger["quarantined"])
        assert {"open": 0, "waiting": 0, "replayed": len(said)}.items() <= of_quarantine(line).items()
        assert {"lost": 0, "doubled": 0, "spurious": 0, "messages": len(said)}.items() <= line.reconcile().items()
        events = [(e["event"], e["actor"]) for e in line.get("/api/quarantine/2")["events"]]
        assert ("replay", "Ada") == events[0] and events[-1] in (("kept", "~worker"), ("held", "~worker"))
        assert kills <= line.logged("event=restarting child=worker code=-9")
    assert {(device, 7, seq): 1 for device in DEVICES for seq in range(each)} == held_by_duckdb(line.data)


def of_quarantine(line: Installation) -> dict[str, Any]:
    return line.overview()["pipeline"]["quarantine"]


def suppressed(work: Callable[[], Any]) -> None:
    with suppress(OSError, http.client.HTTPException):
        work()


@pytest.fixture(scope="module")
def stale(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """A stopped worker with fifteen refused messages, and a hostile one."""
    root = tmp_path_factory.mktemp("stale")
    with Mosquitto(root / "mosquitto") as broker:
        line = with_mosquitto(root / "line", broker)
        refuse_old(line, broker, 5, HOSTILE)
    return line


def test_a_hostile_message_is_shown_escaped_and_what_people_ask_for_is_data(stale: Installation) -> None:
    shown = stale.command("quarantine", "show", "16").stdout
    assert "\x1b" not in shown and "\r" not in shown and r"\x1b[2J\r\nlevel=error" in shown
    listed = stale.answer("quarantine", "list", "--device", "'; DROP TABLE quarantine;--")
    assert {"messages": 0, "by_reason": {}, "by_device": {}, "entries": []} == listed
    found = stale.answer("quarantine", "list", "--limit", "1")
    assert (16, {"too_old": 15, "json_syntax": 1}, {"old-1": 6, "old-2": 5, "old-3": 5}) == tuple(found[n] for n in ("messages", "by_reason", "by_device"))


BAD = (
    b"", b"[]", b"{}", b'{"which":1}', b'{"which":{}}', b'{"which":{"ids":["1"]}}', b'{"which":{"ids":[]}}', b'{"which":{"ids":[1],"words":{}}}',
    b'{"which":{"words":{"state":"nonsense"}},"by":"x"}', b'{"which":{"words":{"a":1}},"by":"x"}', b'{"which":{"ids":[1]},"by":"\\u0000"}',
    b'{"which":{"ids":[9223372036854775808]},"by":"x"}', b'{"which":{"words":{"device":"x"},"after":true},"by":"x"}', b'{"which":{"ids":[1]},"note":3}',
)  # fmt: skip


@pytest.fixture
def answering(stale: Installation) -> Iterator[Installation]:
    """The same worker running, without its broker: nothing here needs one."""
    line = stale.start(ready=False)
    try:
        line.wait_for(lambda seen: True, 40, "the worker to answer")
        yield line
        line.stop()
    finally:
        line.end_everything()


def test_the_interface_does_what_it_is_made_for_and_nothing_else(answering: Installation) -> None:
    line = answering

    def post(act: str, body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
        status, _, answer = line.request("POST", f"/api/quarantine/{act}", body, headers or {"X-Microcurrent": "test"})
        return status, json.loads(answer)

    for act in ("replay", "discard", "preview"):
        for body in BAD:
            assert 400 == post(act, body)[0] or (act == "preview" and b'"ids":[1]},' in body), (act, body)
        assert 403 == post(act, b'{"which":{"ids":[1]},"by":"x"}', Origin="http://elsewhere")[0]
    for query in ("a=b", "state=x", "limit=0", "since=x", "reason=x"):
        assert 400 == line.request("GET", f"/api/quarantine?{query}")[0], query
    assert (16, 0) == (of_quarantine(line)["open"], of_quarantine(line)["replayed"])
    assert (200, {"outcomes": {"kept": 5}, "next": None}) == post("preview", b'{"which":{"words":{"device":"old-3"}}}')
    assert 5 == post("replay", b'{"which":{"words":{"device":"old-3"}},"by":"Ada","note":"n"}')[1]["replayed"]
    assert {"json_syntax": 1} == post("replay", b'{"which":{"ids":[16]},"by":"Ada"}')[1]["refused"]
    assert 1 == post("discard", b'{"which":{"ids":[16]},"by":"Ada"}')[1]["discarded"]
    for state, count in (("open", 10), ("replayed", 5), ("discarded", 1)):
        told = f'microcurrent_quarantine_messages{{state="{state}"}} {count}.0'
        wait_until(lambda told=told: told in line.request("GET", "/metrics")[2].decode(), 5, told)


# -- reconcile ----------------------------------------------------------------------------------------------


def differences(found: dict[str, Any]) -> set[tuple[str, str, int, int]]:
    return {(d["kind"], d["device_id"], d["boot_id"], d["seq"]) for some in found["differences"].values() for d in some}


def test_reconcile_names_what_is_lost_doubled_and_unknown_in_the_embedded_store(tmp_path: Path, mosquitto: Mosquitto) -> None:
    line = with_mosquitto(tmp_path / "line", mosquitto)
    with line:
        publish(line, mosquitto)
    with duckdb.connect(str(line.data / "telemetry.duckdb")) as store:
        store.execute("DELETE FROM current WHERE device_id = 'a' AND seq IN (3, 4)")
        store.execute("INSERT INTO current SELECT * FROM current WHERE device_id = 'b' AND seq = 7")
        store.execute("INSERT INTO current SELECT * REPLACE (99 AS seq) FROM current WHERE device_id = 'b' AND seq = 8")
        store.execute("INSERT INTO current SELECT * REPLACE ('nobody' AS device_id) FROM current WHERE device_id = 'b' AND seq = 9")
    wrong = {("lost", "a", 7, 3), ("lost", "a", 7, 4), ("doubled", "b", 7, 7), ("spurious", "b", 7, 99), ("spurious", "nobody", 7, 9)}
    found = line.answer("reconcile", codes=(1,))
    assert ((2, 1, 2), wrong) == (tuple(found[kind] for kind in ("lost", "doubled", "spurious")), differences(found))
    assert {each for each in wrong if each[1] == "a"} == differences(line.answer("reconcile", "--device", "a", codes=(1,)))
    with line:
        done = line.command("reconcile")
        assert 1 == done.returncode and "  lost: a boot 7 seq 3\n" in done.stdout and "2 lost, 1 doubled, 2 unknown" in done.stdout


def test_reconcile_names_what_is_lost_and_unknown_in_influxdb(tmp_path: Path, mosquitto: Mosquitto, influxdb: InfluxDB) -> None:
    with with_mosquitto(tmp_path / "line", mosquitto, **influx_settings(influxdb)) as line:
        publish(line, mosquitto)
        assert {"ok": True, "messages": 40, "devices": 2}.items() <= line.reconcile().items()
        (point,) = influxdb.query("SELECT boot_id, seq FROM current WHERE device_id = 'a' AND seq = 3")
        influxdb.query(f"DELETE FROM current WHERE device_id = 'a' AND time = {point['time']}")
        put(influxdb, b"current,device_id=it's\\ odd,model=m,fw=f boot_id=7i,seq=1i 1")
        assert {("lost", "a", 7, 3), ("spurious", "it's odd", 7, 1)} == differences(line.answer("reconcile", codes=(1,)))
        assert 1 == line.command("reconcile", "--device", "c").returncode
    assert 40 == sum(held_by_influx(influxdb).values())


def put(store: InfluxDB, line: bytes) -> None:
    with urlopen(f"http://{LOOPBACK}:{store.port}/write?db={store.database}", line, timeout=120) as answer:
        assert 204 == answer.status


def publish(line: Installation, broker: Mosquitto) -> None:
    with Oracle(broker.port) as oracle:
        for seq in range(20):
            for device in ("a", "b"):
                oracle.publish(device, seq)
        oracle.wait_acked(40)
    line.wait_settled(40)
