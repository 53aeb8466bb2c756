"""Rows 19 to 27: the store is away, slow, wrong or dying."""

import math
import time
from collections.abc import Callable

from tests.faults.contract import NARROW, SAMPLES_OF_WIDE, WIDE
from tests.faults.influx import Answer, FakeInflux, refused
from tests.faults.matrix import row
from tests.faults.trial import Trial
from tests.servers import wait_until


@row(19, "store down", lasts_s=70)
def store_down(trial: Trial) -> None:
    """A real InfluxDB is stopped; what is taken in meanwhile waits in the journal, not at the broker."""
    down_s, per_s = trial.scale(15, 600), 500
    with trial.mosquitto() as broker, trial.influxdb() as store, trial.line(broker, store) as line, trial.oracle() as oracle:
        oracle.devices(8, broker.port, kind=WIDE)
        oracle.issue(500)
        oracle.wait_acknowledged()
        store.kill()
        trial.happened("store stopped")
        oracle.issue(down_s * per_s, per_s=per_s)
        time.sleep(1)
        worst = 0
        while oracle.status()["left"]:
            time.sleep(0.5)
            worst = max(worst, oracle.status()["held"])
        oracle.wait_acknowledged(60)  # safe although the store is away
        waiting = line.wait_for(lambda seen: seen["ledger"]["inbox"] == 0, 60, "the inbox to be empty")["ledger"]["outbox"]
        trial.figure("most held by devices", worst)
        trial.must(worst < 8 * per_s, f"devices held up to {worst} messages: the outage was passed on to them")
        trial.must(waiting >= down_s * per_s, f"only {waiting} wait in the outbox")
        store.start()
        back = line.wait_for(lambda seen: seen["ledger"]["outbox"] < waiting, 60, "the line to notice that the store is back")["ledger"]["outbox"]
        began = time.monotonic()
        line.wait_for(lambda seen: seen["ledger"]["pending"] == 0, 600, "the outbox to drain")
        trial.figure("drained points/s", round((back) * SAMPLES_OF_WIDE / (time.monotonic() - began)))
        trial.judge(line, oracle, store)


@row(20, "500, 502, 503, 429 at random, 30 %", lasts_s=35)
def random_errors(trial: Trial) -> None:
    waits: list[tuple[float, float]] = []

    def script(number: int, lines: list[str]) -> Answer | None:
        if trial.chance.random() >= 0.3:
            return None
        status = trial.chance.choice((500, 502, 503, 429))
        trial.happened(str(status))
        after_s = trial.chance.choice((0, 1, 2)) if status in (503, 429) else 0
        if not after_s:
            return refused(status)
        waits.append((time.monotonic(), after_s))
        return refused(status, Retry_After=str(after_s))

    with trial.mosquitto() as broker, FakeInflux(script) as store, trial.line(broker, store, sink_batch=50) as line, trial.oracle() as oracle:
        oracle.devices(8, broker.port)
        oracle.issue(trial.scale(4_000, 200_000), per_s=300)
        oracle.wait_acknowledged(900)
        line.wait_settled(0, 120)
        store.heal()
        for status in ("500", "502", "503", "429"):
            trial.must_have_happened(status)
        for asked_at, after_s in waits:
            following = next((r.at_s for r in store.requests if r.at_s > asked_at + 0.01), None)
            if following is not None:
                trial.must(following - asked_at >= after_s - 0.05, f"Retry-After {after_s} s, asked again after {following - asked_at:.2f} s")
                trial.must(following - asked_at <= after_s + 1.5, f"Retry-After {after_s} s, asked again only after {following - asked_at:.2f} s")
        trial.must(len(waits) > 0, "I10: no Retry-After was given")
        trial.judge(line, oracle, store)


@row(21, "store answers too late, and has stored", lasts_s=35)
def stored_after_the_timeout(trial: Trial) -> None:
    """Nobody can know that a write has happened whose answer never came; writing it again must be the same point."""

    def script(number: int, lines: list[str]) -> Answer | None:
        if number % 3 != 1:
            return None
        how = trial.chance.choice(("late", "cut", "half"))
        trial.happened(how)
        if how == "late":
            return Answer(after_s=1.6)
        return Answer(status=204 if how == "half" else 0, hangs_up=True)

    with trial.mosquitto() as broker, FakeInflux(script) as store:
        with trial.line(broker, store, influx_timeout_ms=1000, sink_batch=100) as line, trial.oracle() as oracle:
            oracle.devices(8, broker.port)
            oracle.issue(trial.scale(3_000, 100_000), per_s=400)
            oracle.wait_acknowledged(600)
            line.wait_settled(0, 120)
            store.heal()
            for how in ("late", "cut", "half"):
                trial.must_have_happened(how)
            streams = ("current", "contact", "runtime", "health")
            trial.must(sum(store.overwritten[s] for s in streams) > 0, "I10: nothing was written twice")
            trial.must(sum(store.changed[s] for s in streams) == 0, f"I2: written again with other fields: {dict(store.changed)}")
            trial.judge(line, oracle, store)


def with_a_full_outbox(trial: Trial, messages: int, devices: int, work: "Callable[..., None]", **settings: object) -> None:
    """Messages of one line each wait while the store is away; `work` then has it come back, with what it will."""
    with trial.mosquitto() as broker, FakeInflux(lambda n, lines: refused(503)) as store:
        with trial.line(broker, store, **settings) as line, trial.oracle() as oracle:
            oracle.devices(devices, broker.port, kind=NARROW)
            oracle.issue(messages)
            oracle.wait_acknowledged()
            line.wait_for(lambda seen: seen["ledger"]["outbox"] >= messages, 30, "the outbox to fill")
            work(line, oracle, store)


@row(23, "400 for one of 5,000 lines", lasts_s=30)
def one_bad_line(trial: Trial) -> None:
    bad_seq = trial.chance.randint(200, 2000)

    def is_bad(text: str) -> bool:
        return text.startswith("current,device_id=dev-0,") and f",seq={bad_seq}i" in text

    def work(line, oracle, store) -> None:
        store.is_bad = is_bad
        store.script = None
        line.wait_for(lambda seen: seen["ledger"]["quarantined"] == 1, 90, "the bad line to be set aside")
        line.wait_settled(0, 60)
        answers = [r for r in store.requests if r.status in (204, 400)]
        first = next(n for n, r in enumerate(answers) if r.status == 400)
        last = max(n for n, r in enumerate(answers) if r.status == 400)
        size = answers[first].lines
        trial.figure("lines in the write", size)
        trial.figure("requests to find it", last - first + 1)
        most = 2 * math.ceil(math.log2(size)) + 2
        trial.must(last - first + 1 <= most <= 30, f"{last - first + 1} requests for one bad line of {size}, at most {most}")
        trial.must(size >= 4_500, f"I10: the write had {size} lines only")
        trial.happened("400", store.statuses()[400])
        verdict = trial.judge(line, oracle, store)
        trial.must(verdict.quarantined == 1, f"{verdict.quarantined} are in quarantine")

    with_a_full_outbox(trial, 5_100, 2, work, sink_batch=5_000)


@row("24a", "422 for one and for seven points", lasts_s=30)
def some_refused(trial: Trial) -> None:
    for bad in (1, 7):
        chosen = set(trial.chance.sample(range(50, 1_000), bad))

        def is_refused(text: str, chosen: set[int] = chosen) -> bool:
            return text.startswith("current,device_id=dev-0,") and int(text.rsplit(",seq=", 1)[1].split("i", 1)[0]) in chosen

        def work(line, oracle, store, bad: int = bad, is_refused=is_refused) -> None:
            store.is_refused = is_refused
            store.script = None
            line.wait_for(lambda seen: seen["ledger"]["quarantined"] == bad, 90, f"{bad} to be set aside")
            line.wait_settled(0, 60)
            trial.happened("422", store.statuses()[422])
            verdict = trial.judge(line, oracle, store)
            trial.must(verdict.quarantined == bad, f"{verdict.quarantined} are in quarantine, {bad} were refused")

        with_a_full_outbox(trial, 2_500, 2, work)


@row("24b", "422 for every point of every device", lasts_s=75)
def all_refused(trial: Trial) -> None:
    """The bucket is at fault, not the messages: they are held, and nothing is set aside."""

    def work(line, oracle, store) -> None:
        store.is_refused = lambda text: text.startswith(("current,", "contact,", "runtime,", "health,"))
        store.script = None
        seen = line.wait_for(lambda seen: "schema incident" in seen["pipeline"]["store"]["detail"], 60, "a schema incident to be said")
        trial.must(not seen["pipeline"]["store"]["ok"], "the store is called well")
        trial.happened("422", store.statuses()[422])
        time.sleep(2)
        trial.must(line.ledger()["quarantined"] == 0, f"{line.ledger()['quarantined']} were set aside for a fault of the bucket")
        store.heal()
        line.wait_settled(0, 90)
        verdict = trial.judge(line, oracle, store)
        trial.must(verdict.quarantined == 0, f"{verdict.quarantined} are in quarantine")

    with_a_full_outbox(trial, 1_000, 8, work)


@row(26, "401, 403, 404", lasts_s=80)
def not_allowed(trial: Trial) -> None:
    """A mistake of a person, which a person mends: nothing is dropped meanwhile, and it is said."""
    told: set[int] = set()
    statuses = iter((401, 403, 404) * 1_000)

    def script(number: int, lines: list[str]) -> Answer | None:
        status = next(statuses)
        told.add(status)
        return refused(status)

    with trial.mosquitto() as broker, FakeInflux(script) as store, trial.line(broker, store) as line, trial.oracle() as oracle:
        oracle.devices(8, broker.port)
        oracle.issue(trial.scale(3_000, 60_000), per_s=trial.scale(300, 200))
        oracle.wait_acknowledged(400)
        seen = line.wait_for(lambda seen: not seen["pipeline"]["store"]["ok"], 40, "the refusal to be said")
        trial.must("check url, org, bucket" in seen["pipeline"]["store"]["detail"], f"it says {seen['pipeline']['store']['detail']}")
        trial.must(line.command("check").returncode != 0, "'check' finds nothing wrong")
        wait_until(lambda: len(told) >= trial.scale(2, 3), 120, "more than one kind of refusal")
        ledger = line.ledger()
        trial.must((ledger["stored"], ledger["quarantined"]) == (0, 0), f"something has left the journal: {ledger}")
        trial.happened("refused", sum(store.statuses().values()))
        store.heal()
        line.wait_settled(0, 90)
        trial.judge(line, oracle, store)


@row(27, "real InfluxDB killed while it writes", lasts_s=50)
def influxdb_killed(trial: Trial) -> None:
    with trial.mosquitto() as broker, trial.influxdb() as store, trial.line(broker, store) as line, trial.oracle() as oracle:
        oracle.devices(8, broker.port)
        oracle.issue(10_000_000, per_s=800)
        for _ in range(trial.scale(4, 100)):
            time.sleep(trial.chance.uniform(0.5, 1.5))
            store.kill()
            trial.outcome.kills += 1
            trial.happened("InfluxDB killed")
            time.sleep(trial.chance.uniform(0.0, 0.5))
            store.start()
            line.wait_for(lambda seen: seen["pipeline"]["store"]["ok"], 60, "the store to be back")
        oracle.halt()
        oracle.wait_acknowledged()
        line.wait_settled(0, 90)
        trial.judge(line, oracle, store)
