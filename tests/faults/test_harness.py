"""The harness is judged first: on a real line with three fail-points, and then on a store that somebody has tampered with."""

import random
import time
from pathlib import Path

import duckdb
import pytest

from tests.faults.contract import PLAIN, REFUSED, Key
from tests.faults.influx import FakeInflux, fields_of, split
from tests.faults.judge import Issued, judge
from tests.faults.oracle_client import Oracle
from tests.faults.rows_worker import walk
from tests.faults.stores import duckdb_rows
from tests.faults.trial import Trial
from tests.faults.wire import PUBLISH, V5, Parser, publish, published

pytestmark = pytest.mark.system


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial("0", "the harness itself", random.SystemRandom().randrange(1 << 32), tmp_path)


def test_three_fail_points_and_a_judge_that_notices_what_is_taken_doubled_forged_and_altered(trial: Trial) -> None:
    places = ["accepted:2:kill", "duckdb-committed:kill", "settle-upto-uncommitted:kill"]
    with trial.mosquitto() as broker, trial.line(broker) as line, trial.oracle() as oracle:
        oracle.devices(4, broker.port, refused_every=50)
        oracle.issue(10_000_000, per_s=200)
        walk(trial, line, places)
        oracle.halt()
        oracle.wait_acknowledged(60)
        trial.judge(line, oracle, duplicates=True)
        assert [] == trial.outcome.violations
        assert {"accepted": 1, "duckdb-committed": 1, "settle-upto-uncommitted": 1} == trial.outcome.reached
        assert 4 == trial.outcome.kills
        assert trial.outcome.samples > 0 and trial.outcome.messages > 100
        issued, store = oracle.issued(), line.data / "telemetry.duckdb"
    aside = [key for key, (_, kind) in issued.messages.items() if kind == REFUSED]
    a, b, c, d = sorted(key for key, (_, kind) in issued.messages.items() if kind == PLAIN and key.seq % 8 == 0)[:4]

    def seen_after(statement: str, *values: object) -> dict[str, int]:
        with duckdb.connect(str(store)) as db:
            db.execute("BEGIN")
            db.execute(statement, values)
            db.execute("COMMIT")
        verdict = judge(issued, duckdb_rows(line.data), aside)
        return {name: n for name in ("lost", "doubled", "spurious", "damaged", "both") if (n := getattr(verdict, name))}

    assert {} == seen_after("SELECT 1")
    assert {"lost": 1} == seen_after('DELETE FROM "current" WHERE device_id = ? AND seq = ?', a.device_id, a.seq)
    same = 'INSERT INTO "current" SELECT * FROM "current" WHERE device_id = ? AND seq = ?'
    assert {"lost": 1, "doubled": 1} == seen_after(same, b.device_id, b.seq)
    forged = 'INSERT INTO "current" SELECT * REPLACE (4000000 AS seq) FROM "current" WHERE device_id = ? AND seq = ?'
    assert {"lost": 1, "doubled": 1, "spurious": 1} == seen_after(forged, c.device_id, c.seq)
    altered = 'UPDATE "current" SET i_peak_ua = i_peak_ua + 0.001 WHERE device_id = ? AND seq = ?'
    assert {"lost": 1, "doubled": 1, "spurious": 1, "damaged": 1} == seen_after(altered, d.device_id, d.seq)


def test_what_is_stored_and_in_quarantine_or_twice_there_or_stored_against_the_contract_is_noticed(tmp_path: Path) -> None:
    key, bad = Key("dev-0", 7, 0), Key("dev-0", 7, 1)
    issued = Issued({key: (1_000, PLAIN), bad: (1_000, REFUSED)}, {key, bad})
    verdict = judge(issued, [], [key, bad])
    assert verdict.ok and verdict.quarantined == 2
    assert "doubled: " + f"{bad} is 2 times in quarantine" in judge(issued, [], [key, bad, bad]).sentences
    assert 1 == judge(issued, [], [key, bad, Key("dev-9", 7, 0)]).spurious
    row = {"device_id": "dev-0", "boot_id": 7, "seq": 1, "stream": "current", "time_ns": 0, "clock_ok": True}
    verdict = judge(issued, [row], [key, bad])
    assert (1, 1) == (verdict.both, verdict.spurious)
    assert (0, 1) == ((verdict := judge(issued, [row], [key, bad], {bad})).both, verdict.spurious), "a copy that nobody has read"


def test_a_fault_that_did_not_happen_and_a_promise_that_is_broken_are_violations(trial: Trial) -> None:
    trial.must_have_happened("an earthquake")
    trial.must(False, "the sky fell")
    assert ["I10: an earthquake: 0 times, expected 1 or more: the trial is too kind", "the sky fell"] == trial.outcome.violations
    assert not trial.outcome.ok


def test_gaps_are_those_below_the_highest_that_arrived() -> None:
    keys = [Key("dev-0", 7, seq) for seq in range(8)]
    issued = Issued(dict.fromkeys(keys, (0, PLAIN)))
    assert [(1, 2), (5, 5)] == issued.holes(keys[0], {keys[1], keys[2], keys[5], keys[7]})


def test_the_oracle_notes_an_obligation_only_when_it_is_acknowledged(trial: Trial) -> None:
    with trial.mosquitto() as broker, Oracle(trial.place("oracle"), 1) as oracle:
        oracle.devices(2, broker.port)  # nobody acknowledges durably here
        oracle.issue(10)
        oracle.wait_issued(10)
        deadline = time.monotonic() + 10
        while oracle.status()["sent"] < 10 and time.monotonic() < deadline:
            time.sleep(0.02)
        issued = oracle.issued()
        assert (10, set()) == (len(issued.messages), issued.acked)
        assert oracle.status()["refused"] >= 10, "nobody subscribes, and it says so"


def test_the_store_that_answers_as_it_is_told_keeps_nothing_of_a_400_and_the_rest_of_a_422() -> None:
    good, bad = 'current,device_id=a,model=m,fw=1 x=1.5,s="a, \\"b\\" c",n=3i,b=True 12', "current,device_id=a,model=m,fw=1 x=2 13"
    with FakeInflux() as store:
        store.is_bad = lambda line: line.endswith(" 13")
        assert 400 == store.answer("telemetry", [good, bad]).status
        assert {} == store.points
        store.is_bad, store.is_refused = None, lambda line: line.endswith(" 13")
        assert 422 == store.answer("telemetry", [good, bad]).status
        assert [{"time_ns": 12, "device_id": "a", "model": "m", "fw": "1", "x": 1.5, "s": 'a, "b" c', "n": 3, "b": True}] == store.rows("current")
        store.is_refused = None
        assert 204 == store.answer("telemetry", [good]).status
        assert (1, 0) == (store.overwritten["current"], store.changed["current"])
        store.answer("telemetry", [good.replace("n=3i", "n=4i")])
        assert 1 == store.changed["current"]
    assert ("current,device_id=a,model=m,fw=1", 12) == (split(good)[0], split(good)[2])
    assert {"x": 2.0} == fields_of("x=2")


def test_packets_are_found_however_their_bytes_arrive() -> None:
    payload = b"x" * 300
    data = b"".join(publish("mc/v1/d/current", payload, mid, V5) for mid in (1, 500))
    parser = Parser()
    found = [packet for at in range(len(data)) for packet in parser.feed(data[at : at + 1])]
    assert [PUBLISH, PUBLISH] == [packet.kind for packet in found]
    assert [("mc/v1/d/current", payload, 1), ("mc/v1/d/current", payload, 500)] == [published(packet, V5) for packet in found]
