"""Rows 1 to 7 and 43: the worker dies, at random and at every place that has a name."""

import signal
import time
from collections.abc import Iterable, Sequence

from tests.faults.contract import Key, mark_of
from tests.faults.influx import FakeInflux, fields_of, split
from tests.faults.line import Line
from tests.faults.matrix import row
from tests.faults.stands import SetClock, Webhook, make_version_3
from tests.faults.trial import Trial
from tests.servers import wait_until
from tests.system.line import send

AT_THE_START = (
    "journal-locked", "journal-running", "duckdb-trimmed", "store-opened", "settle-upto-uncommitted", "settled-upto", "subscribed",
    "suspect-counted", "suspect-passed", "resumed", "store-forgot", "summed", "reported",
)  # fmt: skip
UNDER_LOAD = (
    "taken", "accept-uncommitted", "accepted", "acks-handed", "acks-unsent", "acks-sent", "admitted", "process-uncommitted", "processed",
    "durable-ack-said", "notice-said", "notices-dropped", "write-begun", "duckdb-uncommitted", "duckdb-committed", "written",
    "settle-uncommitted", "settled", "webhook-posting", "webhook-answered",
)  # fmt: skip
INTO_INFLUXDB = ("write-begun", "posted", "bisecting", "written", "settle-uncommitted", "settled")
AT_THE_END = (
    "stop-asked", "stop-drained", "stop-received", "stop-finished", "stop-store-closed", "stop-clean", "stop-checkpointed",
)  # fmt: skip
UPGRADING = ("upgrade-uncommitted", "upgraded")
SELDOM = {"notice-said", "notices-dropped", "webhook-posting", "webhook-answered", "reported", "bisecting", "settled"}
"""Places that are not reached many times a second."""

REACH_S = 45.0


@row(1, "worker killed at random moments", lasts_s=75)
def killed_at_random(trial: Trial) -> None:
    kills, messages = trial.scale(25, 1000), trial.scale(40_000, 1_000_000)
    with trial.mosquitto() as broker, trial.line(broker) as line, trial.oracle() as oracle:
        oracle.devices(16, broker.port, births=True)
        oracle.issue(messages, per_s=1_000)
        for n in range(kills):
            time.sleep(trial.chance.uniform(0.0, 0.9))
            trial.kill_worker(line, timed=n % 3 > 0)  # every third dies before it serves
        line.wait_ready()
        oracle.wait_acknowledged(600)
        trial.judge(line, oracle, duplicates=True)


def walk(trial: Trial, line: Line, orders: Sequence[str]) -> None:
    """Each worker carries out the next order: dies there, and the next one is started by the supervisor."""
    line.order(*orders)
    done = sum(line.reached().values())
    wait_until(line.kill_worker, 30, "a worker without an order to kill")
    trial.outcome.kills += 1
    for order in orders:
        done += 1
        try:
            wait_until(lambda: sum(line.reached().values()) >= done, REACH_S, order)  # noqa: B023
        except BaseException:
            trial.must(False, f"I10: {order}: not reached within {REACH_S:g} s\n{line.tail(6)}")
            line.order(*orders[orders.index(order) + 1 :])
            wait_until(line.kill_worker, 30, "the worker to kill")
            done -= 1
        trial.outcome.kills += order.endswith(":kill")
    trial.happened("order carried out", sum(line.reached().values()))
    line.wait_ready()


def orders_for(trial: Trial, places: Iterable[str], rounds: int, most: int = 6) -> list[str]:
    """In another order each round; under load not always at the first time. Now and then it fails or ends instead of being
    killed: the supervisor then waits longer, so that follows a kill."""
    orders = []
    for turn in range(rounds):
        some = list(places)
        trial.chance.shuffle(some)
        for n, place in enumerate(some):
            if place.startswith("suspect-"):  # only what a death has left unprocessed is suspected
                orders.append(f"accepted:{trial.chance.randint(1, most)}:kill")
            times = 1 if place in SELDOM or place in AT_THE_START else trial.chance.randint(1, most)
            act = trial.chance.choice(("exit", "raise")) if turn % 2 and n % 4 == 3 else "kill"
            orders.append(f"{place}:{times}:{act}")
    return orders


@row("2a", "killed at each place of start, line and DuckDB", lasts_s=110)
def at_each_place(trial: Trial) -> None:
    with (
        trial.mosquitto() as broker, Webhook() as hook,
        trial.line(broker, webhook_url=hook.url, webhook_min_severity="info") as line, trial.oracle() as oracle,
    ):  # fmt: skip
        oracle.devices(16, broker.port, births=True, dangerous_every=60, refused_every=500)
        oracle.issue(10_000_000, per_s=400)
        walk(trial, line, orders_for(trial, AT_THE_START + UNDER_LOAD, trial.scale(1, 50)))
        oracle.halt()
        oracle.wait_acknowledged(120)
        trial.must(len(hook.keys) > 0, "I10: the webhook was never called")
        trial.judge(line, oracle, duplicates=True)


@row("2b", "killed at each place of the way into InfluxDB", lasts_s=40)
def at_each_place_into_influxdb(trial: Trial) -> None:
    with trial.mosquitto() as broker, FakeInflux() as store, trial.line(broker, store) as line, trial.oracle() as oracle:
        store.is_refused = lambda text: is_chosen(text, 211)
        oracle.devices(2, broker.port)  # so few that the line does not take the refusals for a fault of the bucket
        oracle.issue(10_000_000, per_s=300)
        walk(trial, line, orders_for(trial, INTO_INFLUXDB, trial.scale(3, 50), most=2))
        oracle.halt()
        oracle.wait_acknowledged(120)
        trial.must(store.overwritten["current"] > 0, "I10: nothing was ever written twice: the trial is too kind")
        trial.must(not any(store.changed[s] for s in ("current", "contact", "runtime", "health")), f"I4: written again with other fields: {store.changed}")
        verdict = trial.judge(line, oracle, store)
        trial.must(verdict.quarantined > 0, "I10: no point was refused")


def is_chosen(line: str, every: int) -> bool:
    """Whether a line is of one message in so many; all lines of a message are, or none."""
    series, fields, _ = split(line)
    if series.split(",", 1)[0] not in ("current", "contact", "runtime", "health"):
        return False
    device_id = next(pair[10:] for pair in series.split(",") if pair.startswith("device_id="))
    found = fields_of(fields)
    return mark_of(Key(device_id, found["boot_id"], found["seq"])) % every == 0


@row("2c", "killed at each place of an orderly end", lasts_s=35)
def at_each_place_of_the_end(trial: Trial) -> None:
    with trial.mosquitto() as broker, trial.line(broker) as line, trial.oracle() as oracle:
        oracle.devices(8, broker.port)
        oracle.issue(10_000_000, per_s=400)
        for place in AT_THE_END * trial.scale(1, 50):
            line.order(f"{place}:kill")
            trial.kill_worker(line)
            time.sleep(trial.chance.uniform(0.1, 0.5))
            before, reached = line.worker_pid, sum(line.reached().values())
            send(before, signal.SIGTERM)
            wait_until(lambda: sum(line.reached().values()) > reached, REACH_S, f"{place} to be reached")  # noqa: B023
            trial.outcome.kills += 1
            trial.wait_serving(line, before)
        oracle.halt()
        oracle.wait_acknowledged(60)
        trial.judge(line, oracle)


@row("2d", "killed while it upgrades an older journal", lasts_s=20)
def at_each_place_of_an_upgrade(trial: Trial) -> None:
    with trial.mosquitto() as broker, trial.line(broker) as line, trial.oracle() as oracle:
        oracle.devices(8, broker.port, refused_every=100)
        for _ in range(trial.scale(1, 50)):
            oracle.issue(1_000)
            oracle.wait_acknowledged()
            line.stop()
            make_version_3(line.data / "journal.db")
            line.order(*(f"{place}:kill" for place in UPGRADING))
            line.start()
            trial.outcome.kills += len(UPGRADING)
        trial.must(all(line.reached()[place] for place in UPGRADING), f"I10: only {dict(line.reached())} reached")
        trial.judge(line, oracle)


@row("2e", "killed while it deletes what is too old", lasts_s=30)
def at_the_pruning(trial: Trial) -> None:
    """The worker's clock runs days ahead of what it received. What is pruned is stored, so nothing is missing of it."""
    directory = trial.place("clock")
    directory.mkdir(parents=True)
    with SetClock(directory / "clock") as clock, trial.mosquitto() as broker:
        with trial.line(broker, clock_file=clock.path, raw_retention_days=1) as line, trial.oracle() as oracle:
            oracle.devices(8, broker.port)
            oracle.issue(10_000)
            oracle.wait_acknowledged()
            clock.put_ahead(2 * 86_400)
            oracle.issue(100_000, per_s=200)
            walk(trial, line, ["pruned:kill", "processed:3:kill", "pruned:2:kill", "processed:3:kill", "pruned:raise", "store-forgot:kill"])
            oracle.halt()
            oracle.wait_acknowledged()
            trial.judge(line, oracle)


@row(3, "killed between commit and acknowledgement", lasts_s=30)
def between_commit_and_acknowledgement(trial: Trial) -> None:
    """The broker's PUBACK is the promise here, and the broker lives: it must deliver again, and the line must notice."""
    kills = trial.scale(12, 500)
    with trial.mosquitto() as broker, trial.line(broker) as line, trial.oracle() as oracle:
        oracle.devices(8, broker.port, durable=False)
        oracle.issue(10_000_000, per_s=500)
        walk(trial, line, [f"accepted:{trial.chance.randint(1, 8)}:kill" for _ in range(kills)])
        oracle.halt()
        oracle.wait_acknowledged()
        verdict = trial.judge(line, oracle, duplicates=True)
        trial.must(trial.outcome.duplicates >= kills, f"I10: {trial.outcome.duplicates} duplicates for {kills} kills of {verdict.issued}")


@row(4, "killed between the store's answer and the outbox", lasts_s=30)
def between_answer_and_settling(trial: Trial) -> None:
    with trial.mosquitto() as broker, FakeInflux() as store, trial.line(broker, store) as line, trial.oracle() as oracle:
        oracle.devices(8, broker.port)
        oracle.issue(10_000_000, per_s=500)
        walk(trial, line, [f"{place}:{trial.chance.randint(1, 4)}:kill" for place in ("posted", "written", "settle-uncommitted") * trial.scale(4, 200)])
        oracle.halt()
        oracle.wait_acknowledged()
        streams = ("current", "contact", "runtime", "health")
        trial.must(sum(store.overwritten[s] for s in streams) > 0, "I10: nothing was written twice: the trial is too kind")
        trial.must(sum(store.changed[s] for s in streams) == 0, f"I2: written again with other fields: {dict(store.changed)}")
        trial.judge(line, oracle, store)


@row(5, "killed in DuckDB between COMMIT and outbox", lasts_s=30)
def between_duckdb_and_outbox(trial: Trial) -> None:
    with trial.mosquitto() as broker, trial.line(broker) as line, trial.oracle() as oracle:
        oracle.devices(8, broker.port)
        oracle.issue(10_000_000, per_s=500)
        places = ("duckdb-committed", "written", "settle-uncommitted") * trial.scale(4, 200)
        walk(trial, line, [f"{place}:{trial.chance.randint(1, 4)}:kill" for place in places])
        oracle.halt()
        oracle.wait_acknowledged()
        trial.judge(line, oracle)


@row(6, "killed in recovery, twice in a row", lasts_s=40)
def in_recovery(trial: Trial) -> None:
    recovery = ("journal-running", "store-opened", "settle-upto-uncommitted", "settled-upto", "suspect-counted", "resumed")
    with trial.mosquitto() as broker, trial.line(broker) as line, trial.oracle() as oracle:
        oracle.devices(8, broker.port)
        oracle.issue(10_000_000, per_s=400)
        orders = []
        for _ in range(trial.scale(5, 100)):
            first, second = trial.chance.choice(recovery), trial.chance.choice(recovery)
            orders += [f"{trial.chance.choice(('processed', 'duckdb-committed', 'accepted'))}:{trial.chance.randint(1, 5)}:kill", f"{first}:kill", f"{second}:kill"]
        walk(trial, line, orders)
        oracle.halt()
        oracle.wait_acknowledged()
        trial.judge(line, oracle)


@row(7, "SIGTERM, and SIGKILL before it is done", lasts_s=35)
def killed_in_the_end(trial: Trial) -> None:
    with trial.mosquitto() as broker, trial.line(broker) as line, trial.oracle() as oracle:
        oracle.devices(8, broker.port)
        oracle.issue(10_000_000, per_s=600)
        for _ in range(trial.scale(8, 200)):
            time.sleep(trial.chance.uniform(0.2, 0.8))
            send(line.pid, signal.SIGTERM)
            time.sleep(trial.chance.choice((0.0, trial.chance.uniform(0, 0.3), trial.chance.uniform(0, 2.0))))
            worker = line.child("ingest.cli worker")
            if worker is not None and send(worker, signal.SIGKILL):
                trial.happened("killed within the end")
                trial.outcome.kills += 1
            if line.running:
                wait_until(lambda: not line.running, 30, "run to end")
            line.start()
        oracle.halt()
        oracle.wait_acknowledged()
        trial.must_have_happened("killed within the end")
        trial.judge(line, oracle)


@row(43, "owner of DuckDB killed, reopened each time", lasts_s=40)
def duckdb_owner_killed(trial: Trial) -> None:
    """The store must open every time: a worker that cannot open it ends with 2, and the run with it."""
    kills = trial.scale(20, 500)
    with trial.mosquitto() as broker, trial.line(broker) as line, trial.oracle() as oracle:
        oracle.devices(8, broker.port)
        oracle.issue(10_000_000, per_s=800)
        for n in range(kills):
            time.sleep(trial.chance.uniform(0.0, 0.4))
            trial.kill_worker(line)
            trial.must(line.running, f"the run ended after {n + 1} kills: {line.tail(5)}")
        oracle.halt()
        oracle.wait_acknowledged()
        trial.judge(line, oracle)
