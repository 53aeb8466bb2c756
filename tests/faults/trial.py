"""One run of one row: its parts, its faults, and what must hold at its end.

`judge` ends a trial: a fresh probe must be stored (I5), the ledger must be at rest and balanced (I6), the gaps that
are reported must be those that exist (I7), the store must hold what was acknowledged, once, as it was sent (I1 to I4, I8).
While a line runs, its ledger is asked for twice a second and must balance each time, and its memory is watched (I9).
`must` notes a violation of anything else; `happened` notes that a fault took place, and a fault that was
expected and did not is a violation (I10). Nothing here imports the product: it is started, asked and read as a person would.
"""

import json
import random
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.faults.contract import Key
from tests.faults.influx import FakeInflux
from tests.faults.judge import Issued, Row, Verdict, judge
from tests.faults.line import Line
from tests.faults.oracle_client import Oracle
from tests.faults.outcome import Outcome
from tests.faults.stores import duckdb_rows, fake_rows, influxdb_rows
from tests.servers import InfluxDB, Mosquitto, wait_until
from tests.system.line import balanced, influx_settings

RSS_MOST_MB = 300
ARRIVAL_S = 40.0


class Trial:
    """One run of one row."""

    def __init__(self, number: str, fault: str, seed: int, directory: Path, full: bool = False, minutes: float = 1.0) -> None:
        self.outcome = Outcome(number, fault, seed)
        self.chance = random.Random(f"{seed}/{number}")
        self.directory = directory
        self.full = full
        self.minutes = minutes
        """How long the soak lasts."""
        self._count = 0
        self._lock = threading.Lock()

    def scale(self, short: int, full: int) -> int:
        """How often, in the short run and in the full one."""
        return full if self.full else short

    def place(self, name: str) -> Path:
        """A directory of its own."""
        with self._lock:
            self._count += 1
            return self.directory / f"{self._count}-{name}"

    # -- parts ------------------------------------------------------------------------------------

    def mosquitto(self, **given: Any) -> Mosquitto:
        return Mosquitto(self.place("mosquitto"), **given)

    def influxdb(self) -> InfluxDB:
        return InfluxDB(self.place("influxdb"))

    def line(self, broker: Any = None, store: FakeInflux | InfluxDB | None = None, **settings: Any) -> Line:
        """`microcurrent run` at a broker (anything with a `port`; None: the embedded one) and a store (None: DuckDB)."""
        if broker is not None:
            settings = {"broker": "external", "mqtt_port": broker.port} | settings
        else:
            settings = {"broker": "embedded", "mqtt_port": 0} | settings
        if isinstance(store, InfluxDB):
            settings = influx_settings(store) | settings
        elif store is not None:
            settings = store.settings | settings
        self.outcome.runs += 1
        return Line(self.place("line"), self, durable_ack_interval_ms=settings.pop("durable_ack_interval_ms", 100), **settings)

    def oracle(self) -> Oracle:
        return Oracle(self.place("oracle"), self.chance.randrange(1 << 32))

    # -- faults -----------------------------------------------------------------------------------

    def kill_worker(self, line: Line, timed: bool = True) -> None:
        """SIGKILL; with `timed`, wait until the next one serves, and note how long that took."""
        before = line.worker_id()
        wait_until(line.kill_worker, 30, "a worker to kill")
        self.outcome.kills += 1
        self.happened("worker killed")
        if timed:
            self.wait_serving(line, before)

    def wait_serving(self, line: Line, before: int | None) -> None:
        """Until another worker than the one before is subscribed; notes how long it took from now."""
        began = time.monotonic()
        wait_until(lambda: line.worker_id() != before and line.ready(), 60, f"another worker than {before} to serve\n{line.tail()}")
        self.outcome.serving_after_s.append(time.monotonic() - began)

    def happened(self, what: str, times: int = 1) -> None:
        with self._lock:
            self.outcome.happened[what] = self.outcome.happened.get(what, 0) + times

    def must_have_happened(self, what: str, at_least: int = 1) -> None:
        """I10: a fault that never took place proves nothing."""
        times = self.outcome.happened.get(what, 0)
        self.must(times >= at_least, f"I10: {what}: {times} times, expected {at_least} or more: the trial is too kind")

    # -- judging ----------------------------------------------------------------------------------

    def must(self, holds: bool, sentence: str) -> None:
        if not holds:
            with self._lock:
                self.outcome.violations.append(sentence)

    def saw_rss(self, mb: float) -> None:
        self.outcome.rss_mb = max(self.outcome.rss_mb, mb)

    def figure(self, name: str, value: float) -> None:
        self.outcome.figures[name] = value

    def judge(
        self, line: Line, oracle: Oracle, store: FakeInflux | InfluxDB | None = None, *, probe_within_s: float = 10.0,
        may_lose: bool = False, probe: bool = True, duplicates: bool = False, rss_most_mb: float = RSS_MOST_MB,
    ) -> Verdict:  # fmt: skip
        """Judge a line that stands still; it is stopped for it. With `duplicates`, some must have been seen (I10). With
        `may_lose`, messages that were issued and never arrived must be reported as gaps, exactly; none may be lost otherwise."""
        if not may_lose:
            self._wait_arrived(line, oracle)
        if probe:
            self.probe(line, oracle, probe_within_s)
        try:
            ledger = line.at_rest(60)
        except BaseException as error:
            self.must(False, f"I5: {error}")
            ledger = line.ledger()
        issued = oracle.issued()
        entries = line.set_aside()
        aside, unread = [key for key, _ in entries], {key for key, reason in entries if reason == "crash_suspect"}
        if unread:
            self.happened("set aside unread after three deaths", len(unread))
        devices = line.devices()
        told = oracle.call("missing")
        code = line.stop()
        self.must(code == 0, f"the line ended with code {code}:\n{line.tail(8)}")
        if store is None:
            rows = list(duckdb_rows(line.data))
        elif isinstance(store, InfluxDB):
            rows = list(influxdb_rows(store))
        else:
            rows = list(fake_rows(store))
        verdict = judge(issued, rows, aside, unread)
        never = issued.messages.keys() - _keys(rows) - set(aside)
        if may_lose:
            verdict.sentences = [s for s in verdict.sentences if not s.startswith("lost")]
            self.figure("lost with the broker", len(never))
            self.must(never <= verdict.lost_keys | (issued.messages.keys() - issued.acked), "I1: more is lost than was given up")
            verdict.lost = 0
        self._judge_gaps(issued, never, devices, told)
        self.must(verdict.ok, "; ".join(verdict.sentences))
        self.must(balanced(ledger), f"I6: the ledger does not balance: {ledger}")
        self.must(
            (ledger["stored"], ledger["quarantined"]) == (verdict.stored, verdict.quarantined),
            f"I6: the ledger says {ledger['stored']} stored, {ledger['quarantined']} quarantined; found {verdict.stored} and {verdict.quarantined}",
        )
        self.must(self.outcome.rss_mb <= rss_most_mb, f"I9: {self.outcome.rss_mb:.0f} MB RSS, at most {rss_most_mb} are allowed")
        if duplicates:
            self.must(ledger["duplicate"] > 0, "I10: no duplicate was ever seen: the trial is too kind")
        o = self.outcome
        o.messages += verdict.issued
        o.lost += verdict.lost
        o.doubled += verdict.doubled + verdict.both
        o.spurious += verdict.spurious
        o.damaged += verdict.damaged
        o.duplicates += ledger["duplicate"]
        o.quarantined += verdict.quarantined
        for name, times in line.reached().items():
            o.reached[name] = o.reached.get(name, 0) + times
        return verdict

    def probe(self, line: Line, oracle: Oracle, within_s: float) -> None:
        """I5: something fresh goes all the way, soon after what the faults have left is worked off."""
        before, began = line.at_rest(180)["stored"], time.monotonic()
        oracle.issue(len(oracle.ids), per_s=0)
        try:
            oracle.wait_acknowledged(within_s)
            line.wait_for(lambda seen: seen["ledger"]["pending"] == 0 and seen["ledger"]["stored"] > before, within_s, "the probe to be stored")
        except BaseException as error:
            self.must(False, f"I5: {error}")
        self.figure("probe_s", round(time.monotonic() - began, 2))

    def _wait_arrived(self, line: Line, oracle: Oracle) -> None:
        """A broker that was told to keep a message may still have it: after a death it delivers again only after a while."""
        acked = oracle.status()["acked"]

        def arrived() -> bool:
            ledger = line.ledger()
            return ledger["pending"] == 0 and ledger["stored"] + ledger["quarantined"] >= acked

        with suppress(BaseException):  # what is lost is for the judge to say
            wait_until(arrived, ARRIVAL_S, "what was acknowledged to arrive")

    def _judge_gaps(self, issued: Issued, never: set[Key], devices: dict[str, dict[str, Any]], told: dict[str, Any]) -> None:
        """I7: what the line reports as missing is what is missing, and the devices were told the same ranges."""
        real: Counter[str] = Counter()
        for key in {Key(k.device_id, k.boot_id, 0) for k in issued.messages}:
            holes = issued.holes(key, never)
            real[key.device_id] += sum(b - a + 1 for a, b in holes)
            said = told.get(key.device_id, {}).get(str(key.boot_id))
            if holes and said is not None and len(holes) <= 32:
                upto, missing = said
                expected = [[a, b] for a, b in holes if a <= upto]
                self.must(expected == [list(r) for r in missing], f"I7: {key.device_id} was told {missing} lack, and {expected} do")
        reported = {device_id: d["missing"] for device_id, d in devices.items() if d["missing"]}
        exist = {device_id: n for device_id, n in real.items() if n}
        self.must(reported == exist, f"I7: gaps reported {_few(reported)}, gaps that exist {_few(exist)}")


def _few(found: dict[str, int]) -> str:
    return json.dumps(dict(sorted(found.items())[:6])) + (" …" if len(found) > 6 else "")


def _keys(rows: list[Row]) -> set[Key]:
    return {Key(row["device_id"], int(row["boot_id"]), int(row["seq"])) for row in rows}
